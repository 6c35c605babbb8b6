//go:build peer

package peer

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
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
	if len(cases) < 40 {
		t.Fatalf("%d histories: the table is not whole", len(cases))
	}
	stricter := 0
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
			case c.Stricter != "":
				stricter++
			}
			if _, err := os.Stat(filepath.Join(f.host, "hooked")); err == nil {
				t.Error("a hook or the configuration of a repository was run")
			}
		})
	}
	t.Logf("%d histories: %d verdicts agree, ours is stricter in %d", len(cases), len(cases)-stricter, stricter)
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

// channels are real ones, where the environment says that a mirror of them lies (a bare repository with the branch keyring). How long it takes, bench says.
var channels = []struct {
	name, variable, introduction, signer, end string
	commits                                   int
}{
	{"nonguix", "SALLYPORT_PEER_NONGUIX", "897c1a470da759236cc11798f4e0a5f7d4d59fbc", "2A39 3FFF 68F4 EF7A 3D29  12AF 6F51 20A0 22FB B2D5", "caa8c0b4646b993537be13c9bc819b3df68ab9b2", 2177},
	{"guix", "SALLYPORT_PEER_GUIX", "9edb3f66fd807b096b48283debdcddccfea34bad", "BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA", "4c4222f32a2906b7bcab74fab70ff2c2f152e8eb", 67793},
}

// TestRealChannels has the real program and ours authenticate real channels; then ours again with what it has proven.
func TestRealChannels(t *testing.T) {
	p := start(t)
	program := filepath.Join(t.TempDir(), "sallyport")
	run := func(t *testing.T, cmd *exec.Cmd) string {
		t.Helper()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%.200s: %v\n%s", cmd, err, tail(out))
		}
		return string(out)
	}
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../cmd/sallyport")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	run(t, build)
	for _, c := range channels {
		t.Run(c.name, func(t *testing.T) {
			mirror := os.Getenv(c.variable)
			if mirror == "" {
				t.Skipf("SKIPPED, NOT COMPARED: %s does not name a bare repository of the channel %s", c.variable, c.name)
			}
			f := p.folder(t)
			run(t, exec.Command("cp", "-r", mirror, filepath.Join(f.host, "repo.git")))
			home := filepath.Join(f.host, "ours")
			for _, judged := range []int{c.commits, 0} {
				cmd := exec.Command(program, "channel", "authenticate", "--json", "-r", filepath.Join(f.host, "repo.git"), "--end", c.end, c.introduction, c.signer)
				cmd.Env = []string{"HOME=" + home, "XDG_CACHE_HOME=" + home + "/cache", "XDG_STATE_HOME=" + home + "/state"}
				out := run(t, cmd)
				if want := fmt.Sprintf(`"commits":%d,"judged":%d,`, c.commits, judged); !strings.Contains(out, want) {
					t.Errorf("no %s in %.300s", want, out)
				}
			}
			out := run(t, exec.Command(script, "run", "env", "HOME="+f.name, "guix", "git", "authenticate", "-r", filepath.Join(f.name, "repo.git"), "--end="+c.end, c.introduction, c.signer))
			if !strings.Contains(out, "successfully authenticated") {
				t.Errorf("%s", tail([]byte(out)))
			}
		})
	}
}
