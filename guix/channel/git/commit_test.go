package git

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	someTree   = "tree 1111111111111111111111111111111111111111\n"
	someParent = "parent 2222222222222222222222222222222222222222\n"
	somePeople = "author A <a@x> 1 +0000\ncommitter C <c@x> 2 -0130\n"
)

func TestCommit(t *testing.T) {
	const sig = "gpgsig -----BEGIN-----\n \n abc\n -----END-----\n"
	const text = "-----BEGIN-----\n\nabc\n-----END-----"
	tests := []struct {
		name, raw   string
		signature   string
		signed      string
		oddities    string
		bad         bool
		parentCount int
	}{
		{"plain", someTree + someParent + somePeople + sig + "\nmessage\n", text, someTree + someParent + somePeople + "\nmessage\n", "", false, 1},
		{"root", someTree + somePeople + sig + "\nmessage\n", text, someTree + somePeople + "\nmessage\n", "", false, 0},
		{"unsigned", someTree + somePeople + "\nmessage\n", "", "", "", false, 0},
		{"no message", someTree + somePeople + "x y\n" + sig + "\n", text, someTree + somePeople + "x y\n\n", "", false, 0},
		{"signature is the last line", someTree + somePeople + sig, text, someTree + somePeople, "[{message-absent}]", false, 0},
		{"other headers", someTree + somePeople + "encoding latin-1\n" + sig + "mergetag x\n y\n\nm\n", text, someTree + somePeople + "encoding latin-1\nmergetag x\n y\n\nm\n", "", false, 0},
		{"zero byte", someTree + somePeople + sig + "\nmess\x00age\n", text, someTree + somePeople + "\nmess", "[{nul}]", false, 0},
		{"zero byte before", someTree + "author A\x00 <a@x> 1 +0000\ncommitter C <c@x> 2 -0130\n" + sig + "\nm\n", "", "", "[{nul}]", false, 0},
		{"in message", someTree + somePeople + "\n" + sig + "m\n", text, someTree + somePeople + "\nm\n", "[{signature}]", false, 0},
		{"word alone", someTree + somePeople + "gpgsignature x\n" + sig + "\nm\n", text, someTree + somePeople + "nature x\n\nm\n", "[{signature}]", false, 0},
		{"twice", someTree + somePeople + sig + sig + "\nm\n", text, someTree + somePeople + sig + "\nm\n", "[{signature}]", false, 0},
		{"not folded to the end", someTree + somePeople + "gpgsig a\n b", "", "", "[{message-absent}]", false, 0},
		{"two authors", someTree + "author A <a@x> 1 +0000\n" + somePeople + "\nm\n", "", "", "[{duplicate}]", false, 0},
		{"late tree", someTree + somePeople + someTree + "\nm\n", "", "", "[{duplicate}]", false, 0},
		{"late parent", someTree + somePeople + someParent + "\nm\n", "", "", "[{duplicate}]", false, 0},
		{"no date", someTree + "author A <a@x>\ncommitter C <c@x> 2 -0130\n\nm\n", "", "", "[{person}]", false, 0},
		{"negative date", someTree + "author A <a@x> -1 +0000\ncommitter C <c@x> 2 -0130\n\nm\n", "", "", "[{person}]", false, 0},
		{"two addresses", someTree + "author A <a@x> <b@x> 1 +0000\ncommitter C <c@x> 2 -0130\n\nm\n", "", "", "[{person}]", false, 0},
		{"folded committer", someTree + somePeople + " more\n\nm\n", "", "", "[{header}]", false, 0},
		{"word", someTree + somePeople + "word\n\nm\n", "", "", "[{header}]", false, 0},

		{name: "nothing", raw: "", bad: true},
		{name: "no tree", raw: someParent + somePeople + "\n", bad: true},
		{name: "tree cut", raw: someTree[:30] + "\n" + somePeople + "\n", bad: true},
		{name: "tree in capitals", raw: strings.ReplaceAll(someTree, "1", "A") + somePeople + "\n", bad: true},
		{name: "parent cut", raw: someTree + someParent[:30] + "\n" + somePeople + "\n", bad: true},
		{name: "parent before tree", raw: someParent + someTree + somePeople + "\n", bad: true},
		{name: "no author", raw: someTree + "committer C <c@x> 2 -0130\n\n", bad: true},
		{name: "no committer", raw: someTree + "author A <a@x> 1 +0000\n\n", bad: true},
		{name: "no address", raw: someTree + "author A 1 +0000\ncommitter C <c@x> 2 -0130\n\n", bad: true},
		{name: "ends in a line", raw: someTree + "author A <a@x> 1 +0000\ncommitter C <c@x> 2 -0130", bad: true},
		{name: "too many parents", raw: someTree + strings.Repeat(someParent, MaxParents+1) + somePeople + "\n", bad: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := ParseCommit([]byte(tt.raw))
			if tt.bad {
				if err == nil {
					t.Fatalf("parsed: %+v", c)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Parents) != tt.parentCount || string(c.Signature) != tt.signature || string(bytes.Join(c.Signed, nil)) != tt.signed {
				t.Errorf("%d parents, signature %q, signed %q", len(c.Parents), c.Signature, c.Signed)
			}
			var odd []struct{ Kind string }
			for _, o := range c.Oddities {
				odd = append(odd, struct{ Kind string }{o.Kind})
			}
			if got := fmt.Sprint(odd); got != tt.oddities && (tt.oddities != "" || odd != nil) {
				t.Errorf("odd: %v, want %s", c.Oddities, tt.oddities)
			}
		})
	}
}

