package authenticate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"sallyport/guix/channel/git"
	"sallyport/guix/nar"
	"sallyport/internal/trust"
)

// Codes of refusals of a checkout.
const (
	CodeAttributes = "channel-attributes" // .gitattributes by which a checkout would differ from the tree
	CodeCheckout   = "channel-checkout"   // a tree of which there is no checkout, or no nar
)

const (
	attributesName = ".gitattributes"
	maxAttributes  = 1 << 20 // bytes of a .gitattributes
)

// Nar writes the nar of a commit's checkout: its tree without .git, as it lies in the store once Guix has fetched the channel. Files are as git has them, a
// submodule is an empty directory.
//
// All that is wrong with the tree is told at once; what was written then is worthless. Wrong is, beside what Check refuses, what would make a checkout another than the
// tree: attributes that change files on their way out, and empty directories, which git leaves out.
func (r *Repository) Nar(ctx context.Context, commit git.ID, w io.Writer) error {
	reader := r.db.NewReader()
	tree, err := r.treeOf(reader, commit)
	if err != nil {
		return err
	}
	d := &narWriter{ctx: ctx, r: reader, z: nar.NewWriter(w), missing: r.Missing(), room: room{MaxTreeFiles, MaxCheckout}}
	if err := d.directory(tree, "", 0); err != nil {
		return err
	}
	if err := d.refused.Err(); err != nil {
		return err
	}
	return d.z.Close()
}

// treeOf returns the tree of a commit.
func (r *Repository) treeOf(reader *git.Reader, commit git.ID) (git.ID, error) {
	raw, err := reader.Read(commit, git.KindCommit)
	if err != nil {
		return git.ID{}, bytesAtFault(err, "commit "+commit.String())
	}
	c, err := git.ParseCommit(raw)
	if err != nil {
		return git.ID{}, bytesAtFault(err, "commit "+commit.String())
	}
	return c.Tree, nil
}

// A room is what may still be looked at of a tree. Few objects can make a tree without end, as one tree can stand in another many times.
type room struct {
	files int
	bytes int64
}

// take refuses what is too much.
func (r *room) take(name string, files int, bytes int64) error {
	r.files -= files
	r.bytes -= bytes
	switch {
	case r.files < 0:
		return trust.Refuse(CodeCheckout, name, "more than %d files", MaxTreeFiles)
	case r.bytes < 0:
		return trust.Refuse(CodeCheckout, name, "files and trees of more than %d bytes", int64(MaxCheckout))
	}
	return nil
}

type narWriter struct {
	ctx     context.Context
	r       *git.Reader
	z       *nar.Writer
	room    room
	missing string // why objects may be missing
	refused trust.Refusals
}

// put writes a node. After a refusal nothing is written any more, but all is looked at.
func (d *narWriter) put(h *nar.Header, content []byte) error {
	if len(d.refused) > 0 {
		return nil
	}
	err := d.z.WriteHeader(h)
	if err == nil && h.Type == nar.Regular {
		_, err = d.z.Write(content)
	}
	var bad *nar.Error
	if errors.As(err, &bad) {
		d.refused.Add(trust.Refuse(CodeCheckout, h.Path, "it has no place in a nar: %v", bad))
		return nil
	}
	return err
}

func (d *narWriter) refuse(code, name, format string, args ...any) error {
	if d.refused.Add(trust.Refuse(code, name, format, args...)); d.refused.Full() {
		return d.refused
	}
	return nil
}

// fault takes what is the fault of the bytes, and returns what is not.
func (d *narWriter) fault(err error, name string) error {
	missing := git.IsMissing(err)
	if err := d.refused.Merge(bytesAtFault(err, name)); err != nil {
		return err
	}
	if missing && d.missing != "" {
		d.refused[len(d.refused)-1].Hint = d.missing
	}
	if d.refused.Full() {
		return d.refused
	}
	return nil
}

