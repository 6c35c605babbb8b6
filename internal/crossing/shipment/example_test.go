package shipment_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"sallyport/internal/crossing/shipment"
	"sallyport/internal/trust"
)

// A shipment of one item is written outside, and judged inside by the root and the slip. Then a byte of it is turned.
func Example() {
	dir, err := os.MkdirTemp("", "shipment")
	check(err)
	defer os.RemoveAll(dir)
	root, manifestKey, sumsKey := ceremony()

	// Outside.
	content := []byte("the nar of hello-2.12.tar.gz")
	m := &shipment.Manifest{Enclave: "demo", Number: 1, Date: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), Items: []trust.Item{
		{SHA256: trust.Sum(content), Size: int64(len(content)), Kind: trust.KindSource, Name: "0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.tar.gz"},
	}}
	file, err := m.Sign(manifestKey)
	check(err)
	volume := filepath.Join(dir, "volume-1")
	open := func(trust.Item) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	check(shipment.Write(context.Background(), volume, m, file, open, sumsKey, nil))
	paper := shipment.NewSlip(m, file).Text()

	// Inside.
	judge := func() {
		slip, err := shipment.ParseSlip(paper)
		check(err)
		vol, err := os.OpenRoot(volume)
		check(err)
		defer vol.Close()
		v, err := shipment.Verify(context.Background(), vol, shipment.Options{Root: root, Slip: slip})
		var refusals trust.Refusals
		switch {
		case errors.As(err, &refusals):
			fmt.Println("refused:", refusals.Codes())
		case err != nil:
			check(err) // the disc could not be read: nothing is known of it
		default:
			fmt.Printf("shipment %d of %v: %d item, %d bytes\n", v.Manifest.Number, v.Signers, len(v.Manifest.Items), v.Bytes)
		}
	}
	judge()
	item := filepath.Join(volume, "items", m.Items[0].SHA256.String()[:2], m.Items[0].SHA256.String())
	content[4] ^= 1
	check(os.WriteFile(item, content, 0o644))
	judge()

	// Output:
	// shipment 1 of [carol]: 1 item, 28 bytes
	// refused: [item-digest]
}

// ceremony makes the keys, and the root that names them.
func ceremony() (root *trust.Root, manifestKey, sumsKey *trust.Key) {
	r := &trust.Root{Enclave: "demo", Version: 1, Date: time.Date(2026, 2, 1, 9, 0, 0, 0, time.UTC),
		Thresholds: map[string]int{"root": 1, "order": 1}, Policies: map[string]string{trust.PolicyQuorum: "1"},
		Roles: []trust.RoleLine{{Role: trust.RoleBuilder, Person: "bela"}, {Role: trust.RoleCollector, Person: "carol"}, {Role: trust.RoleOfficer, Person: "olga"}}}
	keys := map[string]*trust.Key{}
	for _, name := range []string{"bela/statement", "carol/manifest", "carol/sums", "olga/order", "olga/root"} {
		k, err := trust.GenerateKey(rand.Reader, name)
		check(err)
		keys[name] = k
		r.Keys = append(r.Keys, k.RootKey())
	}
	note, err := trust.SignNote(r.Text(), keys["olga/root"])
	check(err)
	root, err = trust.OpenRoot(note, trust.Sum(r.Text()))
	check(err)
	return root, keys["carol/manifest"], keys["carol/sums"]
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
