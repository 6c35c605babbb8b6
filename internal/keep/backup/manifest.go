package backup

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// Bounds.
const (
	MaxFiles    = 10_000_000
	MaxManifest = 2 << 30
	maxPath     = 1024

	title        = "sallyport backup v1"
	manifestFile = "manifest"
)

// A File is one file of a backup.
type File struct {
	SHA256 trust.Digest
	Size   int64
	Path   string // slash-separated
}

// A Manifest says what a backup holds.
type Manifest struct {
	Checkpoint ledger.Checkpoint // with which its ledger ends
	Date       time.Time
	Keys       bool // the station's secret keys are in it
	Files      []File
}

// Bytes is the sum of the files' sizes.
func (m *Manifest) Bytes() (n int64) {
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// Text prints the manifest. Its files must be sorted.
func (m *Manifest) Text() []byte {
	keys := "without"
	if m.Keys {
		keys = "with"
	}
	b := fmt.Appendf(nil, "%s\norigin %s\ndate %s\nsize %d\nroot %s\nkeys %s\n", title, m.Checkpoint.Origin, trust.FormatDate(m.Date), m.Checkpoint.Size, m.Checkpoint.RootText(), keys)
	for _, f := range m.Files {
		b = fmt.Appendf(b, "file %s %d %s\n", f.SHA256, f.Size, f.Path)
	}
	return b
}

// checkPath allows what a zone's files are called, and nothing that leads elsewhere.
func checkPath(path string) error {
	if !fs.ValidPath(path) || path == "." || path == manifestFile || len(path) > maxPath {
		return fmt.Errorf("path %.100q", path)
	}
	for i := 0; i < len(path); i++ {
		if path[i] <= ' ' || path[i] > '~' || path[i] == '\\' {
			return fmt.Errorf("path %.100q", path)
		}
	}
	return nil
}

// ParseManifest reads what Text prints, and nothing else.
func ParseManifest(text []byte) (*Manifest, error) {
	m := &Manifest{}
	off := 0
	bad := func(format string, args ...any) (*Manifest, error) {
		r := trust.Refuse("backup-syntax", "manifest", format, args...)
		r.Offset = int64(off)
		return nil, r
	}
	if len(text) > MaxManifest {
		return bad("%d bytes, more than %d", len(text), MaxManifest)
	}
	next := func() (string, bool) {
		line, _, ended := bytes.Cut(text[off:], []byte("\n"))
		if !ended {
			return "", false
		}
		off += len(line) + 1
		return string(line), true
	}
	if line, ok := next(); !ok || line != title {
		return bad("it does not begin with %q", title)
	}
	for _, f := range []struct {
		word string
		read func(v string) error
	}{
		{"origin", func(v string) error {
			m.Checkpoint.Origin = v
			_, _, err := trust.ParseOrigin(v)
			return err
		}},
		{"date", func(v string) (err error) { m.Date, err = trust.ParseDate(v); return err }},
		{"size", func(v string) (err error) { m.Checkpoint.Size, err = trust.ParseNumber(v, ledger.MaxSize); return err }},
		{"root", func(v string) error {
			b, err := base64.StdEncoding.Strict().DecodeString(v)
			if err != nil || len(b) != tlog.HashSize || base64.StdEncoding.EncodeToString(b) != v {
				return fmt.Errorf("root %.80q", v)
			}
			m.Checkpoint.Root = tlog.Hash(b)
			return nil
		}},
		{"keys", func(v string) error {
			if v != "with" && v != "without" {
				return fmt.Errorf("keys %.20q", v)
			}
			m.Keys = v == "with"
			return nil
		}},
	} {
		line, ok := next()
		v, is := strings.CutPrefix(line, f.word+" ")
		if !ok || !is {
			return bad("want a line %q", f.word)
		}
		if err := f.read(v); err != nil {
			return bad("%v", err)
		}
	}
	for off < len(text) {
		line, ok := next()
		if !ok {
			return bad("the last line does not end")
		}
		f, err := parseFile(line)
		if err != nil {
			return bad("%.300q: %v", line, err)
		}
		if n := len(m.Files); n > 0 && m.Files[n-1].Path >= f.Path {
			return bad("%q does not stand in its order", f.Path)
		}
		if len(m.Files) == MaxFiles {
			return bad("more than %d files", MaxFiles)
		}
		m.Files = append(m.Files, f)
	}
	return m, nil
}

func parseFile(line string) (f File, err error) {
	words := strings.Split(line, " ")
	if len(words) != 4 || words[0] != "file" {
		return f, fmt.Errorf("want file SHA256 SIZE PATH")
	}
	if f.SHA256, err = trust.ParseDigest(words[1]); err != nil {
		return f, err
	}
	if f.Size, err = trust.ParseNumber(words[2], trust.MaxSize); err != nil {
		return f, err
	}
	f.Path = words[3]
	if strconv.FormatInt(f.Size, 10) != words[2] {
		return f, fmt.Errorf("size %.40q", words[2])
	}
	return f, checkPath(f.Path)
}
