package derivation_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

const (
	vectorDir = "../../vectors/drv-hello"
	helloDrv  = "/gnu/store/2nfg943asrl9dv64zrr1a4kpb25mfafd-hello-2.12.2.drv"
)

// A record is what vectors/drv-hello/index.json says of one file.
type record struct {
	Drv, Name, System, Builder string
	FileSHA256                 string `json:"file_sha256"`
	Size                       int
	References                 []string
	InputDrvs                  []struct {
		Path    string
		Outputs []string
	}
	InputSrcs []string
	Fixed     bool
	Outputs   []struct{ Name, Path, HashAlgo, Hash string }
	Modulo    string `json:"modulo_hash"`
	Masked    string `json:"masked_modulo_hash"`
}

func records(tb testing.TB) []record {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, "index.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var rs []record
	if err := json.Unmarshal(data, &rs); err != nil {
		tb.Fatal(err)
	}
	return rs
}

// corpus returns all files by path. It fails if there are none, or not those
// of the index.
func corpus(tb testing.TB) map[string][]byte {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join(vectorDir, "drv", "*.drv"))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no derivations in %s: %v", vectorDir, err)
	}
	files := make(map[string][]byte, len(names))
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		files[storepath.Dir+"/"+filepath.Base(name)] = data
	}
	return files
}

func parsed(tb testing.TB, files map[string][]byte) map[string]*derivation.Derivation {
	tb.Helper()
	all := make(map[string]*derivation.Derivation, len(files))
	for path, data := range files {
		d, err := derivation.Parse(data)
		if err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
		all[path] = d
	}
	return all
}

func from(all map[string]*derivation.Derivation) func(string) (*derivation.Derivation, error) {
	return func(path string) (*derivation.Derivation, error) { return all[path], nil }
}

