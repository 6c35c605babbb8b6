package verbs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/frame/frametest"
	"sallyport/guix/archive"
	"sallyport/guix/nar"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

const vectors = "../../../vectors/"

// A world is what a verb sees.
type world struct {
	t     *testing.T
	dir   string
	stdin []byte
	pipe  io.Reader // in place of stdin
	env   map[string]string
}

// run runs a command line; "$D" in it is the world's directory.
func (w *world) run(args ...string) frametest.Outcome {
	w.t.Helper()
	return w.runIn(w.t.Context(), args...)
}

func (w *world) runIn(ctx context.Context, args ...string) frametest.Outcome {
	w.t.Helper()
	env := frame.Env{Stdin: bytes.NewReader(w.stdin), Getenv: func(s string) string { return w.env[s] }}
	if w.pipe != nil {
		env.Stdin = w.pipe
	}
	for i, a := range args {
		args[i] = strings.ReplaceAll(a, "$D", w.dir)
	}
	return frametest.Run(ctx, env, Both, args...)
}

func (w *world) write(name string, data []byte) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), data, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(w.dir, name))
	return !errors.Is(err, fs.ErrNotExist)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), env: make(map[string]string)}
	if err := errors.Join(os.MkdirAll(filepath.Join(w.dir, "tree/d"), 0o755), os.Symlink("d/f", filepath.Join(w.dir, "tree/l"))); err != nil {
		t.Fatal(err)
	}
	w.write("tree/d/f", []byte("hello"))
	w.write("plain", []byte("flat"))
	if err := errors.Join(os.Symlink("tree", filepath.Join(w.dir, "link")), os.MkdirAll(filepath.Join(w.dir, "odd/sub"), 0o755)); err != nil {
		t.Fatal(err)
	}
	// Nobody listens there, and so its path may be long.
	if err := syscall.Mknod(filepath.Join(w.dir, "odd/sub/socket"), syscall.S_IFSOCK|0o644, 0); err != nil {
		t.Fatal(err)
	}
	return w
}

const hello = vectors + "drv-hello/drv/2nfg943asrl9dv64zrr1a4kpb25mfafd-hello-2.12.2.drv"

// A promise is a command line and what is promised of it.
type promise struct {
	name           string
	args           []string
	code           int
	stdout, stderr string // substrings; "" in stdout is nothing, "*" anything
	check          func(t *testing.T, o frametest.Outcome)
}

func (w *world) keep(promises []promise) {
	for _, p := range promises {
		w.t.Run(p.name, func(t *testing.T) {
			inner := *w
			inner.t = t
			o := inner.run(p.args...)
			if o.Code != p.code || p.stdout == "" && o.Stdout != "" || p.stdout != "*" && !strings.Contains(o.Stdout, p.stdout) || !strings.Contains(o.Stderr, p.stderr) {
				t.Errorf("%q:\ncode %d, want %d\nstdout %q, want %q\nstderr %q, want %q", p.args, o.Code, p.code, o.Stdout, p.stdout, o.Stderr, p.stderr)
			}
			if p.check != nil {
				p.check(t, o)
			}
		})
	}
}

// lines reads what --json printed.
func lines(t *testing.T, o frametest.Outcome) (all []map[string]any) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(o.Stdout)); ; {
		var v map[string]any
		if err := dec.Decode(&v); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("%v in %q", err, o.Stdout)
		}
		all = append(all, v)
	}
}

