package inspect

import (
	"bytes"
	"cmp"
	"fmt"
	"hash/maphash"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds.
const (
	Window      = 256 << 10 // bytes of a file that are looked at together
	MaxGroups   = 4096      // findings kept apart by folder; later ones are counted under the top
	MaxExamples = 3
	MaxSiblings = 1 << 20 // names of one folder that are compared by letter case
	MaxOpen     = 1024    // folders inside each other

	margin     = 8 << 10 // at the end of a window, where a line's end is looked for
	minEntropy = 1 << 10 // bytes below which entropy says nothing
	maxBits    = 7.2
)

// A Severity says how loudly a finding asks for attention.
type Severity string

const (
	Info   Severity = "info"
	Review Severity = "review"
	High   Severity = "high"
	Block  Severity = "block"
)

func (s Severity) rank() int {
	return slices.Index([]Severity{Info, Review, High, Block}, s)
}

// A Finding is what one rule saw in one folder. Place and Examples hold names as they are in the tree: hostile bytes.
type Finding struct {
	Rule     string
	Severity Severity
	Place    string // the folder, "" for the top
	Count    int64  // of files
	Examples []string
	Detail   string // of the first
}

// An Inspector looks at the files of one tree, in any order but best that of a nar. The zero value is not ready; call New.
type Inspector struct {
	groups  map[group]*Finding
	files   int64
	bytes   int64
	buf     []byte
	text    textState
	runs    runState
	build   buildState
	hist    histogram
	seed    maphash.Seed
	open    []siblings
	crowded bool // a folder had more than MaxSiblings names
}

type group struct {
	rule     string
	severity Severity
	folder   string
}

type siblings struct {
	folder string
	folded map[uint64]struct{}
}

// New makes an Inspector for one tree.
func New() *Inspector {
	return &Inspector{groups: map[group]*Finding{}, buf: make([]byte, Window), seed: maphash.MakeSeed()}
}

// Files and bytes that were inspected.
func (in *Inspector) Files() int64 { return in.files }
func (in *Inspector) Bytes() int64 { return in.bytes }

// Findings so far, loudest first, then by rule and folder.
func (in *Inspector) Findings() []Finding {
	list := make([]Finding, 0, len(in.groups))
	for _, f := range in.groups {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(b.Severity.rank(), a.Severity.rank()), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Place, b.Place))
	})
	return list
}

func (in *Inspector) add(rule string, severity Severity, name string, line int64, detail string) {
	folder := path.Dir(name)
	if folder == "." || folder == "/" {
		folder = ""
	}
	k := group{rule, severity, folder}
	f := in.groups[k]
	if f == nil {
		if len(in.groups) >= MaxGroups {
			// Past the bound, folders are no longer told apart; rules and severities still are, and they are few.
			k.folder = ""
			f = in.groups[k]
		}
		if f == nil {
			f = &Finding{Rule: rule, Severity: severity, Place: k.folder, Detail: detail}
			in.groups[k] = f
		}
	}
	f.Count++
	if len(f.Examples) < MaxExamples {
		if line > 0 {
			name += ":" + strconv.FormatInt(line, 10)
		}
		f.Examples = append(f.Examples, name)
	}
}

// Directory looks at the name of a folder.
func (in *Inspector) Directory(name string) { in.name(name) }

// Symlink looks at a link's name and target.
func (in *Inspector) Symlink(name, target string) {
	in.name(name)
	if strings.HasPrefix(target, "/") {
		if clean := path.Clean(target); !strings.HasPrefix(clean, "/gnu/store/") {
			in.add("symlink-outside", Review, name, 0, fmt.Sprintf("to %q", cut(target)))
		}
		return
	}
	at := path.Join(path.Dir(name), target)
	if at == ".." || strings.HasPrefix(at, "../") {
		in.add("symlink-outside", Review, name, 0, fmt.Sprintf("to %q", cut(target)))
	}
}

