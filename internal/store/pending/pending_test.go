package pending_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/enclavetest"
	"sallyport/internal/store"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
)

func digests(blobs ...string) (list []trust.Digest) {
	for _, b := range blobs {
		list = append(list, trust.Sum([]byte(b)))
	}
	return list
}

func put(e *enclavetest.Enclave, blobs ...string) {
	for _, b := range blobs {
		e.Put([]byte(b))
	}
}

func has(t *testing.T, e *enclavetest.Enclave, blobs ...string) {
	t.Helper()
	want := digests(blobs...)
	slices.SortFunc(want, func(a, b trust.Digest) int { return strings.Compare(a.String(), b.String()) })
	if got := e.Blobs(); !slices.Equal(got, want) {
		t.Errorf("blobs %v, want %v", got, want)
	}
}

func TestDoneAndDrop(t *testing.T) {
	e := enclavetest.New(t)
	put(e, "before")
	refused := errors.New("refused")
	in, err := pending.Begin(t.Context(), e.Zone, "import", digests("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	put(e, "a", "b")
	if err := in.End(t.Context(), nil); err != nil || e.Notes() != nil {
		t.Errorf("%v, %v", err, e.Notes())
	}
	has(t, e, "before", "a", "b")
	if in, err = pending.Begin(t.Context(), e.Zone, "import", digests("c", "never")); err != nil {
		t.Fatal(err)
	}
	if err := in.More(digests("c", "d")); err != nil {
		t.Fatal(err)
	}
	put(e, "c", "d")
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // who was told to stop still cleans up
	if err := in.End(ctx, refused); err != nil || e.Notes() != nil {
		t.Errorf("%v, %v", err, e.Notes())
	}
	has(t, e, "before", "a", "b")
	// Twice changes nothing.
	if err := in.End(t.Context(), refused); err != nil {
		t.Error(err)
	}
	// What is committed and not published yet is committed.
	if in, err = pending.Begin(t.Context(), e.Zone, "import", digests("a")); err != nil {
		t.Fatal(err)
	}
	if err := in.End(t.Context(), fmt.Errorf("import: %w", &store.UnpublishedError{Size: 1, Err: refused})); err != nil || e.Notes() != nil {
		t.Errorf("%v, %v", err, e.Notes())
	}
	if err := (*pending.Intake)(nil).End(t.Context(), refused); err != nil {
		t.Error(err)
	}
	if err := pending.Settle(t.Context(), e.Zone, "never-began"); err != nil {
		t.Error(err)
	}
	has(t, e, "before", "a", "b")
}

// A run that was killed: the next one of the stage removes what it left, and nothing that another stage has noted or a row refers to.
func TestKilled(t *testing.T) {
	e := enclavetest.New(t)
	drv := e.Derivation("a-1.0")
	built := enclavetest.Out{Path: drv.Output("out"), Nar: enclavetest.Nar("out")}
	src := e.Source("src", "src")
	e.Quarantine("dave", src, drv)
	e.Allow("dev", src)
	e.Vote("erin", drv, built)
	e.Exec(`INSERT INTO proposal (track, version, shipment, text) VALUES ('prod', 1, 1, ?)`, digests("proposal")[0].String())
	e.Exec(`INSERT INTO narinfo (track, hash, path, body, nar, blob, form) VALUES ('dev', 'x', '', '', '', ?, '')`, digests("narinfo")[0].String())
	e.Exec(`INSERT INTO collected (sha256, size, kind, name, request, added) VALUES (?, 1, 'source', '', '', '')`, digests("collected")[0].String())
	put(e, "proposal", "narinfo", "collected")
	referred := e.Blobs()
	if _, err := pending.Begin(t.Context(), e.Zone, "import", append(digests("orphan", "shared"), referred...)); err != nil {
		t.Fatal(err)
	}
	if _, err := pending.Begin(t.Context(), e.Zone, "quorum", digests("shared")); err != nil {
		t.Fatal(err)
	}
	put(e, "orphan", "shared")
	in, err := pending.Begin(t.Context(), e.Zone, "import", digests("new"))
	if err != nil {
		t.Fatal(err)
	}
	want := append(slices.Clone(referred), digests("shared")...)
	for _, d := range want {
		if _, ok := e.Zone.CAS.Has(d); !ok {
			t.Errorf("%s is gone", d)
		}
	}
	if len(e.Blobs()) != len(want) {
		t.Errorf("%d blobs, want %d", len(e.Blobs()), len(want))
	}
	if n := e.Notes(); !slices.Equal(n, []string{"import", "quorum"}) {
		t.Errorf("notes %v", n)
	}
	if err := in.End(t.Context(), nil); err != nil {
		t.Error(err)
	}
	// What both had noted goes with the last of them.
	if err := pending.Settle(t.Context(), e.Zone, "quorum"); err != nil {
		t.Error(err)
	}
	if got := e.Blobs(); !slices.Equal(got, referred) {
		t.Errorf("blobs %v, want %v", got, referred)
	}
}

func TestDamaged(t *testing.T) {
	e := enclavetest.New(t)
	put(e, "a")
	dir := filepath.Join(e.Zone.Dir, "pending")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := digests("a")[0].String()
	for _, note := range []string{"", "sallyport pending blobs v1", "another title\n" + a + "\n", "sallyport pending blobs v1\n" + a, "sallyport pending blobs v1\n" + a[1:] + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, "import"), []byte(note), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := pending.Begin(t.Context(), e.Zone, "import", nil); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "import")) {
			t.Errorf("%q: %v", note, err)
		}
	}
	has(t, e, "a")
}