func TestNarVerbs(t *testing.T) {
	w := newWorld(t)
	hash := strings.TrimSpace(w.run("nar", "hash", "$D/tree").Stdout)
	raw, err := storepath.DecodeBase32(hash, 32)
	if err != nil {
		t.Fatal(err)
	}
	streamed := w.run("nar", "create", "$D/tree")
	archived := []byte(streamed.Stdout)
	if sum := sha256.Sum256(archived); !bytes.Equal(sum[:], raw) {
		t.Fatalf("the nar hashes to %x, not %x: %s", sum, raw, streamed.Stderr)
	}
	w.write("good.nar", archived)
	w.write("trailing.nar", append(bytes.Clone(archived), 0))
	w.write("cut.nar", archived[:len(archived)-8])
	w.stdin = archived
	gone := func(names ...string) func(*testing.T, frametest.Outcome) {
		return func(t *testing.T, _ frametest.Outcome) {
			for _, n := range names {
				if w.exists(n) {
					t.Errorf("%s was left behind", n)
				}
			}
		}
	}
	same := func(name string) func(*testing.T, frametest.Outcome) {
		return func(t *testing.T, _ frametest.Outcome) {
			if got := strings.TrimSpace(w.run("nar", "hash", "$D/"+name).Stdout); got != hash {
				t.Errorf("%s has the hash %s, not %s", name, got, hash)
			}
		}
	}
	w.keep([]promise{
		{"create a file", []string{"nar", "create", "--output", "$D/out.nar", "$D/tree"}, 0, "sha256 " + hash, "", func(t *testing.T, _ frametest.Outcome) {
			if got, err := os.ReadFile(filepath.Join(w.dir, "out.nar")); err != nil || !bytes.Equal(got, archived) {
				t.Error("another nar", err)
			}
		}},
		{"create says what", []string{"nar", "create", "--json", "-o", "$D/json.nar", "$D/plain"}, 0, `"size":`, "", func(t *testing.T, o frametest.Outcome) {
			if v := lines(t, o); len(v) != 1 || v[0]["size"] != float64(nar.FileSize(4)) {
				t.Errorf("%v", v)
			}
		}},
		{"create keeps stdout clean", []string{"nar", "create", "$D/tree"}, 0, string(archived), hash, nil},
		{"create replaces nothing", []string{"nar", "create", "-o", "$D/good.nar", "$D/tree"}, 1, "", "exists", func(t *testing.T, _ frametest.Outcome) {
			if got, _ := os.ReadFile(filepath.Join(w.dir, "good.nar")); !bytes.Equal(got, archived) {
				t.Error("the file was changed")
			}
		}},
		{"create leaves nothing", []string{"nar", "create", "-o", "$D/none.nar", "$D/absent"}, 1, "", "absent", gone("none.nar")},
		{"create and json", []string{"nar", "create", "--json", "$D/tree"}, 2, "usage", "--output", nil},
		{"restore", []string{"nar", "restore", "$D/good.nar", "$D/copy"}, 0, hash, "", same("copy")},
		{"restore from stdin", []string{"nar", "restore", "-", "$D/copy2"}, 0, hash, "", same("copy2")},
		{"restore with hash", []string{"nar", "restore", "--json", "--hash", hex.EncodeToString(raw), "$D/good.nar", "$D/copy3"}, 0, `"base32":"` + hash + `"`, "", same("copy3")},
		{"restore replaces nothing", []string{"nar", "restore", "$D/good.nar", "$D/plain"}, 1, "", "is there already", nil},
		{"restore another hash", []string{"nar", "restore", "--hash", strings.Repeat("0", 52), "$D/good.nar", "$D/bad"}, 3, "", "nar-digest", gone("bad")},
		{"restore no hash", []string{"nar", "restore", "--hash", "0", "$D/good.nar", "$D/bad"}, 2, "", "--hash", gone("bad")},
		{"restore trailing", []string{"nar", "restore", "$D/trailing.nar", "$D/bad"}, 3, "", "nar-trailing", gone("bad")},
		{"restore cut", []string{"nar", "restore", "$D/cut.nar", "$D/bad"}, 3, "", "nar-truncated", gone("bad")},
		{"restore escape", []string{"nar", "restore", vectors + "nars-hostile/restore-escape-dotdot.rawnar", "$D/bad"}, 3, "", "nar-name", gone("bad", "x", "../x")},
		{"restore through a link", []string{"nar", "restore", "--json", vectors + "nars-hostile/restore-escape-symlink.rawnar", "$D/bad"}, 3, `"type":"refused"`, "", gone("bad")},
		{"examples first", []string{"nar", "restore", "--help"}, 0, "Examples:\n  sallyport nar restore", "", nil},

		{"hash", []string{"nar", "hash", "$D/tree"}, 0, hash + "\n", "", nil},
		{"hash in hex", []string{"nar", "hash", "--format", "hex", "$D/tree"}, 0, hex.EncodeToString(raw) + "\n", "", nil},
		{"hash in another way", []string{"nar", "hash", "--format", "base64", "$D/tree"}, 2, "", "base64", nil},
		{"hash json", []string{"nar", "hash", "--json", "$D/tree"}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			if v := lines(t, o); len(v) != 1 || v[0]["base32"] != hash || v[0]["sha256"] != hex.EncodeToString(raw) || v[0]["size"] != float64(len(archived)) {
				t.Errorf("%v", v)
			}
		}},
		{"hash of a link", []string{"nar", "hash", "$D/link"}, 0, "0", "", func(t *testing.T, o frametest.Outcome) {
			if strings.TrimSpace(o.Stdout) == hash {
				t.Error("the link was followed")
			}
		}},
		{"hash through a link", []string{"nar", "hash", "$D/link/"}, 0, hash, "", nil},
		{"hash of nothing", []string{"nar", "hash", ""}, 2, "", "empty PATH", nil},
		{"hash of what is absent", []string{"nar", "hash", "$D/absent"}, 1, "", "absent", nil},
		{"hash without a path", []string{"nar", "hash"}, 2, "", "accepts 1", nil},
		{"hash of a socket", []string{"nar", "hash", "--json", "$D/odd"}, 3, `"code":"nar-type","subject":"` + filepath.Join(w.dir, "odd/sub/socket") + `"`, "sub/socket", nil},
		{"create with a socket", []string{"nar", "create", "-o", "$D/none.nar", "$D/odd"}, 3, "", "nar-type", gone("none.nar")},

		{"verify", []string{"nar", "verify", "$D/good.nar"}, 0, "well-formed, 1 file, 5 bytes", "", nil},
		{"verify stdin", []string{"nar", "verify", "-"}, 0, "well-formed", "", nil},
		{"verify json", []string{"nar", "verify", "--json", "$D/good.nar"}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			if v := lines(t, o); len(v) != 1 || v[0]["nodes"] != 4.0 || v[0]["files"] != 1.0 || v[0]["bytes"] != 5.0 {
				t.Errorf("%v", v)
			}
		}},
		{"verify trailing", []string{"nar", "verify", "$D/trailing.nar"}, 3, "", fmt.Sprintf("nar-trailing: bytes behind the end of the archive (byte %d)", len(archived)), nil},
		{"verify cut", []string{"nar", "verify", "$D/cut.nar"}, 3, "", "nar-truncated", nil},
		{"verify no nar", []string{"nar", "verify", "$D/plain"}, 3, "", "(byte 0)", nil},
		{"verify a directory", []string{"nar", "verify", "$D/tree"}, 1, "", "is a directory", nil},
		{"verify what is absent", []string{"nar", "verify", "$D/absent"}, 1, "", "absent", nil},
		{"list", []string{"nar", "list", "$D/good.nar"}, 0, "-r--r--r--            5 \"d/f\"\n", "", nil},
		{"list stdin", []string{"nar", "list", "--json", "-"}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			if v := lines(t, o); len(v) != 4 || v[3]["type"] != "symlink" || v[3]["target"] != "d/f" || v[0]["path_hex"] != nil {
				t.Errorf("%v", v)
			}
		}},
		{"list a name of bytes", []string{"nar", "list", "--json", vectors + "nars/bad.nar"}, 0, `"path_hex":"`, "", nil},
		{"list trailing", []string{"nar", "list", "$D/trailing.nar"}, 3, "*", "nar-trailing", nil},
	})
}

