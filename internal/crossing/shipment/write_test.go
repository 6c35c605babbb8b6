package shipment

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/internal/trust"
)

// writeDir names, in the environment of a child process, the volume that it is to write; see TestWriteKilled.
const writeDir = "SALLYPORT_TEST_WRITE_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writeDir); dir != "" {
		writeAndSay(dir)
		return
	}
	os.Exit(m.Run())
}

// many is a shipment of items enough to be killed between and within, signed.
func many(t testing.TB) *delivery {
	d := &delivery{t: t, contents: map[trust.Digest][]byte{}, files: map[string][]byte{}}
	d.manifest = &Manifest{Enclave: "demo", Number: 1, Date: epoch}
	for i := range 24 {
		content := make([]byte, 1000<<(i%8))
		(&stream{name: fmt.Sprint("item ", i)}).Read(content)
		d.add(trust.KindSource, base(fmt.Sprint("item-", i)), content)
	}
	var err error
	if d.files[fileManifest], err = d.manifest.Sign(testKey(t, "carol/manifest")); err != nil {
		t.Fatal(err)
	}
	return d
}

// writeAndSay is the child: it writes the volume and says so at every step.
func writeAndSay(dir string) {
	d := many(new(testing.T))
	err := Write(context.Background(), dir, d.manifest, d.files[fileManifest], d.open, testKey(d.t, "carol/sums"), func(int64) { fmt.Println("step") })
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// However a run is killed: the volume has its name and is whole, or it has none and the next run writes it.
func TestWriteKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := openDemo(t)
	d := many(t)
	slip := d.slip()
	parent := t.TempDir()
	dir := filepath.Join(parent, "volume")
	random := rand.New(rand.NewPCG(1, 2))
	left, whole := 0, 0
	for round := range 10 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), writeDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// A random step out of some thirty, and a moment within it.
		steps := bufio.NewScanner(out)
		for n := random.IntN(36); n > 0 && steps.Scan(); n-- {
			if steps.Text() != "step" {
				t.Fatal(steps.Text())
			}
		}
		time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		io.Copy(io.Discard, out)
		cmd.Wait()
		if _, err := os.Lstat(dir); err == nil {
			whole++
			if _, err := verify(t, dir, Options{Root: root, Slip: slip}); err != nil {
				t.Fatalf("round %d: a volume that has its name is not whole: %v", round, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			continue
		}
		left++
		if round%3 == 0 { // else the next child finds what this one left
			if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), nil); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			if _, err := verify(t, dir, Options{Root: root, Slip: slip}); err != nil {
				t.Fatalf("round %d: after another run: %v", round, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d runs were killed on the way, %d had ended", left, whole)
	if left < 3 {
		t.Error("hardly a run was killed on the way: nothing is proved")
	}
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, dir, Options{Root: root, Slip: slip}); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, parent, "volume")
}

func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, e := range entries {
		have = append(have, e.Name())
	}
	if !slices.Equal(have, names) {
		t.Errorf("%s has %v, want %v", dir, have, names)
	}
}

// The files are those of the spec, byte for byte, and there is nothing else.
func TestWrite(t *testing.T) {
	d := newDelivery(t)
	dir := filepath.Join(t.TempDir(), "volume")
	var wrote, size int64
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), func(n int64) { wrote += n }); err != nil {
		t.Fatal(err)
	}
	have := readTree(t, dir)
	if len(have) != 6+3 {
		t.Errorf("%d files, want 9: two items share one", len(have))
	}
	for p, data := range d.files {
		if size += int64(len(data)); !bytes.Equal(data, have[p]) {
			t.Errorf("%s is\n%s\nwant\n%s", p, have[p], data)
		}
	}
	if wrote != size {
		t.Errorf("progress told of %d bytes, %d were written", wrote, size)
	}
	if _, err := verify(t, dir, Options{Root: openDemo(t), Slip: d.slip()}); err != nil {
		t.Error(err)
	}
}

