package storepath_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

const vectorFile = "../../vectors/store-paths/index.json"

// A vector is one answer of the real daemon.
type vector struct {
	Status, Input, Result, Kind string
	Name, Algo                  string
	Content                     *string
	ContentHash                 string `json:"content_hash"`
	Recursive                   bool
	References                  []string
}

func readVectors(tb testing.TB) []vector {
	tb.Helper()
	data, err := os.ReadFile(vectorFile)
	if err != nil {
		tb.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(data, &vs); err != nil {
		tb.Fatal(err)
	}
	if len(vs) == 0 {
		tb.Fatalf("%s has no cases", vectorFile)
	}
	return vs
}

var (
	textInput  = regexp.MustCompile(`^text name=(\S+) content=(.*) refs=`)
	nameInput  = regexp.MustCompile(`^text name ("[^"]*") \(len (\d+)\)$`)
	addInput   = regexp.MustCompile(`^addToStore name=(\S+) recursive=#([tf]) algo=(\S+) file=`)
	fixedInput = regexp.MustCompile(`^fixed-output-path name=(\S+) algo=(\S+) rec=#([tf]) `)
)

// TestVectors asks this package for what the daemon was asked.
func TestVectors(t *testing.T) {
	kinds := map[string]int{}
	for _, v := range readVectors(t) {
		got, kind, err := answer(t, v)
		kinds[kind]++
		switch {
		case v.Status == "OK" && err != nil:
			t.Errorf("%s: refused: %v", v.Input, err)
		case v.Status == "OK" && got.String() != v.Result:
			t.Errorf("%s:\n have %s\n want %s", v.Input, got, v.Result)
		case v.Status != "OK" && err == nil:
			t.Errorf("%s: gave %s, but the daemon refused: %s", v.Input, got, v.Result)
		}
		if v.Status == "OK" {
			p, err := storepath.Parse(v.Result)
			if err != nil || p != got {
				t.Errorf("Parse(%q) = %v, %v", v.Result, p, err)
			}
		}
	}
	for _, k := range []string{"text", "name", "add", "fixed", "output"} {
		if kinds[k] == 0 {
			t.Errorf("no case of kind %s", k)
		}
	}
}

func answer(t *testing.T, v vector) (storepath.Path, string, error) {
	t.Helper()
	digest, err := hex.DecodeString(v.ContentHash)
	if err != nil {
		t.Fatal(err)
	}
	if m := textInput.FindStringSubmatch(v.Input); m != nil {
		content := strings.ReplaceAll(m[2], `\n`, "\n")
		if v.Content != nil {
			content = *v.Content
		}
		var refs []storepath.Path
		for _, r := range v.References {
			p, err := storepath.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			// Unsorted and repeated, as they were given to the daemon.
			refs = append([]storepath.Path{p, p}, refs...)
		}
		p, err := storepath.Text(m[1], sha256.Sum256([]byte(content)), refs)
		return p, "text", err
	}
	if m := nameInput.FindStringSubmatch(v.Input); m != nil {
		name, err := strconv.Unquote(m[1])
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := strconv.Atoi(m[2]); strings.HasSuffix(name, "...") {
			name = strings.Repeat("n", n)
		}
		if strings.HasSuffix(name, ".drv") {
			// The name is fine, the content is not a derivation. The daemon
			// names the path in its answer.
			p, err := storepath.Text(name, sha256.Sum256([]byte("name test")), nil)
			if err != nil || !strings.Contains(v.Result, p.String()) {
				t.Errorf("%s: %v, %v; the daemon said %s", v.Input, p, err, v.Result)
			}
			_, err = derivation.Parse([]byte("name test"))
			return p, "name", err
		}
		p, err := storepath.Text(name, sha256.Sum256([]byte("name test")), nil)
		if checkErr := storepath.CheckName(name); (checkErr == nil) != (err == nil) {
			t.Errorf("%s: CheckName says %v, Text says %v", v.Input, checkErr, err)
		}
		return p, "name", err
	}
	if m := addInput.FindStringSubmatch(v.Input); m != nil {
		if v.Kind == "source" {
			p, err := storepath.Source(m[1], [32]byte(digest))
			return p, "add", err
		}
		if v.Status != "OK" {
			// No digest of an unknown algorithm was recorded.
			digest = make([]byte, 64)
		}
		p, err := storepath.FixedOutput(m[1], m[3], m[2] == "t", digest)
		return p, "add", err
	}
	if m := fixedInput.FindStringSubmatch(v.Input); m != nil {
		p, err := storepath.FixedOutput(m[1], m[2], m[3] == "t", digest)
		return p, "fixed", err
	}
	if id, ok := strings.CutPrefix(v.Input, "output-path "); ok {
		p, err := storepath.Output(id, [32]byte{}, "name")
		return p, "output", err
	}
	t.Fatalf("a case of unknown shape: %s", v.Input)
	return storepath.Path{}, "", nil
}

func code(err error) string {
	var e *storepath.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