// Every verb that reads or writes much ends when the operator says so, a silent pipe or not, with its own exit code, and leaves nothing.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	const in = vectors + "archives/"
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range [][]string{
		{"nar", "hash", "$D/tree"}, {"nar", "create", "$D/tree"}, {"nar", "create", "-o", "$D/left", "$D/tree"},
		{"nar", "verify", vectors + "nars/sort.nar"}, {"nar", "list", vectors + "nars/sort.nar"}, {"nar", "restore", vectors + "nars/sort.nar", "$D/left"},
		{"derivation", "show", vectors + "archives/acl"}, {"derivation", "verify", vectors + "drv-hello/drv"}, {"derivation", "closure", hello},
		{"archive", "verify", "--acl", in + "acl", in + "ok-closure.nar"}, {"archive", "list", in + "ok-closure.nar"}, {"narinfo", "verify", "--acl", in + "acl", vectors + "narinfo/default-gzip.narinfo"},
	} {
		if o := w.runIn(stopped, args...); o.Code != frame.ExitInterrupted || !strings.Contains(o.Stderr, "interrupted") || len(o.Stderr) > 200 {
			t.Errorf("%q: %+v", args, o)
		}
		if w.exists("left") {
			t.Fatalf("%q left something", args)
		}
	}
	archived := []byte(w.run("nar", "create", "$D/tree").Stdout)
	fifo := filepath.Join(w.dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"nar", "verify", "-"}, {"nar", "list", "-"}, {"nar", "restore", "-", "$D/left"}, {"archive", "list", "-"}, {"archive", "verify", "--acl", in + "acl", "-"},
		{"derivation", "show", "-"}, {"narinfo", "verify", "--acl", in + "acl", "-"}, {"nar", "verify", "$D/fifo"}, {"narinfo", "verify", "--acl", "$D/fifo", "-"},
	} {
		// Half of something comes, and then nothing more.
		silent, feed := io.Pipe()
		w.pipe = io.MultiReader(bytes.NewReader(archived[:len(archived)/2]), silent)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		if o := w.runIn(ctx, args...); o.Code != frame.ExitInterrupted && o.Code != frame.ExitRefused || strings.HasPrefix(args[0], "nar") && o.Code != frame.ExitInterrupted {
			t.Errorf("%q: %+v", args, o)
		}
		if w.exists("left") {
			t.Errorf("%q left something", args)
		}
		feed.Close()
	}
}

func TestClosureVerb(t *testing.T) {
	const drvs, top = vectors + "drv-hello/drv", hello
	w := newWorld(t)
	// A closure with one byte changed, and one with two derivations missing.
	for _, dir := range []string{"changed", "missing"} {
		if err := os.CopyFS(filepath.Join(w.dir, dir), os.DirFS(drvs)); err != nil {
			t.Fatal(err)
		}
	}
	victim := filepath.Base(top)
	data, err := os.ReadFile(top)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(w.dir, "changed", victim), 0o644); err != nil {
		t.Fatal(err)
	}
	w.write("changed/"+victim, bytes.Replace(data, []byte("x86_64-linux"), []byte("x86_64-linuy"), 1))
	removed := 0
	for line := range strings.SplitSeq(w.run("derivation", "closure", top).Stdout, "\n") {
		if base := filepath.Base(line); removed < 2 && base != victim && line != "" {
			if err := os.Remove(filepath.Join(w.dir, "missing", base)); err != nil {
				t.Fatal(err)
			}
			removed++
		}
	}
	w.keep([]promise{
		{"list", []string{"derivation", "closure", top}, 0, "/gnu/store/" + victim + "\n", "every path recomputed", func(t *testing.T, o frametest.Outcome) {
			all := strings.Fields(o.Stdout)
			if all[len(all)-1] != "/gnu/store/"+victim || len(all) < 200 {
				t.Errorf("%d derivations, the last is %s", len(all), all[len(all)-1])
			}
		}},
		{"json", []string{"derivation", "closure", "--json", "--fixed", "--store", drvs, "/gnu/store/" + victim}, 0, `"fixed_output":true`, "", func(t *testing.T, o frametest.Outcome) {
			for _, v := range lines(t, o) {
				out, _ := v["outputs"].([]any)
				if v["type"] != "derivation" || v["fixed_output"] != true || len(out) != 1 {
					t.Errorf("%v", v)
				}
			}
		}},
		{"sources", []string{"derivation", "closure", "--sources", top}, 0, "-builder\n", "", nil},
		{"both", []string{"derivation", "closure", "--sources", "--fixed", top}, 2, "", "exclude", nil},
		{"no name", []string{"derivation", "closure", "$D/plain"}, 3, "", "drv-name", nil},
		{"changed", []string{"derivation", "closure", "$D/changed/" + victim}, 3, "", "drv-", nil},
		{"two missing", []string{"derivation", "closure", "--json", "$D/missing/" + victim}, 3, `"refused"`, "2 reasons", func(t *testing.T, o frametest.Outcome) {
			if v := lines(t, o); len(v) != 1 || len(v[0]["reasons"].([]any)) != 2 {
				t.Errorf("%v", v)
			}
		}},
	})
}