func (d *narWriter) directory(id git.ID, dir string, depth int) error {
	if depth > MaxTreeDepth {
		return d.refuse(CodeCheckout, dir, "trees nested deeper than %d", MaxTreeDepth)
	}
	if err := d.put(&nar.Header{Path: dir, Type: nar.Directory}, nil); err != nil {
		return err
	}
	raw, err := d.r.Read(id, git.KindTree)
	if err != nil {
		return d.fault(err, dir)
	}
	if err := d.room.take(dir, 0, int64(len(raw))); err != nil {
		return err
	}
	raw = bytes.Clone(raw) // the next Read would have it
	var entries []git.TreeEntry
	for e, err := range git.Entries(raw) {
		if err != nil {
			return d.fault(err, dir)
		}
		entries = append(entries, e)
	}
	if len(entries) == 0 && dir != "" {
		return d.refuse(CodeCheckout, dir, "an empty directory, which git does not check out")
	}
	// Git sorts a directory as if its name ended with a slash, a nar does not.
	slices.SortFunc(entries, func(a, b git.TreeEntry) int { return bytes.Compare(a.Name, b.Name) })
	for _, e := range entries {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		name := path.Join(dir, string(e.Name))
		if err := d.room.take(name, 1, 0); err != nil {
			return err
		}
		if err := d.entry(e, name, depth); err != nil {
			return err
		}
	}
	return nil
}

func (d *narWriter) entry(e git.TreeEntry, name string, depth int) error {
	attributes := string(e.Name) == attributesName
	if attributes && e.Mode&0o170000 != 0o100000 {
		return d.refuse(CodeAttributes, name, "it is no regular file, and not every git reads it alike")
	}
	switch e.Mode {
	case git.ModeTree:
		return d.directory(e.ID, name, depth+1)
	case git.ModeSubmodule:
		return d.put(&nar.Header{Path: name, Type: nar.Directory}, nil)
	}
	content, err := d.r.Read(e.ID, git.KindBlob)
	if err != nil {
		return d.fault(err, name)
	}
	if err := d.room.take(name, 0, int64(len(content))); err != nil {
		return err
	}
	if e.Mode == git.ModeSymlink {
		return d.put(&nar.Header{Path: name, Type: nar.Symlink, Target: string(content)}, nil)
	}
	if attributes {
		for _, why := range changing(content) {
			if err := d.refuse(CodeAttributes, name, "%s", why); err != nil {
				return err
			}
		}
	}
	return d.put(&nar.Header{Path: name, Type: nar.Regular, Executable: e.Mode&0o111 != 0, Size: int64(len(content))}, content)
}

// changing lists what a .gitattributes says by which a checkout differs from the tree (gitattributes(5)), where nobody has configured git otherwise:
// eol=crlf, ident, filter and working-tree-encoding. Text alone changes nothing there, and what belongs to diffs and archives never does.
//
// Readers of such files differ in small things. So each word of a line counts that one of them might take for an attribute, also in a line that some would pass
// over: comments that do not begin in the first column, lines too long, words in a pattern with quotes.
func changing(text []byte) []string {
	if len(text) > maxAttributes {
		return []string{"it is too large to be read"}
	}
	var why []string
	n := 0
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		n++
		if bytes.HasPrefix(line, []byte("#")) {
			continue
		}
		words := strings.FieldsFunc(string(line), func(c rune) bool { return strings.ContainsRune(" \t\r\f\v\x00", c) })
		if len(words) == 0 {
			continue
		}
		if !strings.ContainsRune(words[0], '"') {
			words = words[1:] // the pattern
		}
		for _, w := range words {
			attribute, value, _ := strings.Cut(w, "=")
			switch attribute {
			case "ident", "filter", "working-tree-encoding":
			case "eol":
				if !strings.EqualFold(value, "crlf") {
					continue
				}
			default:
				continue
			}
			why = append(why, fmt.Sprintf("line %d: %.80q makes a checkout differ from the tree", n, w))
		}
	}
	return why
}
