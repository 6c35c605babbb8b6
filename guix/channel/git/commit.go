package git

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// A Commit is a commit as Guix reads it, by way of libgit2. It refers to the bytes that it was parsed from.
type Commit struct {
	Tree      ID
	Parents   []ID
	Author    []byte // the line, without "author "
	Committer []byte

	// Signature is the text of the header gpgsig, its lines without the leading spaces; nil if there is none. Signed, joined, is what it signs:
	// the commit without that header, to the first zero byte.
	Signature []byte
	Signed    [][]byte

	// Oddities tells what git would not have written, or fsck would complain about. Guix minds none of it.
	Oddities []Oddity
}

// Kinds of oddities.
const (
	OddNUL       = "nul"            // a zero byte: nothing after it is signed
	OddDuplicate = "duplicate"      // a header that belongs there once stands there twice, or in the wrong place
	OddHeader    = "header"         // a header that is not of the form of one
	OddSignature = "signature"      // a signature that is not where one belongs, or a second one
	OddPerson    = "person"         // an author or committer not as git writes them
	OddMessage   = "message-absent" // no empty line after the headers
)

// An Oddity is one irregularity of a commit's form.
type Oddity struct {
	Kind   string
	Detail string
}

const gpgsig = "gpgsig"

// ParseCommit reads a commit. What makes libgit2 refuse one is an error; what it passes over is an oddity. It is stricter where two readers
// could see different parents or trees: ids are lower-case.
func ParseCommit(raw []byte) (*Commit, error) {
	c := new(Commit)
	if len(raw) > MaxCommit {
		return nil, fail(CodeLimit, 0, "a commit of %d bytes", len(raw))
	}
	at := 0
	bad := func(what string) (*Commit, error) {
		return nil, fail(CodeCommit, int64(at), "%s", what)
	}
	id := func(name string) (ID, bool) {
		rest := raw[at:]
		if len(rest) < len(name)+42 || string(rest[:len(name)]) != name || rest[len(name)] != ' ' || rest[len(name)+41] != '\n' {
			return ID{}, false
		}
		id, err := ParseID(rest[len(name)+1:][:40])
		if err != nil {
			return ID{}, false
		}
		at += len(name) + 42
		return id, true
	}
	var ok bool
	if c.Tree, ok = id("tree"); !ok {
		return bad("it does not begin with a tree")
	}
	for {
		p, ok := id("parent")
		if !ok {
			break
		}
		if len(c.Parents) == MaxParents {
			return nil, fail(CodeLimit, int64(at), "more than %d parents", MaxParents)
		}
		c.Parents = append(c.Parents, p)
	}
	if bytes.HasPrefix(raw[at:], []byte("parent ")) {
		return bad("a parent that is no id") // git and libgit2 would go on, each its way
	}
	person := func(name string) ([]byte, bool) {
		line, _, ok := bytes.Cut(raw[at:], []byte("\n"))
		if !ok || len(line) <= len(name)+1 || string(line[:len(name)]) != name || line[len(name)] != ' ' {
			return nil, false
		}
		line = line[len(name)+1:]
		from, to := bytes.LastIndexByte(line, '<'), bytes.LastIndexByte(line, '>')
		if from < 0 || to <= from {
			return nil, false
		}
		at += len(name) + 1 + len(line) + 1
		if what := oddPerson(line, from, to); what != "" {
			c.odd(OddPerson, "%s: %s", name, what)
		}
		return line, true
	}
	if c.Author, ok = person("author"); !ok {
		return bad("an author belongs here")
	}
	for bytes.HasPrefix(raw[at:], []byte("author ")) {
		c.odd(OddDuplicate, "a second author")
		if _, ok := person("author"); !ok {
			return bad("an author that is not well formed")
		}
	}
	if c.Committer, ok = person("committer"); !ok {
		return bad("a committer belongs here")
	}
	c.headers(raw[at:])
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		c.odd(OddNUL, "a zero byte at offset %d: the signature does not cover what follows", i)
	}
	c.split(raw)
	return c, nil
}

func (c *Commit) odd(kind, format string, args ...any) {
	if len(c.Oddities) < MaxOddities {
		c.Oddities = append(c.Oddities, Oddity{kind, fmt.Sprintf(format, args...)})
	}
}