func TestDerivationVerbs(t *testing.T) {
	const drvs = vectors + "drv-hello/drv"
	w := newWorld(t)
	data, err := os.ReadFile(hello)
	if err != nil {
		t.Fatal(err)
	}
	w.stdin = data
	base := filepath.Base(hello)
	for _, dir := range []string{"all", "alone", "other"} {
		if err := os.Mkdir(filepath.Join(w.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(w.dir, "changed"), os.DirFS(drvs)); err != nil {
		t.Fatal(err)
	}
	// One of many outputs, one of one: what is wrong with each of them is told.
	const other = "55frf22sjqn5jfrg46za8vbc9fpckyqk-make-4.4.1.drv"
	for _, name := range []string{base, other} {
		was, err := os.ReadFile(filepath.Join(drvs, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(w.dir, "changed", name), 0o644); err != nil {
			t.Fatal(err)
		}
		w.write("changed/"+name, bytes.Replace(was, []byte("x86_64-linux"), []byte("x86_64-linuy"), 1))
	}
	w.write("alone/"+base, data)
	w.write("other/"+base, append(bytes.Clone(data), ' '))
	w.write("bytes", bytes.Replace(data, []byte("C.UTF-8"), []byte("C.UTF-\xff"), 1))
	w.keep([]promise{
		{"show", []string{"derivation", "show", hello}, 0, "output   out /gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2\n", "", nil},
		{"show stdin", []string{"derivation", "show", "--json", "-"}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			v := lines(t, o)
			if len(v) != 1 || len(v[0]["inputs"].([]any)) != 23 || v[0]["env"].(map[string]any)["LC_CTYPE"] != "C.UTF-8" || v[0]["fixed_output"] != false || v[0]["lossy"] != nil {
				t.Errorf("%v", v)
			}
		}},
		{"show bytes", []string{"derivation", "show", "--json", "$D/bytes"}, 0, `"lossy":true`, "", nil},
		{"show bytes as text", []string{"derivation", "show", "$D/bytes"}, 0, `env      "LC_CTYPE"="C.UTF-\xff"`, "", nil},
		{"show no derivation", []string{"derivation", "show", "$D/plain"}, 3, "", "drv-syntax", nil},
		{"show a directory", []string{"derivation", "show", "$D/tree"}, 1, "", "is a directory", nil},
		{"show without end", []string{"derivation", "show", "/dev/zero"}, 1, "", "larger than", nil},
		{"verify a directory", []string{"derivation", "verify", drvs}, 0, "228 derivations, 253 outputs, 108 fixed: every path recomputed and equal\n", "", nil},
		{"verify a file", []string{"derivation", "verify", "--json", hello}, 0, `{"closure":228,"derivations":1,"fixed":0,"outputs":1}`, "", nil},
		{"verify both", []string{"derivation", "verify", hello, drvs}, 0, "228 derivations", "", nil},
		{"verify a copy elsewhere", []string{"derivation", "verify", "$D/alone", drvs}, 0, "228 derivations", "", nil},
		{"verify two of one name", []string{"derivation", "verify", drvs, "$D/other"}, 3, "", "drv-mismatch", nil},
		{"verify what is not beside", []string{"derivation", "verify", "$D/alone"}, 3, "", "23 reasons", nil},
		{"verify what is changed", []string{"derivation", "verify", "--json", "$D/changed"}, 3, "*", "", func(t *testing.T, o frametest.Outcome) {
			var codes []string
			for _, r := range lines(t, o)[0]["reasons"].([]any) {
				r := r.(map[string]any)
				if !strings.HasPrefix(r["subject"].(string), filepath.Join(w.dir, "changed")) {
					t.Errorf("%v", r)
				}
				codes = append(codes, r["code"].(string))
			}
			if want := []string{"drv-mismatch", "drv-mismatch", "drv-output-path", "drv-environment", "drv-output-path", "drv-environment", "drv-output-path", "drv-environment"}; !slices.Equal(codes, want) {
				t.Errorf("codes %q, want %q", codes, want)
			}
		}},
		{"verify no derivations", []string{"derivation", "verify", "$D/tree"}, 1, "", "no derivation found", nil},
		{"verify another file", []string{"derivation", "verify", "$D/plain"}, 3, "", "drv-name", nil},
		{"verify what is absent", []string{"derivation", "verify", "$D/absent"}, 1, "", "absent", nil},
		{"verify nothing", []string{"derivation", "verify"}, 2, "", "requires at least 1", nil},
	})
}

func TestKeyVerbs(t *testing.T) {
	const in = vectors + "archives/"
	w := newWorld(t)
	public, err := os.ReadFile(in + "authorised.pub")
	if err != nil {
		t.Fatal(err)
	}
	k, err := signature.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	w.write("dev.pub", []byte("narinfo dev "+k.Hex()+"\n"))
	carol, err := trust.GenerateKey(strings.NewReader(strings.Repeat("c", 32)), "carol/manifest")
	if err != nil {
		t.Fatal(err)
	}
	w.write("carol.pub", []byte(carol.RootKey().Line()+"\n"))
	w.keep([]promise{
		{"a track's", []string{"key", "show", "$D/dev.pub"}, 0, "narinfo     dev              " + k.Hex() + "\n", "", nil},
		{"a track's as Guix has it", []string{"key", "show", "--guix", "$D/dev.pub"}, 0, string(public), "", nil},
		{"Guix's", []string{"key", "show", in + "authorised.pub"}, 0, k.Hex(), "", nil},
		{"Guix's json", []string{"key", "show", "--json", in + "rsa.pub"}, 0, `"public":"rsa-`, "", nil},
		{"a person's", []string{"key", "show", "--guix", "$D/carol.pub"}, 2, "", "only keys of tracks", nil},
		{"a secret one", []string{"key", "show", in + "authorised.TEST-ONLY.sec"}, 1, "", "malformed-key", func(t *testing.T, o frametest.Outcome) {
			if strings.Contains(o.Stderr, "(d ") {
				t.Error("it shows the secret")
			}
		}},
		{"none", []string{"key", "show", "$D/plain"}, 1, "", "want one line", nil},
	})
}

func TestNarinfoVerb(t *testing.T) {
	const in = vectors + "narinfo/"
	const good, item = in + "default-gzip.narinfo", "m1ifsjhqxcvzb115va975vn4vc5v4f1r-v-simple"
	w := newWorld(t)
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	w.stdin = data
	k, err := os.ReadFile(in + "signing-key.pub")
	if err != nil {
		t.Fatal(err)
	}
	public, err := signature.ParsePublicKey(k)
	if err != nil {
		t.Fatal(err)
	}
	w.write("line.pub", []byte("narinfo dev "+public.Hex()+"\n"))
	w.write("wrong.pub", []byte("manifest carol "+public.Hex()+"\n"))
	w.write("acl", []byte("(acl (entry))"))
	// Signed by the right key, the lines in another order than guix publish's.
	sec, err := os.ReadFile(vectors + "archives/authorised.TEST-ONLY.sec")
	if err != nil {
		t.Fatal(err)
	}
	secret, err := signature.ParseSecretKey(sec)
	if err != nil {
		t.Fatal(err)
	}
	signed, rest, _ := strings.Cut(string(data), "Signature: ")
	_, rest, _ = strings.Cut(rest, "\n")
	l := strings.SplitAfter(signed, "\n")
	l[1], l[2] = l[2], l[1]
	signed = strings.Join(l, "")
	text, err := signature.Sign(secret, sha256.Sum256([]byte(signed)))
	if err != nil {
		t.Fatal(err)
	}
	w.write("unordered", []byte(signed+"Signature: 1;x;"+base64.StdEncoding.EncodeToString(text)+"\n"+rest))
	w.keep([]promise{
		{"verify", []string{"narinfo", "verify", "--acl", in + "acl", good}, 0, "/gnu/store/" + item + ": good signature by " + public.Hex()[:16], "", nil},
		{"verify with a key", []string{"narinfo", "verify", "--acl", in + "signing-key.pub", good}, 0, "good signature", "", nil},
		{"verify with a line", []string{"narinfo", "verify", "--acl", "$D/line.pub", good}, 0, "good signature", "", nil},
		{"verify stdin", []string{"narinfo", "verify", "--json", "--acl", in + "acl", "--item", item, "-"}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			v := lines(t, o)
			if len(v) != 1 || v[0]["store_path"] != "/gnu/store/"+item || v[0]["nar_size"] != 1664.0 || v[0]["key"] != public.Hex() || len(v[0]["files"].([]any)) != 1 || len(v[0]["references"].([]any)) != 1 {
				t.Errorf("%v", v)
			}
		}},
		{"verify strictly", []string{"narinfo", "verify", "--strict", "--acl", in + "acl", good}, 0, "good signature", "", nil},
		{"another order", []string{"narinfo", "verify", "--acl", in + "acl", "$D/unordered"}, 0, "good signature", "", nil},
		{"another order, strictly", []string{"narinfo", "verify", "--strict", "--acl", in + "acl", "$D/unordered"}, 3, "", "narinfo-spelling", nil},
		{"another item", []string{"narinfo", "verify", "--acl", in + "acl", "--item", strings.Repeat("0", 32), good}, 3, "", "narinfo-other-item", nil},
		{"the item by its path", []string{"narinfo", "verify", "--acl", in + "acl", "--item", "/gnu/store/" + item, good}, 0, "good", "", nil},
		{"no item", []string{"narinfo", "verify", "--acl", in + "acl", "--item", "x", good}, 2, "", "path-length", nil},
		{"tampered", []string{"narinfo", "verify", "--json", "--acl", in + "acl", in + "variants/3cvmj9cp64q1dizkl41xqv2rr8xxrcpa.narinfo"}, 3, `"code":"invalid-signature"`, "", nil},
		{"a stranger's", []string{"narinfo", "verify", "--acl", vectors + "archives/unauthorised.pub", good}, 3, "", "unauthorised-key", nil},
		{"no narinfo", []string{"narinfo", "verify", "--acl", in + "acl", "$D/plain"}, 3, "", "malformed-narinfo", nil},
		{"too long", []string{"narinfo", "verify", "--acl", in + "acl", "/dev/zero"}, 1, "", "larger than", nil},
		{"without list", []string{"narinfo", "verify", good}, 2, "", "--acl", nil},
		{"a list that is none", []string{"narinfo", "verify", "--acl", "$D/acl", good}, 1, "", "malformed-acl", nil},
		{"a key that is none", []string{"narinfo", "verify", "--acl", "$D/wrong.pub", good}, 1, "", "hint: --acl wants", nil},
		{"a directory", []string{"narinfo", "verify", "--acl", in + "acl", "$D/tree"}, 1, "", "is a directory", nil},
	})
}

func TestArchiveVerbs(t *testing.T) {
	const in = vectors + "archives/"
	w := newWorld(t)
	// Two items by two keys, neither believed, behind one that is.
	stream := []byte(nil)
	for i, name := range []string{"authorised", "unauthorised", "unauthorised"} {
		sec, err := os.ReadFile(in + name + ".TEST-ONLY.sec")
		if err != nil {
			t.Fatal(err)
		}
		k, err := signature.ParseSecretKey(sec)
		if err != nil {
			t.Fatal(err)
		}
		b := exportOf(t, k, items[i])
		stream = append(stream[:max(len(stream)-8, 0)], b...)
	}
	w.write("mixed.nar", stream)
	good, err := os.ReadFile(in + "ok-closure.nar")
	if err != nil {
		t.Fatal(err)
	}
	w.stdin = good
	w.keep([]promise{
		{"verify", []string{"archive", "verify", "--acl", in + "acl", in + "ok-closure.nar"}, 0, "good signature by", "all signed", nil},
		{"verify stdin with a key", []string{"archive", "verify", "--acl", in + "authorised.pub", "-"}, 0, "good signature by", "", nil},
		{"verify json", []string{"archive", "verify", "--json", "--acl", in + "acl", in + "ok-closure.nar"}, 0, `"type":"item"`, "", func(t *testing.T, o frametest.Outcome) {
			for _, v := range lines(t, o) {
				if v["key"] == "" || v["nar_sha256"] == "" || v["path"] == "" {
					t.Errorf("%v", v)
				}
			}
		}},
		{"verify without list", []string{"archive", "verify", in + "ok-closure.nar"}, 2, "", "--acl", nil},
		{"verify strictly", []string{"archive", "verify", "--strict", "--acl", in + "acl", in + "ok-closure.nar"}, 0, "good signature by", "", nil},
		{"verify another spelling", []string{"archive", "verify", "--acl", in + "acl", in + "sig-lowerhex.nar"}, 0, "good signature by", "", nil},
		{"verify another spelling strictly", []string{"archive", "verify", "--strict", "--acl", in + "acl", in + "sig-lowerhex.nar"}, 3, "", "signature-spelling", nil},
		{"verify RSA", []string{"archive", "verify", "--acl", in + "acl-with-rsa", in + "rsa-signed.nar"}, 0, "good signature by rsa-", "", nil},
		{"verify the dangerous one", []string{"archive", "verify", "--acl", in + "acl", vectors + "archives-danger/DANGER-path-dotdot.nar.do-not-import"}, 3, "", "archive-path", nil},
		{"verify a directory", []string{"archive", "verify", "--acl", in + "acl", "$D/tree"}, 1, "", "is a directory", nil},
		{"strict about nothing", []string{"archive", "import", "--strict", in + "ok-closure.nar"}, 2, "", "--acl", nil},
		{"verify lists all", []string{"archive", "verify", "--acl", in + "acl", "$D/mixed.nar"}, 3, "", "2 reasons", func(t *testing.T, o frametest.Outcome) {
			if strings.Count(o.Stderr, ": unauthorised-key: ") != 2 {
				t.Error(o.Stderr)
			}
		}},
		{"verify tampered", []string{"archive", "verify", "--acl", in + "acl", in + "content-tampered.nar"}, 3, "", "hash-mismatch", nil},
		{"verify malformed", []string{"archive", "verify", "--acl", in + "acl", in + "frame-mark2.nar"}, 3, "", "archive-mark", nil},
		{"verify what is absent", []string{"archive", "verify", "--acl", in + "acl", "$D/absent"}, 1, "", "absent", nil},
		{"list", []string{"archive", "list", "$D/mixed.nar"}, 0, items[1].path, "", nil},
		{"list json", []string{"archive", "list", "--json", "$D/mixed.nar"}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			v := lines(t, o)
			if len(v) != 3 || v[2]["deriver"] != items[2].deriver || len(v[2]["references"].([]any)) != 2 || len(v[0]["references"].([]any)) != 0 {
				t.Errorf("%v", v)
			}
		}},
		{"list trailing", []string{"archive", "list", in + "frame-trailing.nar"}, 3, "*", "archive-trailing", nil},
	})
}