// FuzzCommit: no panic; what is signed is made of pieces of the commit, in order; and taking the signature out of a plain one gives what is signed.
func FuzzCommit(f *testing.F) {
	for _, s := range []string{"", "gpgsig a\n b\n", "gpgsigx a\n", "encoding x\n"} {
		f.Add([]byte(someTree + someParent + somePeople + s + "\nmessage\ngpgsig x\n"))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := ParseCommit(raw)
		if err != nil {
			return
		}
		at := 0
		for _, p := range c.Signed {
			i := bytes.Index(raw[at:], p)
			if i < 0 {
				t.Fatalf("%q is not of the commit", p)
			}
			at += i + len(p)
		}
		if (c.Signature == nil) != (c.Signed == nil) {
			t.Fatal("a signature over nothing, or none over something")
		}
		if c.Signature != nil && len(c.Oddities) == 0 {
			folded := "gpgsig " + strings.ReplaceAll(string(c.Signature), "\n", "\n ") + "\n"
			if got := slices.Concat(c.Signed[0], []byte(folded), c.Signed[1]); !bytes.Equal(got, raw) {
				t.Fatalf("put together again: %q", got)
			}
		}
		Person(c.Author)
		Seconds(c.Committer)
		c.SignedText()
	})
}

func tree(entries ...string) []byte {
	var b []byte
	for _, e := range entries {
		b = append(b, e...)
		b = append(b, 0)
		b = append(b, bytes.Repeat([]byte{7}, 20)...)
	}
	return b
}

