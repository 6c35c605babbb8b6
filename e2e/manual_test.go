package e2e_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// scripts are the blocks of commands in a page of docs/operate, with their headings.
func scripts(t *testing.T, page string) (titles, blocks []string) {
	t.Helper()
	title, in := "", false
	var b strings.Builder
	for line := range strings.Lines(string(read(t, filepath.Join("..", "docs", "operate", page)))) {
		switch {
		case !in && strings.HasPrefix(line, "#"):
			title = strings.TrimSpace(strings.TrimLeft(line, "# "))
		case !in && strings.TrimSpace(line) == "```sh":
			in = true
		case in && strings.TrimSpace(line) == "```":
			titles, blocks = append(titles, title), append(blocks, b.String())
			b.Reset()
			in = false
		case in:
			b.WriteString(line)
		}
	}
	return titles, blocks
}

// TestCeremonies follows docs/operate/ceremony.md and drills.md, command by command, in one directory. Passphrases are left out: nobody is there to type them.
func TestCeremonies(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("NOT TESTED: that the ceremonies of docs/operate can be followed: no bash here; remedy: apt-get install bash")
	}
	dir := t.TempDir()
	generate := regexp.MustCompile(`key generate `)
	var define string
	for _, page := range []string{"ceremony.md", "drills.md"} {
		titles, blocks := scripts(t, page)
		if len(blocks) < 4 {
			t.Fatalf("%s has %d blocks of commands", page, len(blocks))
		}
		for i, block := range blocks {
			if strings.HasPrefix(block, "fingerprint()") {
				define = block
				continue
			}
			cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-o", "pipefail", "-c", define+generate.ReplaceAllString(block, "key generate --no-passphrase "))
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"), "LC_ALL=C")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%s, %s: %v\n%s\n%s", page, titles[i], err, block, out)
			}
		}
	}
	w := &world{t: t, dir: dir}
	w.sound()
	// The second officer's signature under another draft, an edited draft, a draft of yesterday: each is named.
	w.must(station, "trust", "policy", "--zone", "inside", "--draft", "a.draft", "silence", "60")
	sign := func(draft string) []string {
		return []string{station, "trust", "sign", "--zone", "inside", "--key", "olga/root.key", "--fingerprint", w.digest(draft), draft}
	}
	w.must(sign("a.draft")...)
	r := w.code(failed, station, "trust", "policy", "--zone", "inside", "--draft", "a.draft", "silence", "90")
	if !strings.Contains(string(r.stderr), "signatures already") {
		t.Error(r)
	}
	w.refuses("root-previous", station, "trust", "policy", "--zone", "inside", "--draft", "root-2.draft", "silence", "90")
	w.refuses("root-previous", sign("root-2.draft")...)
	w.refuses("draft-fingerprint", station, "trust", "sign", "--zone", "inside", "--key", "olga/root.key", "--fingerprint", strings.Repeat("ab", 32), "a.draft")
	write(t, w.path("b.draft"), []byte(strings.Replace(string(read(t, w.path("a.draft"))), "silence 60", "silence 61", 1)), 0o644)
	write(t, w.path("b.draft.olga.sig"), read(t, w.path("a.draft.olga.sig")), 0o644)
	w.refuses("signature-other", station, "trust", "accept", "--zone", "inside", "b.draft")
}