// An item of the daemon's store.
type stored struct {
	path, content string
	refs          []string
	deriver       string
}

var items = []stored{
	{"/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b", "b", nil, ""},
	{"/gnu/store/91srfn47sm9135lkrw596p9k7f3s5kyz-a.drv", "Derive", []string{"/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b"}, ""},
	{"/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a", "a", []string{"/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a", "/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b"},
		"/gnu/store/91srfn47sm9135lkrw596p9k7f3s5kyz-a.drv"},
}

func (s stored) nar() []byte {
	var b bytes.Buffer
	nar.WriteFile(&b, int64(len(s.content)), false, strings.NewReader(s.content))
	return b.Bytes()
}

func exportOf(t testing.TB, k signature.SecretKey, s stored) []byte {
	t.Helper()
	parse := func(s string) storepath.Path {
		p, err := storepath.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	item := &archive.Item{Path: parse(s.path)}
	for _, r := range s.refs {
		item.References = append(item.References, parse(r))
	}
	if s.deriver != "" {
		item.Deriver = parse(s.deriver)
	}
	var b bytes.Buffer
	w := archive.NewWriter(&b, k)
	if err := errors.Join(w.Add(item, bytes.NewReader(s.nar())), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A keeper is a guix-daemon that knows what these verbs ask. Package daemon has a whole one in its tests.
type keeper struct {
	t        *testing.T
	key      signature.SecretKey
	mu       sync.Mutex
	imported []byte // all that came in
}

func (k *keeper) listen(dir string) string {
	name := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", name)
	if err != nil {
		k.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				k.serve(c)
			})
		}
	})
	k.t.Cleanup(func() { l.Close(); wg.Wait() })
	return name
}

