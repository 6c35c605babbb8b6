package git

import (
	"bytes"
	"iter"
	"strings"
	"unicode"
	"unicode/utf8"
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

// Entries walks a tree. It stops with an error at the first entry that fsck would not let pass: names that are empty, "." or "..", that are ".git" on some
// file system, or hold a slash; modes that are none; entries out of order; two of one name, also a file and a directory. Looser than fsck in one thing:
// zeros before a mode, which old histories have.
func Entries(raw []byte) iter.Seq2[TreeEntry, error] {
	return func(yield func(TreeEntry, error) bool) {
		var last TreeEntry
		// Others may stand between a file and a directory of its name: those whose names begin with it. So the files kept are each the beginning of the next.
		files := make([][]byte, 0, 8)
		for at := 0; at < len(raw); {
			e, n, what := treeEntry(raw[at:])
			for len(files) > 0 && !bytes.HasPrefix(e.Name, files[len(files)-1]) {
				files = files[:len(files)-1]
			}
			switch {
			case what != "":
			case last.Name != nil && !before(last, e):
				what = "entries out of order, or twice"
			case !e.IsTree():
				files = append(files, e.Name)
			case len(files) > 0 && len(files[len(files)-1]) == len(e.Name):
				what = "a file and a directory of one name"
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
	if s := string(name); s == "." || s == ".." {
		return "a name that leads elsewhere"
	}
	// All that is ".git" to NTFS, which has backslashes for slashes, or to HFS+ begins with one of these, or has one of them behind a backslash.
	for rest, more := name, true; more; {
		if len(rest) > 0 && (rest[0] == '.' || rest[0]|0x20 == 'g') && ntfsGit(rest) {
			return "a name that git keeps for itself"
		}
		_, rest, more = bytes.Cut(rest, []byte{'\\'})
	}
	if (name[0] == '.' || name[0] >= utf8.RuneSelf) && hfsGit(name) {
		return "a name that git keeps for itself"
	}
	return ""
}

// ntfsGit tells of names that NTFS takes for .git, or for GIT~1, its short form: it ends a name at a colon, and cuts off dots and spaces.
func ntfsGit(name []byte) bool {
	if i := bytes.IndexAny(name, "\\:"); i >= 0 {
		name = name[:i]
	}
	for _, git := range []string{".git", "git~1"} {
		if len(name) >= len(git) && strings.EqualFold(string(name[:len(git)]), git) && len(bytes.Trim(name[len(git):], ". ")) == 0 {
			return true
		}
	}
	return false
}

// hfsGit tells of names that HFS+ takes for .git: it passes over characters that are not seen. What is no UTF-8 ends a name, as in git's own check.
func hfsGit(name []byte) bool {
	const git = ".git"
	n := 0
	for len(name) > 0 {
		r, size := utf8.DecodeRune(name)
		if r == utf8.RuneError && size == 1 {
			break
		}
		name = name[size:]
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			continue
		case n == len(git) || r >= utf8.RuneSelf || unicode.ToLower(r) != rune(git[n]):
			return false
		}
		n++
	}
	return n == len(git)
}
