package signed_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sallyport/guix/channel/openpgp"
	"sallyport/internal/judge/authenticate/signed"
)

const vectors = "../../../../vectors/git-auth"

// TestVectors holds what the real git, gpg and ssh-keygen have signed, without gpg and ssh-keygen.
func TestVectors(t *testing.T) {
	need(t, "git")
	b := newBench(t)
	b.now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) // after they were made
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(vectors, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	bundle, err := filepath.Abs(filepath.Join(vectors, "signed.bundle"))
	if err != nil {
		t.Fatal(err)
	}
	b.git("fetch", "-q", "--update-head-ok", "--force", bundle, "refs/*:refs/*")
	ring := openpgp.NewKeyring()
	if err := ring.Add("signed.asc", read("signed.asc")); err != nil {
		t.Fatal(err)
	}
	allowed, err := signed.ParseAllowedSigners("signed.allowed", read("signed.allowed"), time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	pgp, ssh := signed.By{Keyring: ring}, signed.By{Allowed: allowed}
	lines := strings.Split(strings.TrimSpace(string(read("signed.txt"))), "\n")
	for _, line := range lines {
		if f := strings.Fields(line); f[0] == "key" && f[1] != "mallory" {
			pgp.Fingerprints = append(pgp.Fingerprints, fingerprint(t, f[2]))
		}
	}
	good, bad := 0, 0
	for _, line := range lines {
		f := strings.Split(line, " :: ")
		if len(f) < 3 {
			continue
		}
		by := pgp
		if strings.Contains(f[0], "/ssh-") {
			by = ssh
		}
		_, refusals := b.verify(f[0], by)
		codes := refusals.Codes()
		slices.Sort(codes)
		got := strings.Join(codes, ",")
		if got == "" {
			got = "-"
		}
		if got != f[2] {
			t.Errorf("%s: %s, want %s\n%v", f[0], got, f[2], refusals)
		}
		if f[1] == "bad" && got == "-" {
			t.Errorf("%s: git refuses it", f[0])
		}
		if got == "-" {
			good++
		} else {
			bad++
		}
	}
	if good < 7 || bad < 11 || len(pgp.Fingerprints) != 2 {
		t.Errorf("%d good ones, %d bad ones", good, bad)
	}
}