func TestTree(t *testing.T) {
	for _, tt := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"empty", nil, true},
		{"files", tree("100644 a", "100755 b", "120000 c", "40000 d", "160000 e", "100664 f"), true},
		{"zero before the mode", tree("040000 d"), true},
		{"directory sorts with a slash", tree("100644 a.b", "40000 a", "100644 a0"), true},
		{"directory sorts as a file", tree("40000 a", "100644 a.b"), false},
		{"out of order", tree("100644 b", "100644 a"), false},
		{"twice", tree("100644 a", "100644 a"), false},
		{"no name", tree("100644 "), false},
		{"dot", tree("100644 ."), false},
		{"dots", tree("40000 .."), false},
		{"git", tree("40000 .git"), false},
		{"GIT", tree("40000 .GIT"), false},
		{"git~1", tree("40000 GIT~1"), false},
		{"dot behind", tree("40000 .git."), false},
		{"space behind", tree("40000 .Git .. "), false},
		{"stream", tree("40000 .git::$INDEX_ALLOCATION"), false},
		{"behind a backslash", tree("100644 a\\b\\.git"), false},
		{"short behind a backslash", tree("100644 a\\git~1 "), false},
		{"unseen character", tree("40000 .g\u200cIt"), false},
		{"unseen character before", tree("40000 \ufeff.git"), false},
		{"no UTF-8 behind", tree("40000 .git\xff"), false},
		{"like git", tree("100644 .gitignore", "100644 git", "100644 gitk", "100644 git~10", "100644 x.git"), true},
		{"like git to HFS", tree("100644 .g\u00efit", "100644 .g\u200ci", "100644 \ufeffgit"), true},
		{"file and directory", tree("100644 a", "40000 a"), false},
		{"file and directory, another between", tree("100644 a", "100644 a.b", "40000 a"), false},
		{"file and directory, nested", tree("100644 a", "100644 a.", "100644 a.b", "40000 a.", "100644 a0"), false},
		{"files that begin alike", tree("100644 a", "100644 a.", "40000 a.b", "40000 ab", "40000 ac"), true},
		{"slash", tree("100644 a/b"), false},
		{"mode 0", tree("0 a"), false},
		{"mode 100600", tree("100600 a"), false},
		{"mode 8", tree("100648 a"), false},
		{"long mode", tree("0000100644 a"), false},
		{"no mode", tree(" a"), false},
		{"cut", tree("100644 a")[:15], false},
		{"no space", []byte("100644"), false},
	} {
		_, _, err := Find(tt.raw, "x")
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if e, ok, err := Find(tree("100644 a", "40000 b"), "b"); !ok || err != nil || !e.IsTree() {
		t.Error(e, ok, err)
	}
}

// FuzzTree: what parses prints back to the same bytes, but for zeros before a mode.
func FuzzTree(f *testing.F) {
	f.Add(tree("100644 a", "40000 b"))
	f.Add(tree("040000 d"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var back []byte
		zeros := false
		for e, err := range Entries(raw) {
			if err != nil {
				return
			}
			rest := raw[len(back):]
			mode := fmt.Sprintf("%o", e.Mode)
			if !bytes.HasPrefix(rest, []byte(mode)) {
				zeros = true
				mode = "0" + mode
				for !bytes.HasPrefix(rest, []byte(mode)) {
					mode = "0" + mode
				}
			}
			back = fmt.Appendf(back, "%s %s\x00", mode, e.Name)
			back = append(back, e.ID[:]...)
		}
		if !bytes.Equal(back, raw) {
			t.Fatalf("%q becomes %q (%v)", raw, back, zeros)
		}
	})
}

func TestTag(t *testing.T) {
	const head = "object 1111111111111111111111111111111111111111\ntype commit\ntag v1\ntagger T <t@x> 1 +0000\n\nmessage\n"
	tag, err := ParseTag([]byte(head + "-----BEGIN PGP SIGNATURE-----\nabc\n"))
	if err != nil || string(tag.Signed) != head || tag.Kind != KindCommit || string(tag.Name) != "v1" || !strings.HasPrefix(string(tag.Signature), "-----BEGIN PGP") {
		t.Errorf("%+v %v", tag, err)
	}
	for _, bad := range []string{"", "type commit\n", strings.Replace(head, "commit", "comet", 1), strings.Replace(head, "tag v1\n", "", 1), strings.Replace(head, "v1", "", 1), head + "\x00", strings.Replace(head, "1111", "111", 1)} {
		if _, err := ParseTag([]byte(bad)); err == nil {
			t.Errorf("%q is a tag", bad)
		}
	}
}

func FuzzTag(f *testing.F) {
	f.Add([]byte("object 1111111111111111111111111111111111111111\ntype commit\ntag v1\ntagger T <t@x> 1 +0000\n\nmessage\n-----BEGIN PGP SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if tag, err := ParseTag(raw); err == nil && !bytes.Equal(slices.Concat(tag.Signed, tag.Signature), raw) {
			t.Fatal("the parts are not the whole")
		}
	})
}

func TestID(t *testing.T) {
	if id := Hash(KindBlob, nil); id.String() != "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391" {
		t.Error(id) // git's empty file
	}
	for _, bad := range []string{"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c539", "E69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "g69de29bb2d1d6434b8b29ae775ad8c2e48c5391", "e69de29bb2d1d6434b8b29ae775ad8c2e48c53911"} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q is an id", bad)
		}
	}
}