func (k *keeper) serve(c net.Conn) {
	failed := false
	num := func() (n uint64) {
		failed = failed || binary.Read(c, binary.LittleEndian, &n) != nil
		return n
	}
	str := func() string {
		n := num()
		if failed || n > 1<<20 {
			failed = true
			return ""
		}
		b := make([]byte, (n+7)&^7)
		_, err := io.ReadFull(c, b)
		failed = failed || err != nil
		return string(b[:n])
	}
	send := func(parts ...any) {
		var b []byte
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				b = binary.LittleEndian.AppendUint64(b, uint64(p))
			case string:
				b = binary.LittleEndian.AppendUint64(b, uint64(len(p)))
				b = append(append(b, p...), make([]byte, -len(p)&7)...)
			case []string:
				b = binary.LittleEndian.AppendUint64(b, uint64(len(p)))
				for _, s := range p {
					b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
					b = append(append(b, s...), make([]byte, -len(s)&7)...)
				}
			}
		}
		_, err := c.Write(b)
		failed = failed || err != nil
	}
	const last, bad, read, write = 0x616c7473, 0x63787470, 0x64617461, 0x64617416
	num()
	send(0x6478696f, 0x164)
	num()
	num()
	num()
	send(last)
	for !failed {
		op := num()
		if failed {
			return
		}
		if op == 27 {
			k.mu.Lock()
			for {
				send(read, 100)
				s := str()
				k.imported = append(k.imported, s...)
				if s == "" || failed {
					send(bad, "unexpected end of input", 1)
					break
				}
				if paths, ok := k.whole(); ok {
					send(last, paths)
					break
				}
			}
			k.mu.Unlock()
			continue
		}
		arg := str()
		i := slices.IndexFunc(items, func(s stored) bool { return s.path == arg || op == 29 && strings.HasPrefix(s.path, "/gnu/store/"+arg) })
		if op == 16 {
			num()
		}
		if i < 0 && op != 1 && op != 29 {
			send(bad, "path `"+arg+"' is not valid", 1)
			continue
		}
		switch op {
		case 1:
			valid := 0
			if i >= 0 {
				valid = 1
			}
			send(last, valid)
		case 5:
			send(last, items[i].refs)
		case 6:
			var all []string
			for _, s := range items {
				if slices.Contains(s.refs, arg) {
					all = append(all, s.path)
				}
			}
			slices.Sort(all)
			send(last, all)
		case 16:
			b := exportOf(k.t, k.key, items[i])
			send(write, string(b[8:len(b)-8]), last, 1)
		case 26:
			sum := sha256.Sum256(items[i].nar())
			send(last, items[i].deriver, hex.EncodeToString(sum[:]), items[i].refs, 1700000000, len(items[i].nar()))
		case 29:
			found := ""
			if i >= 0 {
				found = items[i].path
			}
			send(last, found)
		case 33:
			all := []string{}
			if items[i].deriver != "" {
				all = append(all, items[i].deriver)
			}
			send(last, all)
		default:
			k.t.Errorf("operation %d", op)
			return
		}
	}
}

