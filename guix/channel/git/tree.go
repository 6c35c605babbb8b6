package git

import (
	"bytes"
	"iter"
	"strings"
)

// Modes of a tree's entries.
const (
	ModeFile       = 0o100644
	ModeExecutable = 0o100755
	ModeSymlink    = 0o120000
	ModeTree       = 0o040000
	ModeSubmodule  = 0o160000
	modeGroup      = 0o100664 // of old git, like a file
)

// A TreeEntry is one name in a tree.
type TreeEntry struct {
	Mode uint32
	Name []byte
	ID   ID
}

// IsTree reports whether the entry is a directory.
func (e TreeEntry) IsTree() bool { return e.Mode == ModeTree }

// Entries walks a tree. It stops with an error at the first entry that fsck would not let pass: names that are empty, "." or "..", a spelling
// of ".git", or hold a slash; modes that are none; entries out of order. Two entries of one name are found if they are neighbours; a file and a
// directory of one name may not be, see [Find].
func Entries(raw []byte) iter.Seq2[TreeEntry, error] {
	return func(yield func(TreeEntry, error) bool) {
		var last TreeEntry
		for at := 0; at < len(raw); {
			e, n, what := treeEntry(raw[at:])
			if what == "" && last.Name != nil && !before(last, e) {
				what = "entries out of order, or twice"
			}
			if what != "" {
				yield(TreeEntry{}, fail(CodeTree, int64(at), "%s", what))
				return
			}
			if !yield(e, nil) {
				return
			}
			last = e
			at += n
		}
	}
}

// Find returns the entry of a name; ok is false if there is none. All of the tree is checked.
func Find(raw []byte, name string) (found TreeEntry, ok bool, err error) {
	for e, err := range Entries(raw) {
		if err != nil {
			return TreeEntry{}, false, err
		}
		if string(e.Name) == name {
			if ok {
				return TreeEntry{}, false, fail(CodeTree, 0, "two entries are named %q", name)
			}
			found, ok = e, true
		}
	}
	return found, ok, nil
}

// before tells git's order: a directory sorts as if its name ended with a slash.
func before(a, b TreeEntry) bool {
	n := min(len(a.Name), len(b.Name))
	if c := bytes.Compare(a.Name[:n], b.Name[:n]); c != 0 {
		return c < 0
	}
	return after(a, n) < after(b, n)
}

func after(e TreeEntry, n int) byte {
	switch {
	case n < len(e.Name):
		return e.Name[n]
	case e.IsTree():
		return '/'
	}
	return 0
}

func treeEntry(b []byte) (e TreeEntry, n int, what string) {
	i := 0
	for ; i < len(b) && b[i] != ' '; i++ {
		if b[i] < '0' || b[i] > '7' || i == 7 {
			return e, 0, "a mode that is no number"
		}
		e.Mode = e.Mode<<3 | uint32(b[i]-'0')
	}
	if i == 0 || i == len(b) {
		return e, 0, "it ends in a mode"
	}
	switch e.Mode {
	case ModeFile, ModeExecutable, ModeSymlink, ModeTree, ModeSubmodule, modeGroup:
	default:
		return e, 0, "a mode that git does not have"
	}
	rest := b[i+1:]
	end := bytes.IndexByte(rest, 0)
	if end < 0 || len(rest) < end+1+20 {
		return e, 0, "it ends in an entry"
	}
	e.Name = rest[:end]
	copy(e.ID[:], rest[end+1:])
	return e, i + 1 + end + 1 + 20, badName(e.Name)
}

func badName(name []byte) string {
	switch {
	case len(name) == 0:
		return "an entry without a name"
	case len(name) > MaxName:
		return "a name that is too long"
	case bytes.IndexByte(name, '/') >= 0:
		return "a name with a slash"
	}
	if name[0] != '.' && name[0]|0x20 != 'g' {
		return ""
	}
	switch s := string(name); {
	case s == "." || s == "..":
		return "a name that leads elsewhere"
	case strings.EqualFold(s, ".git") || strings.EqualFold(s, "git~1"):
		return "a name that git keeps for itself"
	}
	return ""
}
