package derivation_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"sallyport/guix/derivation"
)

func seeds(f *testing.F) {
	names, err := filepath.Glob(filepath.Join(vectorDir, "drv", "*.drv"))
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds in %s: %v", vectorDir, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(small().String()))
}

// FuzzParse: what parses prints back to the same bytes; what does not says
// where.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := derivation.Parse(b)
		if err != nil {
			var e *derivation.Error
			if !errors.As(err, &e) || e.Code == "" || e.Offset < 0 || e.Offset > int64(len(b)) || d != nil {
				t.Fatalf("%v", err)
			}
			return
		}
		if got := d.Bytes(); string(got) != string(b) {
			t.Fatalf("%q became %q", b, got)
		}
		refs, err := d.References()
		if err != nil || len(refs) > len(d.Sources)+len(d.Inputs) {
			t.Fatalf("references: %v", err)
		}
	})
}

// FuzzFill: whatever derivation is filled, the result verifies.
func FuzzFill(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := derivation.Parse(b)
		if err != nil {
			return
		}
		// Inputs that are not known make other outputs; one stands for all.
		input := &derivation.Derivation{Outputs: []derivation.Output{{ID: "out", Path: pathA}}}
		for i := range d.Inputs {
			d.Inputs[i].Outputs = []string{"out"}
		}
		h := derivation.NewHasher(func(string) (*derivation.Derivation, error) { return input, nil })
		if err := h.Fill("x", d); err != nil {
			// An ID may be too long for a name; nothing else can be wrong.
			if code(err) != derivation.CodeName {
				t.Fatal(err)
			}
			return
		}
		p, err := d.Path("x")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Verify(p, d.Bytes()); err != nil {
			t.Fatal(err)
		}
		if len(d.Inputs) > 1 {
			t.Fatalf("%d inputs with one output", len(d.Inputs))
		}
	})
}