func TestWriteRefuses(t *testing.T) {
	d := newDelivery(t)
	file := d.files[fileManifest]
	sums := testKey(t, "carol/sums")
	refused := func(t *testing.T, dir string, m *Manifest, file []byte, open func(trust.Item) (io.ReadCloser, error), key *trust.Key, says string) {
		t.Helper()
		err := Write(t.Context(), dir, m, file, open, key, nil)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("have %v, want an error that says %q", err, says)
		}
	}
	for name, make := range map[string]func(p string) error{
		"a volume":           func(p string) error { return os.CopyFS(p, os.DirFS(d.write())) },
		"an empty directory": func(p string) error { return os.Mkdir(p, 0o755) },
		"a file":             func(p string) error { return os.WriteFile(p, nil, 0o644) },
		"a link to nothing":  func(p string) error { return os.Symlink("/nowhere", p) },
	} {
		t.Run("name taken by "+name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "volume")
			if err := make(dir); err != nil {
				t.Fatal(err)
			}
			refused(t, dir, d.manifest, file, d.open, sums, "there already")
			refused(t, dir+"/", d.manifest, file, d.open, sums, "there already")
			wantOnly(t, parent, "volume")
		})
		t.Run("name taken meanwhile by "+name, func(t *testing.T) {
			parent := t.TempDir()
			dir := filepath.Join(parent, "volume")
			var before map[string][]byte
			open := func(it trust.Item) (io.ReadCloser, error) {
				if before == nil {
					if err := make(dir); err != nil {
						return nil, err
					}
					before = map[string][]byte{}
				}
				return d.open(it)
			}
			refused(t, dir, d.manifest, file, open, sums, "there already")
			wantOnly(t, parent, "volume")
		})
	}
	t.Run("partial name taken", func(t *testing.T) {
		for _, make := range []func(p string) error{
			func(p string) error { return os.WriteFile(p, []byte("mine"), 0o644) },
			func(p string) error { return os.Symlink(t.TempDir(), p) },
		} {
			parent := t.TempDir()
			if err := make(filepath.Join(parent, ".volume.partial")); err != nil {
				t.Fatal(err)
			}
			refused(t, filepath.Join(parent, "volume"), d.manifest, file, d.open, sums, "in the way")
			wantOnly(t, parent, ".volume.partial")
		}
	})
	boom := errors.New("boom")
	short := func(it trust.Item) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(d.contents[it.SHA256][1:])), nil
	}
	long := func(it trust.Item) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(d.contents[it.SHA256]), strings.NewReader("x"))), nil
	}
	other := func(it trust.Item) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(make([]byte, it.Size))), nil
	}
	changed := *d.manifest
	changed.Number = 3
	for _, c := range []struct {
		name string
		m    *Manifest
		file []byte
		open func(trust.Item) (io.ReadCloser, error)
		key  *trust.Key
		says string
	}{
		{"no content", d.manifest, file, func(trust.Item) (io.ReadCloser, error) { return nil, boom }, sums, "boom"},
		{"content that breaks off", d.manifest, file, short, sums, "expected"},
		{"content too long", d.manifest, file, long, sums, "more came"},
		{"other content", d.manifest, file, other, sums, "has changed"},
		{"content that cannot be read", d.manifest, file, func(trust.Item) (io.ReadCloser, error) { return io.NopCloser(&broken{boom}), nil }, sums, "boom"},
		{"another manifest", &changed, file, d.open, sums, "another text"},
		{"no manifest", d.manifest, d.manifest.Text(), d.open, sums, "manifest-note"},
		{"a key of another context", d.manifest, file, d.open, testKey(t, "carol/manifest"), "no key for sums"},
		{"a key of another collector", d.manifest, file, d.open, testKey(t, "cedric/sums"), "has not signed the manifest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := t.TempDir()
			refused(t, filepath.Join(parent, "volume"), c.m, c.file, c.open, c.key, c.says)
			wantOnly(t, parent)
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		parent := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		err := Write(ctx, filepath.Join(parent, "volume"), d.manifest, file, d.open, sums, func(int64) { cancel() })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		wantOnly(t, parent)
	})
}

type broken struct{ err error }

func (b *broken) Read(p []byte) (int, error) { return copy(p, "hel"), b.err }