func cut(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// name judges the last part of a path.
func (in *Inspector) name(p string) {
	if p == "" {
		return
	}
	folder, base := path.Split(p)
	control, hidden, ascii := !utf8.ValidString(base), false, true
	for _, r := range base {
		switch {
		case r < 0x20 || r == 0x7f || r >= 0x80 && r < 0xa0:
			control = true
		case r < 0x7f:
			continue
		case unicode.Is(unicode.Cf, r) || r == 0x115f || r == 0x1160 || r == 0x3164 || r == 0xffa0 || r == 0x2028 || r == 0x2029 || r >= 0xe0100 && r <= 0xe01ef:
			hidden = true
		}
		ascii = false
	}
	if control {
		in.add("name-control", Block, p, 0, "control bytes or invalid UTF-8 in a name")
	}
	if hidden {
		in.add("name-unicode", High, p, 0, "invisible characters in a name")
	}
	if strings.Contains(base, `\`) {
		in.add("name-backslash", High, p, 0, "")
	}

	// Letter case, against the siblings: the folders that this name is not in are done with.
	for len(in.open) > 0 && !strings.HasPrefix(folder, in.open[len(in.open)-1].folder) {
		in.open = in.open[:len(in.open)-1]
	}
	if len(in.open) == 0 || in.open[len(in.open)-1].folder != folder {
		if len(in.open) >= MaxOpen {
			return
		}
		in.open = append(in.open, siblings{folder, map[uint64]struct{}{}})
	}
	here := in.open[len(in.open)-1].folded
	if len(here) >= MaxSiblings {
		if !in.crowded {
			in.crowded = true
			in.add("name-case", Review, p, 0, "a folder with so many names that the rest was not compared")
		}
		return
	}
	folded := strings.ToLower(base)
	if !ascii {
		folded = strings.ToLower(strings.ToUpper(base)) // the dotless and long letters fold only on the way over capitals
	}
	h := maphash.String(in.seed, folded)
	if _, twice := here[h]; twice {
		in.add("name-case", High, p, 0, "differs from a sibling in letter case only")
	}
	here[h] = struct{}{}
}

// File looks at a file of size bytes, which r gives. An error is r's.
func (in *Inspector) File(name string, size int64, r io.Reader) error {
	return in.file(name, size, r, false)
}

// Whole looks at a file that is the whole item: what is not opened of it was not inspected at all.
func (in *Inspector) Whole(name string, size int64, r io.Reader) error {
	return in.file(name, size, r, true)
}

func (in *Inspector) file(name string, size int64, r io.Reader, whole bool) error {
	in.name(name)
	in.files++
	base, ext := split(name)
	f := file{
		in: in, name: name, class: Classify(name), size: size, line: 1,
		script: buildFile(base, ext),
		shell:  ext == "sh" || ext == "bash" || ext == "mk",
		source: sourceExtension(ext),
		whole:  whole,
	}
	in.text.reset()
	in.build.reset()
	in.runs = runState{}
	kept := 0
	for {
		n, err := io.ReadFull(r, in.buf[kept:])
		in.bytes += int64(n)
		end := err == io.EOF || err == io.ErrUnexpectedEOF
		if err != nil && !end {
			return err
		}
		window := in.buf[:kept+n]
		done := len(window)
		if !end {
			done = cutAt(window)
		}
		f.window(window[:done])
		if end {
			break
		}
		kept = copy(in.buf, window[done:])
	}
	f.finish()
	return nil
}

// cutAt gives the index up to which a full window is looked at now: after a line, or else not within a character.
func cutAt(b []byte) int {
	if i := bytes.LastIndexByte(b[len(b)-margin:], '\n'); i >= 0 {
		return len(b) - margin + i + 1
	}
	for i := 1; i < utf8.UTFMax; i++ {
		if c := b[len(b)-i]; c >= 0xc0 {
			return len(b) - i
		} else if c < 0x80 {
			break
		}
	}
	return len(b)
}

// file is what is known of the file that is read.
type file struct {
	in      *Inspector
	name    string
	class   Class
	size    int64
	script  bool // a build script
	shell   bool
	source  bool
	whole   bool  // nothing else is in the item
	line    int64 // that the next window begins on
	begun   bool
	form    form
	kind    string // of the form
	nul     bool
	high    bool // not ASCII
	opaque  bool // nothing in it is read as text
	entropy float64
	key     int64 // line of a private key
}

func (f *file) window(b []byte) {
	in := f.in
	if !f.begun {
		f.begun = true
		f.identify(b)
	}
	if f.opaque {
		return
	}
	if !f.nul && bytes.IndexByte(b, 0) >= 0 {
		f.nul = true
	}
	if !f.high && nextHigh(b, 0) < len(b) {
		f.high = true
	}
	if f.high && (!f.nul || f.source || f.script) {
		in.text.scan(b, f.line)
	}
	if (f.nul || in.text.invalid > 0) && f.form == unknown && len(b) >= minEntropy {
		clear(in.hist[:])
		in.hist.add(b)
		f.entropy = max(f.entropy, in.hist.entropy())
	}
	if !f.nul {
		in.runs.scan(b, f.line)
		if f.key == 0 {
			if i := privateKey(b); i >= 0 {
				f.key = f.line + newlines(b[:i])
			}
		}
	}
	if f.script || f.shell {
		in.build.scan(b, f.line, f.script)
	}
	f.line += newlines(b)
}

// identify judges the first window.
func (f *file) identify(b []byte) {
	_, ext := split(f.name)
	if len(b) >= 2 && b[0] == '#' && b[1] == '!' {
		first, _, _ := bytes.Cut(b[:min(len(b), 128)], []byte{'\n'})
		f.shell = f.shell || bytes.HasSuffix(bytes.TrimSpace(first), []byte("sh"))
		f.source = true
	}
	if f.kind = executableType(b); f.kind != "" {
		f.form = executable
	} else if f.kind = archiveType(b, ext); f.kind != "" {
		f.form = archive
	} else if f.kind = mediaType(b, f.size); f.kind != "" {
		f.form = media
	}
	// A file that pretends to be a picture and is run as a script is still read as a script.
	f.opaque = f.form != unknown && !f.source && !f.script
}

// by gives the severity of a rule for the file's class.
func (f *file) by(code, test, docs Severity) Severity {
	switch f.class {
	case Test:
		return test
	case Docs:
		return docs
	}
	return code
}

func (f *file) finish() {
	in := f.in
	switch f.form {
	case executable:
		in.add("executable", f.by(High, Review, Review), f.name, 0, f.kind)
	case archive:
		severity := f.by(Review, Info, Info)
		detail := f.kind + ", not opened"
		if f.whole {
			severity, detail = Review, f.kind+", not opened: nothing of this item's content was inspected"
		}
		in.add("archive-not-opened", severity, f.name, 0, detail)
	}
	if f.opaque {
		return
	}
	t := &in.text
	// A stray byte does not switch the rules off; a file whose other bytes are no UTF-8 either is in an older encoding, or is no text.
	if t.invalid == 0 || t.invalid*8 <= t.valid {
		severities := [textRules]Severity{
			bidiUnterminated: f.by(Block, Review, Review),
			bidiControl:      f.by(High, Info, Info),
			variationPayload: f.by(Block, Review, Review),
			tagCharacters:    f.by(High, Info, Info),
			hangulFiller:     f.by(High, Info, Info),
			mixedCyrillic:    f.by(High, Review, Info),
			mixedGreek:       Info,
			zeroWidth:        f.by(Review, Info, Info),
			joiner:           Info,
		}
		if t.depth > 0 && t.seen[bidiUnterminated] == 0 { // the file ends with it
			t.seen[bidiUnterminated] = max(f.line, 1)
		}
		for rule, line := range t.seen {
			if line > 0 {
				in.add(textRuleNames[rule], severities[rule], f.name, line, "")
			}
		}
	}
	if f.form == unknown {
		switch {
		case f.entropy > maxBits:
			in.add("high-entropy", f.by(High, Review, Review), f.name, 0, fmt.Sprintf("%.2f bits a byte, no known type", f.entropy))
		case f.nul:
			in.add("binary", Info, f.name, 0, "")
		case t.invalid > 0:
			in.add("legacy-encoding", Info, f.name, 0, "not UTF-8")
		}
	}
	if in.runs.count > 0 {
		severity := Info
		if f.class == Build {
			severity = High
		}
		in.add("base64-run", severity, f.name, in.runs.line, "")
	}
	if f.key > 0 {
		in.add("private-key", Info, f.name, f.key, "")
	}
	if severity, line, detail := in.build.verdict(); severity != "" {
		in.add("build-script", severity, f.name, line, detail)
	}
	if in.build.remote > 0 {
		in.add("remote-shell", f.by(Review, Review, Info), f.name, in.build.remote, "")
	}
}