// headers looks at what comes after the committer. No reader of ours takes anything from it but the signature.
func (c *Commit) headers(rest []byte) {
	seen := 0 // of gpgsig
	encodings := 0
	first := true
	for {
		line, more, ok := bytes.Cut(rest, []byte("\n"))
		switch {
		case !ok:
			c.odd(OddMessage, "the headers do not end with an empty line")
			return
		case len(line) == 0:
			if seen == 0 && (bytes.HasPrefix(more, []byte(gpgsig)) || bytes.Contains(more, []byte("\n"+gpgsig))) {
				c.odd(OddSignature, "the message has a line that libgit2 takes for the header gpgsig")
			}
			return
		case line[0] == ' ':
			if first {
				c.odd(OddHeader, "a continuation of the committer")
			}
		default:
			name, _, spaced := bytes.Cut(line, []byte(" "))
			switch string(name) {
			case "tree", "parent", "author", "committer":
				c.odd(OddDuplicate, "the header %q after the committer", name)
			case gpgsig:
				if seen++; seen > 1 {
					c.odd(OddSignature, "a second header gpgsig")
				}
			case "encoding":
				if encodings++; encodings > 1 {
					c.odd(OddDuplicate, "a second encoding")
				}
			default:
				if bytes.HasPrefix(name, []byte(gpgsig)) {
					c.odd(OddSignature, "the header %.40q, whose beginning libgit2 drops from what is signed", name)
				}
			}
			if !spaced || len(name) == 0 || !plain(name) {
				c.odd(OddHeader, "the line %.40q is no header", line)
			}
		}
		first = false
		rest = more
	}
}

func plain(name []byte) bool {
	for _, b := range name {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return true
}

// oddPerson says what is wrong with "NAME <EMAIL> SECONDS ZONE", or "".
func oddPerson(line []byte, from, to int) string {
	switch {
	case bytes.ContainsAny(line[:from], "<>") || bytes.ContainsAny(line[from+1:to], "<>\n"):
		return "more than one address"
	case from == 0 || line[from-1] != ' ':
		return "no space before the address"
	}
	rest := line[to+1:]
	if len(rest) < 2 || rest[0] != ' ' {
		return "no date"
	}
	seconds, zone, ok := bytes.Cut(rest[1:], []byte(" "))
	if !ok {
		return "no time zone"
	}
	if n, err := strconv.ParseInt(string(seconds), 10, 64); err != nil || n < 0 || strconv.FormatInt(n, 10) != string(seconds) {
		return "a date that is no number of seconds"
	}
	if len(zone) != 5 || zone[0] != '+' && zone[0] != '-' {
		return "a time zone not as git writes it"
	}
	for _, d := range zone[1:] {
		if d < '0' || d > '9' {
			return "a time zone not as git writes it"
		}
	}
	return ""
}

// split finds the signature as git_commit_extract_signature of libgit2 does, whose word is what Guix goes by: the first line anywhere that
// begins with "gpgsig ", in the message too; nothing after a zero byte; and from a line that begins with "gpgsig" and goes on otherwise it takes that word
// away and goes on in its middle.
func (c *Commit) split(raw []byte) {
	text := raw
	if i := bytes.IndexByte(raw, 0); i >= 0 {
		text = raw[:i]
	}
	c.Signed = make([][]byte, 0, 2)
	begin := 0 // of what was not yet added
	for at := 0; ; {
		nl := bytes.IndexByte(text[at:], '\n')
		if nl < 0 || at+nl+1 == len(text) {
			c.Signed = nil
			return // not signed
		}
		if !bytes.HasPrefix(text[at:], []byte(gpgsig)) {
			at += nl + 1
			continue
		}
		c.Signed = append(c.Signed, text[begin:at])
		from, end := at+len(gpgsig), at+nl
		if text[from] != ' ' {
			begin, at = from, from
			continue
		}
		sig := append(make([]byte, 0, 1024), text[from+1:end]...)
		for end+1 < len(text) && text[end+1] == ' ' {
			next := bytes.IndexByte(text[end+2:], '\n')
			if next < 0 {
				c.Signed = nil
				return // libgit2: a malformed header; Guix: not signed
			}
			sig = append(sig, '\n')
			sig = append(sig, text[end+2:end+2+next]...)
			end += 2 + next
		}
		c.Signature = sig
		c.Signed = append(c.Signed, text[end+1:])
		return
	}
}

// SignedText reports whether what is signed is UTF-8. Guix reads it as such and cannot verify a signature over anything else.
func (c *Commit) SignedText() bool {
	// The pieces end at ends of lines or beside the ASCII letters of gpgsig, so none cuts a character that the whole would have.
	for _, p := range c.Signed {
		if !utf8.Valid(p) {
			return false
		}
	}
	return true
}

// Person splits a line of an author or committer for people to read.
func Person(line []byte) (name, email string) {
	from, to := bytes.LastIndexByte(line, '<'), bytes.LastIndexByte(line, '>')
	if from < 0 || to <= from {
		return string(line), ""
	}
	return string(bytes.TrimSpace(line[:from])), string(bytes.TrimSpace(line[from+1 : to]))
}

// Seconds returns the date of such a line, or 0.
func Seconds(line []byte) int64 {
	to := bytes.LastIndexByte(line, '>')
	if to < 0 || to+2 > len(line) {
		return 0
	}
	seconds, _, _ := bytes.Cut(line[to+2:], []byte(" "))
	n, err := strconv.ParseInt(string(seconds), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
