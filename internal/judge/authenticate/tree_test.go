package authenticate_test

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sallyport/guix/channel/git"
)

// TestTreesAsGit holds what is read of trees against git's own fsck: names that are .git to some file system, and orders of entries. Names made of the
// characters that matter meet the traps that nobody thought of.
func TestTreesAsGit(t *testing.T) {
	program, err := exec.LookPath("git")
	if err != nil {
		t.Skip("NOT COMPARED WITH git fsck: git is missing (apt-get install git)")
	}
	const seed = 1
	rnd := rand.New(rand.NewPCG(seed, seed))
	parts := []string{".", ".", "g", "i", "t", "G", "T", "~", "1", " ", ":", `\`, "x", "\u200c", "\ufeff", "\u00ef", "\xff", "\xe2\x80", ".git", "git~1"}
	name := func() string {
		var b strings.Builder
		for range 1 + rnd.IntN(5) {
			b.WriteString(parts[rnd.IntN(len(parts))])
		}
		return b.String()
	}
	dir := t.TempDir()
	run := func(args ...string) []byte {
		cmd := exec.Command(program, args...)
		cmd.Dir = dir
		cmd.Env = []string{"HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "LC_ALL=C", "PATH=" + os.Getenv("PATH")}
		out, _ := cmd.CombinedOutput() // fsck ends with an error, as it finds some
		return out
	}
	run("init", "-q", "--bare", ".")
	put := func(kind git.Kind, content []byte) git.ID {
		id := git.Hash(kind, content)
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		fmt.Fprintf(w, "%s %d\x00", kind, len(content))
		w.Write(content)
		w.Close()
		file := filepath.Join(dir, "objects", id.String()[:2], id.String()[2:])
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return id
	}
	blob, empty := put(git.KindBlob, []byte("x")), put(git.KindTree, nil)
	entry := func(name string) []byte {
		if rnd.IntN(3) == 0 {
			return append([]byte("40000 "+name+"\x00"), empty[:]...)
		}
		return append([]byte("100644 "+name+"\x00"), blob[:]...)
	}
	trees := map[string][]byte{}
	for range 1500 {
		raw := entry(name())
		if rnd.IntN(2) == 0 { // some of several, of which the names begin alike
			first := string([]string{"a", "b", "a."}[rnd.IntN(3)])
			raw = entry(first)
			for range rnd.IntN(4) {
				raw = append(raw, entry(first+[]string{"", "", ".", "0", " ", ".a"}[rnd.IntN(6)])...)
			}
		}
		trees[put(git.KindTree, raw).String()] = raw
	}
	faulty := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^error in tree ([0-9a-f]{40}): (\w+)`).FindAllStringSubmatch(string(run("fsck", "--strict", "--no-dangling")), -1) {
		faulty[m[1]] += m[2] + " "
	}
	refused := 0
	for id, raw := range trees {
		_, _, err := git.Find(raw, "x")
		if err != nil {
			refused++
		}
		if (err != nil) != (faulty[id] != "") {
			t.Errorf("%q: %v; git says %q", raw, err, faulty[id])
		}
	}
	if refused < 100 || len(trees)-refused < 100 {
		t.Errorf("%d of %d trees refused: this compares nothing", refused, len(trees))
	}
}