func mustPath(tb testing.TB, s string) storepath.Path {
	tb.Helper()
	p, err := storepath.Parse(s)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// TestVectors recomputes everything that the index says of each derivation.
func TestVectors(t *testing.T) {
	files := corpus(t)
	all := parsed(t, files)
	rs := records(t)
	if len(rs) != len(files) {
		t.Fatalf("%d files, %d records", len(files), len(rs))
	}
	h := derivation.NewHasher(from(all))
	fixed, several := 0, 0
	for _, r := range rs {
		d, data := all[r.Drv], files[r.Drv]
		if d == nil {
			t.Errorf("%s: no file", r.Drv)
			continue
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != r.FileSHA256 || len(data) != r.Size {
			t.Errorf("%s: not the file of the index", r.Drv)
		}
		if !bytes.Equal(d.Bytes(), data) {
			t.Errorf("%s: does not print back", r.Drv)
		}
		if d.System != r.System || d.Builder != r.Builder || d.IsFixed() != r.Fixed || !slices.Equal(d.Sources, r.InputSrcs) {
			t.Errorf("%s: %+v, want %+v", r.Drv, d, r)
		}
		if len(d.Inputs) != len(r.InputDrvs) {
			t.Errorf("%s: %d inputs, want %d", r.Drv, len(d.Inputs), len(r.InputDrvs))
		}
		for i, in := range r.InputDrvs {
			if d.Inputs[i].Path != in.Path || !slices.Equal(d.Inputs[i].Outputs, in.Outputs) {
				t.Errorf("%s: input %v, want %v", r.Drv, d.Inputs[i], in)
			}
		}
		refs, err := d.References()
		if err != nil {
			t.Errorf("%s: %v", r.Drv, err)
		}
		if !slices.EqualFunc(refs, r.References, func(p storepath.Path, s string) bool { return p.String() == s }) {
			t.Errorf("%s: references %v, want %v", r.Drv, refs, r.References)
		}
		if p, err := d.Path(r.Name); err != nil || p.String() != r.Drv {
			t.Errorf("%s: Path = %s, %v", r.Drv, p, err)
		}
		if sum, err := h.Modulo(r.Drv, d); err != nil || hex.EncodeToString(sum[:]) != r.Modulo {
			t.Errorf("%s: modulo hash %x, %v; want %s", r.Drv, sum, err, r.Modulo)
		}
		if !r.Fixed {
			if sum, err := h.Masked(d); err != nil || hex.EncodeToString(sum[:]) != r.Masked {
				t.Errorf("%s: masked modulo hash %x, %v; want %s", r.Drv, sum, err, r.Masked)
			}
		}
		paths, err := h.OutputPaths(r.Name, d)
		if err != nil || len(paths) != len(r.Outputs) || len(d.Outputs) != len(r.Outputs) {
			t.Errorf("%s: output paths %v, %v", r.Drv, paths, err)
			continue
		}
		for i, o := range r.Outputs {
			if paths[o.Name].String() != o.Path {
				t.Errorf("%s: output %s is %s, want %s", r.Drv, o.Name, paths[o.Name], o.Path)
			}
			if d.Outputs[i] != (derivation.Output{ID: o.Name, Path: o.Path, HashAlgo: o.HashAlgo, Hash: o.Hash}) {
				t.Errorf("%s: %v, want %v", r.Drv, d.Outputs[i], o)
			}
		}
		if v, err := h.Verify(mustPath(t, r.Drv), data); err != nil || v == nil {
			t.Errorf("Verify: %v", err)
		}
		if r.Fixed {
			fixed++
		}
		if len(r.Outputs) > 1 {
			several++
		}
	}
	if fixed != 108 || several != 23 {
		t.Errorf("%d fixed, %d with several outputs; the vectors have 108 and 23", fixed, several)
	}
}

// TestFillVectors takes from each real derivation what Fill has to add, mixes
// up what it has to sort, and expects the same bytes again.
func TestFillVectors(t *testing.T) {
	files := corpus(t)
	all := parsed(t, files)
	h := derivation.NewHasher(from(all))
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, r := range records(t) {
		d, err := derivation.Parse(files[r.Drv])
		if err != nil {
			t.Fatal(err)
		}
		for i := range d.Outputs {
			d.Outputs[i].Path = ""
		}
		d.Env = slices.DeleteFunc(d.Env, func(v derivation.Variable) bool {
			_, ok := d.Output(v.Name)
			return ok
		})
		// The same input twice, each with some of the outputs.
		for _, in := range slices.Clone(d.Inputs) {
			if n := len(in.Outputs); n > 1 {
				d.Inputs = append(d.Inputs, derivation.Input{Path: in.Path, Outputs: in.Outputs[1:]})
			}
		}
		d.Sources = append(d.Sources, d.Sources...)
		rnd.Shuffle(len(d.Outputs), func(i, j int) { d.Outputs[i], d.Outputs[j] = d.Outputs[j], d.Outputs[i] })
		rnd.Shuffle(len(d.Inputs), func(i, j int) { d.Inputs[i], d.Inputs[j] = d.Inputs[j], d.Inputs[i] })
		rnd.Shuffle(len(d.Sources), func(i, j int) { d.Sources[i], d.Sources[j] = d.Sources[j], d.Sources[i] })
		rnd.Shuffle(len(d.Env), func(i, j int) { d.Env[i], d.Env[j] = d.Env[j], d.Env[i] })
		if err := h.Fill(r.Name, d); err != nil {
			t.Errorf("%s: %v", r.Drv, err)
			continue
		}
		if !bytes.Equal(d.Bytes(), files[r.Drv]) {
			t.Errorf("%s: Fill made\n%s\nwant\n%s", r.Drv, d.Bytes(), files[r.Drv])
		}
	}
}

// TestVerifyEveryBit flips bits all over some files: nothing of a derivation
// can change without its path telling.
func TestVerifyEveryBit(t *testing.T) {
	files := corpus(t)
	h := derivation.NewHasher(from(parsed(t, files)))
	n := 0
	for _, path := range []string{helloDrv, "/gnu/store/0jkc57g7rc0cak8kjwdxhacpri151vw5-bash52-019.drv"} {
		data := slices.Clone(files[path])
		if data == nil {
			t.Fatalf("%s is not among the vectors", path)
		}
		for i := range data {
			data[i] ^= 1 << (i % 8)
			if _, err := h.Verify(mustPath(t, path), data); err == nil {
				t.Errorf("%s: byte %d changed, and it verifies", path, i)
			}
			data[i] ^= 1 << (i % 8)
			n++
		}
		if _, err := h.Verify(mustPath(t, path), data); err != nil {
			t.Error(err)
		}
	}
	if n < 3000 {
		t.Errorf("only %d bytes tried", n)
	}
}