// whole tells whether all of a stream has come in, and of what.
func (k *keeper) whole() (paths []string, ok bool) {
	z := archive.NewReader(bytes.NewReader(k.imported))
	paths = []string{}
	for {
		if _, err := z.Next(); err == io.EOF {
			return paths, true
		} else if err != nil {
			return nil, false
		}
		item, err := z.Item()
		if err != nil {
			return nil, false
		}
		paths = append(paths, item.Path.String())
	}
}

func TestStoreVerbs(t *testing.T) {
	key, err := signature.GenerateKey(rand.NewChaCha8([32]byte{3}))
	if err != nil {
		t.Fatal(err)
	}
	k := &keeper{t: t, key: key}
	w := newWorld(t)
	w.env["GUIX_DAEMON_SOCKET"] = "unix://" + k.listen(w.dir)
	w.write("key.pub", []byte(key.Public().String()))
	b, drv, a := items[0].path, items[1].path, items[2].path
	const absent = "/gnu/store/z1ifsjhqxcvzb115va975vn4vc5v4f1r-c"
	n := len(exportOf(t, key, items[0]))
	whole := append(exportOf(t, key, items[0])[:n-8], exportOf(t, key, items[2])...)
	w.write("good.nar", whole)
	str := func(s string) []byte {
		b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(s))), s...)
		return append(b, make([]byte, -len(s)&7)...)
	}
	w.write("dots.nar", bytes.Replace(whole, str(b), str("/gnu/store/.."), 1))
	w.keep([]promise{
		{"path", []string{"store", "path", a, strings.TrimPrefix(b, "/gnu/store/"), drv[11:43]}, 0, a + "\n" + b + "\n" + drv + "\n", "", nil},
		{"path json", []string{"store", "path", "--json", a}, 0, `{"path":"` + a + `","type":"item"}`, "", nil},
		{"path of what is absent", []string{"store", "path", absent, absent[11:43], a}, 1, a + "\n", "not valid", func(t *testing.T, o frametest.Outcome) {
			if strings.Count(o.Stderr, "not valid") != 2 {
				t.Error(o.Stderr)
			}
		}},
		{"path of nonsense", []string{"store", "path", "/gnu/store/.."}, 2, "", "path-", nil},
		{"info", []string{"store", "info", a}, 0, "reference  " + b + "\n", "", func(t *testing.T, o frametest.Outcome) {
			for _, want := range []string{"deriver    " + drv, "registered 2023-11-14T22:13:20Z", "hash       sha256:"} {
				if !strings.Contains(o.Stdout, want) {
					t.Errorf("no %q in %s", want, o.Stdout)
				}
			}
		}},
		{"info json", []string{"store", "info", "--json", "--reverse", a, b}, 0, "*", "", func(t *testing.T, o frametest.Outcome) {
			v := lines(t, o)
			sum := sha256.Sum256(items[2].nar())
			if len(v) != 2 || v[0]["nar_sha256"] != hex.EncodeToString(sum[:]) || len(v[1]["references"].([]any)) != 0 || len(v[1]["referrers"].([]any)) != 2 || v[0]["derivers"].([]any)[0] != drv {
				t.Errorf("%v", v)
			}
		}},
		{"info of what is absent", []string{"store", "info", absent, a}, 1, "path       " + a, absent + ": the item is not valid", nil},
		{"export", []string{"archive", "export", "-r", "-o", "$D/out.nar", a, a}, 0, "2 items", "", func(t *testing.T, _ frametest.Outcome) {
			got, err := os.ReadFile(filepath.Join(w.dir, "out.nar"))
			if err != nil || !bytes.Equal(got, whole) {
				t.Errorf("%d other bytes, not %d (%v)", len(got), len(whole), err)
			}
		}},
		{"export to stdout", []string{"archive", "export", b, a, b}, 0, string(whole), "2 items", nil},
		{"export json", []string{"archive", "export", "--json", "-o", "$D/json.nar", b}, 0, `"items":["` + b + `"]`, "", nil},
		{"export what is absent", []string{"archive", "export", "-o", "$D/none.nar", b, absent}, 1, "", "not valid", func(t *testing.T, _ frametest.Outcome) {
			if w.exists("none.nar") {
				t.Error("a file was left behind")
			}
		}},
		{"import a stranger's", []string{"archive", "import", "--acl", vectors + "archives/acl", "$D/good.nar"}, 3, "", "unauthorised-key", func(t *testing.T, _ frametest.Outcome) {
			if bytes.Contains(k.taken(), []byte(b)) {
				t.Error("the daemon has heard of the item")
			}
		}},
		{"import dots", []string{"archive", "import", "$D/dots.nar"}, 3, "", "archive-path", func(t *testing.T, _ frametest.Outcome) {
			if bytes.Contains(k.taken(), []byte("/gnu/store")) {
				t.Error("the daemon has heard of the path")
			}
		}},
		{"import", []string{"archive", "import", "--acl", "$D/key.pub", "$D/good.nar"}, 0, b + "\n" + a + "\n", "", func(t *testing.T, _ frametest.Outcome) {
			if !bytes.Equal(k.taken(), whole) {
				t.Error("other bytes came in")
			}
		}},
		{"import json", []string{"archive", "import", "--json", "$D/good.nar"}, 0, `"path":"` + a + `"`, "", func(*testing.T, frametest.Outcome) { k.taken() }},
		{"import nothing", []string{"archive", "import", "$D/absent"}, 1, "", "absent", nil},
	})
	for socket, want := range map[string]string{"/nowhere/socket": "is guix-daemon running?", "guix://host": "want the absolute name", "ssh://host": "want the absolute name", "relative": "want the absolute name"} {
		w.env["GUIX_DAEMON_SOCKET"] = socket
		if o := w.run("store", "path", a); o.Code == 0 || !strings.Contains(o.Stderr, want) {
			t.Errorf("%s: %+v", socket, o)
		}
	}
}

// taken returns what came in since the last time.
func (k *keeper) taken() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	b := k.imported
	k.imported = nil
	return b
}
