//go:build peer

package peer

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/internal/judge/authenticate"
)

// authenticateOne runs `guix git authenticate` on a repository, with an empty cache. REPO.args has its arguments, one a line; what it said goes to
// REPO.out and its exit status to REPO.code.
const authenticateOne = `
repo=$1
set --
while IFS= read -r line; do set -- "$@" "$line"; done <"$repo.args"
HOME=$PWD/$repo.home
export HOME
mkdir -p "$HOME"
timeout 30 guix git authenticate -r "$PWD/$repo" "$@" >"$repo.out" 2>&1
echo $? >"$repo.code"
`

// TestChannelVerdicts has the real program judge every history of channeltest, and ours too, from files. They agree, but where the table says why
// ours is stricter.
func TestChannelVerdicts(t *testing.T) {
	p := start(t)
	f := p.folder(t)
	w, err := channeltest.NewWorld(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cases := channeltest.Cases()
	histories := make([]channeltest.History, len(cases))
	for i, c := range cases {
		h := c.Build(w)
		histories[i] = h
		dir := filepath.Join(f.host, c.Name+".git")
		if h.Other != nil {
			other := filepath.Join(f.host, c.Name+".other")
			if err := h.Other.Write(other); err != nil {
				t.Fatal(err)
			}
			h.Files["objects/info/alternates"] = []byte(filepath.Join(f.name, c.Name+".other", "objects") + "\n")
		}
		if err := h.Write(dir); err != nil {
			t.Fatal(err)
		}
		args := []string{"--end=" + h.End.String()}
		if h.Historical != nil {
			var list strings.Builder
			list.WriteString("(authorizations (version 0) (")
			for _, k := range h.Historical {
				fmt.Fprintf(&list, "(%q)", k)
			}
			list.WriteString("))")
			args = append(args, "--historical-authorizations="+f.write(t, c.Name+".historical", []byte(list.String()), 0o644))
		}
		args = append(args, h.Introduction.String(), h.Signer.String())
		f.write(t, c.Name+".git.args", []byte(strings.Join(args, "\n")+"\n"), 0o644)
	}
	script := f.write(t, "one.sh", []byte(authenticateOne), 0o755)
	p.run(t, "sh", "-c", `cd "$1" && ls -d *.git | xargs -P 4 -n 1 sh "$2"`, "sh", f.name, script)
	for i, c := range cases {
		h := histories[i]
		t.Run(c.Name, func(t *testing.T) {
			code := strings.TrimSpace(string(f.read(t, c.Name+".git.code")))
			said := f.read(t, c.Name+".git.out")
			if code == "124" && !c.Endless {
				t.Fatal("the real program did not end")
			}
			theirs := code == "0" && bytes.Contains(said, []byte("successfully authenticated"))
			t.Logf("the real program: %s: %s", code, bytes.TrimSpace(tail(said)))
			ours, why := judge(t, filepath.Join(f.host, c.Name+".git"), h)
			if want := len(c.Codes) == 0; ours != want {
				t.Errorf("ours: authentic %v, want %v: %s", ours, want, why)
			}
			switch {
			case c.Stricter == "" && ours != theirs:
				t.Errorf("ours: authentic %v (%s), the real program: %v\n%s", ours, why, theirs, tail(said))
			case c.Stricter != "" && (ours || !theirs):
				t.Errorf("ours: authentic %v, the real program: %v; the table says that ours is stricter (%s)\n%s", ours, theirs, c.Stricter, tail(said))
			}
			if _, err := os.Stat(filepath.Join(f.host, "hooked")); err == nil {
				t.Error("a hook or the configuration of a repository was run")
			}
		})
	}
}

// judge runs ours on a repository.
func judge(t *testing.T, dir string, h channeltest.History) (bool, string) {
	t.Helper()
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		return false, err.Error()
	}
	defer r.Close()
	report, err := r.Authenticate(t.Context(), authenticate.Request{Introduction: h.Introduction, Signer: h.Signer, End: h.End.String(), Historical: h.Historical})
	if err != nil {
		return false, err.Error()
	}
	return report.OK(), fmt.Sprint(report.Refusals)
}