// What a dead run has left is cleared away, whatever it is, and nothing of it reaches the volume.
func TestWriteAfterCrash(t *testing.T) {
	d := newDelivery(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "deep", "volume") // "deep" is made
	temp := filepath.Join(parent, "deep", ".volume.partial")
	if err := os.MkdirAll(filepath.Join(temp, "items", "zz"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"manifest", "stray", "items/zz/stray"} {
		if err := os.WriteFile(filepath.Join(temp, p), []byte("old"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(temp, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, dir, Options{Root: openDemo(t), Slip: d.slip()}); err != nil {
		t.Error(err)
	}
	wantOnly(t, filepath.Dir(dir), "volume")
}

// Two runs for one name never mix: the second is told of the first.
func TestWriteAtOnce(t *testing.T) {
	d := newDelivery(t)
	sums := testKey(t, "carol/sums")
	dir := filepath.Join(t.TempDir(), "volume")
	var second error
	open := func(it trust.Item) (io.ReadCloser, error) {
		if second == nil {
			second = Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, sums, nil)
		}
		return d.open(it)
	}
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], open, sums, nil); err != nil {
		t.Fatal(err)
	}
	if second == nil || !strings.Contains(second.Error(), "another run") {
		t.Errorf("the second run: %v", second)
	}
	if _, err := verify(t, dir, Options{Root: openDemo(t), Slip: d.slip()}); err != nil {
		t.Error(err)
	}
	// Many at once: one wins, and what it made is whole.
	dir = filepath.Join(t.TempDir(), "volume")
	var won atomic.Int32
	done := make(chan error)
	for range 6 {
		go func() {
			err := Write(context.Background(), dir, d.manifest, d.files[fileManifest], d.open, sums, nil)
			if err == nil {
				won.Add(1)
			}
			done <- err
		}()
	}
	for range 6 {
		if err := <-done; err != nil && !strings.Contains(err.Error(), "another run") && !strings.Contains(err.Error(), "there already") {
			t.Error(err)
		}
	}
	if won.Load() != 1 {
		t.Errorf("%d of 6 runs made the one volume", won.Load())
	}
	if _, err := verify(t, dir, Options{Root: openDemo(t), Slip: d.slip()}); err != nil {
		t.Error(err)
	}
	wantOnly(t, filepath.Dir(dir), "volume")
}

// What README.txt says is true: with coreutils and minisign alone a person accepts the volume, and refuses one in which a bit was turned.
func TestReadme(t *testing.T) {
	d := newDelivery(t)
	comment := trust.SumsComment("demo", 2)
	var commands []string
	for line := range strings.Lines(string(d.files[fileReadme])) {
		line = strings.TrimSpace(line)
		for _, program := range []string{"sha256sum ", "sha512sum ", "minisign "} {
			if strings.HasPrefix(line, program) {
				commands = append(commands, strings.Replace(line, "KEY-FROM-PAPER", testKey(t, "carol/sums").Public(), 1))
			}
		}
	}
	if len(commands) != 5 {
		t.Fatalf("README.txt has the commands %q, want 5", commands)
	}
	dir := d.write()
	run := func(command string) (string, error) {
		cmd := exec.Command("sh", "-c", "LC_ALL=C "+command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	items := []string{fileReadme, fileManifest, d.item(0), d.item(len(d.manifest.Items) - 1)}
	for _, c := range []struct {
		command string // begins with this
		covers  []string
	}{
		{"sha256sum manifest", nil},
		{"sha256sum --quiet --check", append([]string{fileSums256}, items...)},
		{"sha512sum --quiet --check", append([]string{fileSums512}, items...)},
		{"minisign -VHm SHA256SUMS", []string{fileSums256, fileSums256 + signatureTail}},
		{"minisign -VHm SHA512SUMS", []string{fileSums512, fileSums512 + signatureTail}},
	} {
		program, _, _ := strings.Cut(c.command, " ")
		t.Run(c.command, func(t *testing.T) {
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("SKIPPED: the program %s is not installed; that people can check a volume with it stays unproved here", program)
			}
			n := slices.IndexFunc(commands, func(s string) bool { return strings.HasPrefix(s, c.command) })
			if n < 0 {
				t.Fatalf("README.txt does not say %s", c.command)
			}
			out, err := run(commands[n])
			if err != nil {
				t.Fatalf("%s: %v\n%s", commands[n], err, out)
			}
			switch {
			case c.covers == nil && out != d.slip().Manifest.String()+"  manifest\n":
				t.Errorf("not the slip's digest: %s", out)
			case program == "minisign" && !strings.Contains(out, "Trusted comment: "+comment):
				t.Errorf("the trusted comment is not printed:\n%s", out)
			case strings.HasPrefix(program, "sha") && c.covers != nil && out != "":
				t.Errorf("quiet said %s", out)
			}
			for _, p := range c.covers {
				path := filepath.Join(dir, p)
				at := len(d.files[p]) / 2
				turned := bytes.Clone(d.files[p])
				turned[at] ^= 1
				write := func(data []byte) {
					if err := os.WriteFile(path, data, 0o644); err != nil {
						t.Fatal(err)
					}
				}
				write(turned)
				if out, err := run(commands[n]); err == nil {
					t.Errorf("%s: accepted with byte %d of %s turned\n%s", commands[n], at, p, out)
				}
				write(d.files[p])
			}
		})
	}
}

// The modes let everybody read a volume, and nothing in it is a program.
func TestWriteModes(t *testing.T) {
	d := newDelivery(t)
	dir := filepath.Join(t.TempDir(), "volume")
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), nil); err != nil {
		t.Fatal(err)
	}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil && !e.IsDir() && st.Mode()&0o111 != 0 {
			t.Errorf("%s has mode %s", p, st.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
