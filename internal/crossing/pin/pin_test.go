package pin_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/nar"
	"sallyport/guix/scheme"
	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/trust"
)

var world = sync.OnceValues(func() (*channeltest.World, error) { return channeltest.NewWorld(rand.Reader) })

func find(t testing.TB) *gitrun.Git {
	t.Helper()
	g, err := gitrun.Find(context.Background(), os.Getenv("PATH"))
	if err != nil && strings.Contains(err.Error(), "git is missing") {
		t.Skip("SKIPPED, NOT TESTED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// gitDo runs git on repositories that tests made.
func gitDo(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null"}
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// A bench is a channel that grows, in a repository on disk.
type bench struct {
	g       *gitrun.Git
	dir     string // the repository
	ends    []git.ID
	history channeltest.History
	keyring git.ID
	r       *authenticate.Repository
}

func newBench(t testing.TB) *bench {
	t.Helper()
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{g: find(t), dir: filepath.Join(t.TempDir(), "channel.git")}
	b.ends, b.history = channeltest.Growing(w, 12)
	b.keyring = b.history.Refs["refs/heads/keyring"]
	if err := b.history.Write(b.dir); err != nil {
		t.Fatal(err)
	}
	if b.r, err = authenticate.Open(b.dir, authenticate.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.r.Close() })
	return b
}

// pin makes one; its nar's hash is anything.
func (b *bench) pin(commit, basis git.ID) *pin.Pin {
	return &pin.Pin{Channel: "guix", URL: "https://git.example.org/guix.git", Branch: "master", Introduction: b.history.Introduction, Signer: b.history.Signer,
		Keyring: b.keyring, Commit: commit, NarHash: trust.Sum([]byte("nar")), NarSize: 1000, Basis: basis}
}

func (b *bench) create(t testing.TB, p *pin.Pin, basisKeyring git.ID) []byte {
	t.Helper()
	var item bytes.Buffer
	tmp := t.TempDir()
	if err := pin.Create(t.Context(), b.g, b.r, tmp, p, basisKeyring, &item); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	return item.Bytes()
}

func open(t testing.TB, item []byte) (*pin.Pin, *pin.Header, []byte) {
	t.Helper()
	var pack bytes.Buffer
	p, h, err := pin.Open(bytes.NewReader(item), &pack)
	if err != nil {
		t.Fatal(err)
	}
	return p, h, pack.Bytes()
}

// authentic says whether a repository has an authentic history up to a commit.
func (b *bench) authentic(t testing.TB, dir, base string, commit, keyring git.ID) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "refs", "heads", "keyring"), []byte(keyring.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var o authenticate.Options
	if base != "" {
		o.Alternates = []string{filepath.Join(base, "objects")}
	}
	r, err := authenticate.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	report, err := r.Authenticate(t.Context(), authenticate.Request{Introduction: b.history.Introduction, Signer: b.history.Signer, End: commit.String()})
	if err != nil {
		t.Fatal(err)
	}
	if !report.OK() || report.Commits == 0 {
		t.Errorf("%d commits: %v", report.Commits, report.Refusals)
	}
	if err := r.Check(commit, nil); err != nil {
		t.Error(err)
	}
}

// TestRoundTrip: a complete item, then one with a basis, into a scratch repository beside the base, then into the base itself.
func TestRoundTrip(t *testing.T) {
	b := newBench(t)
	top := t.TempDir()
	first := b.pin(b.ends[5], git.ID{})
	p, h, pack := open(t, b.create(t, first, git.ID{}))
	if *p != *first || len(h.Prerequisites()) != 0 {
		t.Errorf("%+v %+v", p, h)
	}
	here := filepath.Join(top, "here.git")
	if err := pin.Unpack(t.Context(), b.g, here, "", bytes.NewReader(pack)); err != nil {
		t.Fatal(err)
	}
	b.authentic(t, here, "", p.Commit, p.Keyring)

	second := b.pin(b.ends[11], b.ends[5])
	p, h, pack2 := open(t, b.create(t, second, b.keyring))
	if *p != *second || !slices.Equal(h.Prerequisites(), []git.ID{b.ends[5], b.keyring}) {
		t.Errorf("%+v %+v", p, h)
	}
	for _, test := range []struct{ name, dir, base string }{
		{"scratch", filepath.Join(top, "scratch.git"), here},
		{"fill", here, ""},
		{"again", here, here},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := pin.Unpack(t.Context(), b.g, test.dir, test.base, bytes.NewReader(pack2)); err != nil {
				t.Fatal(err)
			}
			b.authentic(t, test.dir, test.base, p.Commit, p.Keyring)
			if _, err := os.Lstat(filepath.Join(test.dir, "unpack")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("left behind: %v", err)
			}
		})
	}
	// What was unpacked is what a bundle of git's would give, and git itself takes the bundle.
	bundle := filepath.Join(top, "x.bundle")
	if err := os.WriteFile(bundle, slices.Concat((&pin.Header{Branch: first.Branch, Commit: first.Commit, Keyring: first.Keyring}).Text(), pack), 0o644); err != nil {
		t.Fatal(err)
	}
	clone := filepath.Join(top, "clone")
	gitDo(t, nil, "clone", "-q", "--mirror", bundle, clone)
	if out := gitDo(t, nil, "-C", clone, "for-each-ref", "--format=%(objectname) %(refname)"); string(out) != fmt.Sprintf("%s refs/heads/keyring\n%s refs/heads/master\n", first.Keyring, first.Commit) {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile(bundle, slices.Concat(h.Text(), pack2), 0o644); err != nil {
		t.Fatal(err)
	}
	gitDo(t, nil, "-C", clone, "fetch", "-q", bundle, "+refs/heads/*:refs/heads/*")
	if out := gitDo(t, nil, "-C", clone, "rev-parse", "master"); strings.TrimSpace(string(out)) != p.Commit.String() {
		t.Errorf("%s", out)
	}
}

// TestKilled: what a run that was cut has left does no harm.
func TestKilled(t *testing.T) {
	b := newBench(t)
	_, _, pack := open(t, b.create(t, b.pin(b.ends[3], git.ID{}), git.ID{}))
	dir := filepath.Join(t.TempDir(), "x.git")
	if err := os.MkdirAll(filepath.Join(dir, "unpack", "objects", "pack"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "unpack", "objects", "pack", "tmp_pack_x"), []byte("PACK"), 0o400); err != nil {
		t.Fatal(err)
	}
	// A pack without its index: the last run was killed between the two names.
	if err := os.MkdirAll(filepath.Join(dir, "objects", "pack"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "objects", "pack", "pack-"+strings.Repeat("0", 40)+".pack"), pack, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := pin.Unpack(t.Context(), b.g, dir, "", bytes.NewReader(pack)); err != nil {
		t.Fatal(err)
	}
	b.authentic(t, dir, "", b.ends[3], b.keyring)

	// The caller goes away, and the reading fails.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := pin.Unpack(ctx, b.g, filepath.Join(t.TempDir(), "y.git"), "", bytes.NewReader(pack)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := errors.New("the disc is scratched")
	err := pin.Unpack(t.Context(), b.g, filepath.Join(t.TempDir(), "z.git"), "", io.MultiReader(bytes.NewReader(pack[:len(pack)/2]), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("reading fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// refused wants a refusal with the code, and a repository without an object.
func refused(t *testing.T, b *bench, pack []byte, base string, code string, word string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "x.git")
	err := pin.Unpack(t.Context(), b.g, dir, base, bytes.NewReader(pack))
	rs, ok := trust.AsRefusals(err)
	if !ok || !rs.Has(code) || !strings.Contains(rs.Error(), word) {
		t.Errorf("want %s with %q, got %v", code, word, err)
	}
	packs, err := os.ReadDir(filepath.Join(dir, "objects", "pack"))
	if err != nil || len(packs) != 0 {
		t.Errorf("%v %v", packs, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "unpack")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("left behind: %v", err)
	}
}

// seal puts the checksum behind a pack.
func seal(pack []byte) []byte {
	sum := sha1.Sum(pack)
	return append(slices.Clip(pack), sum[:]...)
}

// TestHostilePacks: each has one fault.
func TestHostilePacks(t *testing.T) {
	b := newBench(t)
	_, _, whole := open(t, b.create(t, b.pin(b.ends[5], git.ID{}), git.ID{}))
	_, _, thin := open(t, b.create(t, b.pin(b.ends[11], b.ends[5]), b.keyring))
	base := filepath.Join(t.TempDir(), "base.git")
	if err := pin.Unpack(t.Context(), b.g, base, "", bytes.NewReader(whole)); err != nil {
		t.Fatal(err)
	}
	packed := func(objects string, ids ...git.ID) []byte {
		var in bytes.Buffer
		for _, id := range ids {
			fmt.Fprintln(&in, id)
		}
		return gitDo(t, in.Bytes(), "-C", objects, "pack-objects", "-q", "--stdout")
	}
	t.Run("cut", func(t *testing.T) {
		for _, n := range []int{0, 5, 12, 40, len(whole) / 2, len(whole) - 20, len(whole) - 1} {
			refused(t, b, whole[:n], "", pin.CodePack, "git cannot take")
		}
	})
	t.Run("changed", func(t *testing.T) {
		for at := 15; at < len(whole); at += len(whole)/15 + 1 {
			bad := slices.Clone(whole)
			bad[at] ^= 4
			refused(t, b, bad, "", pin.CodePack, "git cannot take")
			if at < len(bad)-20 {
				refused(t, b, seal(bad[:len(bad)-20]), "", pin.CodePack, "") // with a checksum that fits
			}
		}
	})
	t.Run("goes on", func(t *testing.T) {
		for name, more := range map[string][]byte{"a byte": {0}, "a checksum": seal(slices.Clone(whole))[len(whole):], "another pack": whole, "much": make([]byte, 1<<20)} {
			t.Run(name, func(t *testing.T) {
				refused(t, b, slices.Concat(whole, more), "", pin.CodePack, "goes on")
				refused(t, b, slices.Concat(thin, more), base, pin.CodePack, "goes on")
			})
		}
	})
	t.Run("thin without its base", func(t *testing.T) {
		refused(t, b, thin, "", pin.CodePack, "git cannot take")
	})
	t.Run("thin with another base", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "other.git")
		_, _, pack := open(t, b.create(t, b.pin(b.history.Introduction, git.ID{}), git.ID{}))
		if err := pin.Unpack(t.Context(), b.g, other, "", bytes.NewReader(pack)); err != nil {
			t.Fatal(err)
		}
		refused(t, b, thin, other, pin.CodePack, "git cannot take")
	})
	t.Run("a commit without its tree", func(t *testing.T) {
		refused(t, b, packed(b.dir, b.history.Introduction), "", pin.CodePack, "git cannot take")
	})
	t.Run("a tree that git would not make", func(t *testing.T) {
		r := channeltest.NewRepo()
		file := r.Put(git.KindBlob, []byte("x\n"))
		bad := r.RawTree(channeltest.Entry{Mode: git.ModeFile, Name: ".git", ID: file})
		dir := filepath.Join(t.TempDir(), "r.git")
		if err := r.Write(dir); err != nil {
			t.Fatal(err)
		}
		refused(t, b, packed(dir, file, bad), "", pin.CodePack, "git cannot take")
	})
	t.Run("more objects announced", func(t *testing.T) {
		bad := slices.Clone(whole[:len(whole)-20])
		binary.BigEndian.PutUint32(bad[8:], binary.BigEndian.Uint32(bad[8:])+1)
		refused(t, b, seal(bad), "", pin.CodePack, "git cannot take")
	})
	t.Run("fewer objects announced", func(t *testing.T) {
		bad := slices.Clone(whole[:len(whole)-20])
		binary.BigEndian.PutUint32(bad[8:], binary.BigEndian.Uint32(bad[8:])-1)
		refused(t, b, seal(bad), "", pin.CodePack, "")
	})
	t.Run("more objects than are taken", func(t *testing.T) {
		bad := slices.Clone(whole[:len(whole)-20])
		binary.BigEndian.PutUint32(bad[8:], pin.MaxObjects+1)
		refused(t, b, seal(bad), "", pin.CodePack, "16777217 objects")
	})
	entry := func(kind byte, size uint64, between, content []byte) []byte {
		var b bytes.Buffer
		c := kind<<4 | byte(size&15)
		for size >>= 4; size > 0; size >>= 7 {
			b.WriteByte(c | 0x80)
			c = byte(size & 0x7f)
		}
		b.WriteByte(c)
		b.Write(between)
		w := zlib.NewWriter(&b)
		w.Write(content)
		w.Close()
		return b.Bytes()
	}
	t.Run("a tree of nine gigabytes announced", func(t *testing.T) {
		refused(t, b, seal(append([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01"), entry(2, 9<<30, nil, make([]byte, 1<<20))...)), "", pin.CodePack, "an object of 9663676416 bytes")
	})
	// Some kilobytes that git would make a thousand gigabytes of, one after another.
	bomb := func(copies int) []byte {
		base := make([]byte, 1<<20)
		bad := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), 2501)
		bad = append(bad, entry(3, uint64(len(base)), nil, base)...)
		for i := range 2500 {
			delta := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(base))), uint64(copies*len(base)+4))
			delta = append(delta, bytes.Repeat([]byte{0xc0, 0x10}, copies)...) // the whole of the base
			delta = append(delta, 4, byte(i), byte(i>>8), 0, 1)
			back := len(bad) - 12
			offset := []byte{byte(back & 0x7f)}
			for back >>= 7; back > 0; back >>= 7 {
				back--
				offset = append([]byte{0x80 | byte(back&0x7f)}, offset...)
			}
			bad = append(bad, entry(6, uint64(len(delta)), offset, delta)...)
		}
		return seal(bad)
	}
	t.Run("deltas that make a thousand gigabytes", func(t *testing.T) {
		start := time.Now()
		refused(t, b, bomb(400), "", pin.CodePack, "out of proportion")
		if took := time.Since(start); took > 5*time.Minute { // to make all of it takes far longer
			t.Errorf("it took %v", took)
		}
	})
	t.Run("a delta that makes a gigabyte", func(t *testing.T) {
		refused(t, b, bomb(1024), "", pin.CodePack, "an object of")
	})
	t.Run("no objects", func(t *testing.T) { // nothing wrong by itself: what is missing, authentication finds
		err := pin.Unpack(t.Context(), b.g, filepath.Join(t.TempDir(), "x.git"), "", bytes.NewReader(seal([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x00"))))
		if err != nil {
			t.Error(err)
		}
	})
}

// aNar makes one of files; a name that ends in * is executable, with a / a directory.
func aNar(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := nar.NewWriter(&b)
	if err := z.WriteHeader(&nar.Header{Type: nar.Directory}); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(files); i += 2 {
		h := &nar.Header{Path: strings.TrimRight(files[i], "*/"), Type: nar.Regular, Executable: strings.HasSuffix(files[i], "*"), Size: int64(len(files[i+1]))}
		if strings.HasSuffix(files[i], "/") {
			h.Type = nar.Directory
		}
		err := z.WriteHeader(h)
		if err == nil && h.Type == nar.Regular {
			_, err = z.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileItems: each has one fault.
func TestHostileItems(t *testing.T) {
	b := &bench{ends: make([]git.ID, 12), keyring: git.ID{7}}
	for i := range b.ends {
		b.ends[i] = git.ID{byte(i + 1)}
	}
	b.history.Introduction, b.history.Signer = git.ID{9}, openpgp.Fingerprint{9}
	p := b.pin(b.ends[1], git.ID{})
	q := b.pin(b.ends[2], b.ends[1])
	text, inc := string(p.Text()), string(q.Text())
	h := func(change func(h *pin.Header)) string {
		h := &pin.Header{Branch: p.Branch, Commit: p.Commit, Keyring: p.Keyring}
		change(h)
		return string(h.Text())
	}
	good := h(func(*pin.Header) {})
	goodInc := h(func(h *pin.Header) { h.Commit, h.Basis = q.Commit, q.Basis })
	both := h(func(h *pin.Header) { h.Commit, h.Basis, h.BasisKeyring = q.Commit, q.Basis, git.ID{8} })
	for name, files := range map[string][]string{"complete": {"bundle", good + "PACK...", "pin", text}, "basis": {"bundle", goodInc + "PACK...", "pin", inc}, "basis and keyring": {"bundle", both + "PACK...", "pin", inc}} {
		var pack bytes.Buffer
		if _, _, err := pin.Open(bytes.NewReader(aNar(t, files...)), &pack); err != nil || pack.String() != "PACK..." {
			t.Errorf("%s: %v, %q", name, err, pack.String())
		}
	}
	other := strings.Replace
	for _, test := range []struct {
		name  string
		item  []byte
		codes string
	}{
		{"a third file", aNar(t, "bundle", good, "pin", text, "z", ""), "channel-item"},
		{"a third file before", aNar(t, "a", "", "bundle", good, "pin", text), "channel-item"},
		{"a third file between", aNar(t, "bundle", good, "link", "", "pin", text), "channel-item"},
		{"no pin", aNar(t, "bundle", good), "channel-item"},
		{"no bundle", aNar(t, "pin", text), "channel-item"},
		{"nothing", aNar(t), "channel-item"},
		{"executable", aNar(t, "bundle*", good, "pin", text), "channel-item"},
		{"a pin that is executable", aNar(t, "bundle", good, "pin*", text), "channel-item"},
		{"a directory", aNar(t, "bundle/", "", "pin", text), "channel-item"},
		{"a file", aNar(t, "bundle", good, "pin", text)[:50], "channel-item"},
		{"cut", aNar(t, "bundle", good, "pin", text)[:400], "channel-item"},
		{"goes on", append(aNar(t, "bundle", good, "pin", text), 0), "channel-item"},
		{"no nar", []byte("# v2 git bundle\n"), "channel-item"},
		{"a large pin", aNar(t, "bundle", good, "pin", text+strings.Repeat("x", pin.MaxPin)), "channel-item"},
		{"empty", nil, "channel-item"},

		{"version 3", aNar(t, "bundle", other(good, "v2", "v3", 1), "pin", text), "channel-bundle"},
		{"another reference", aNar(t, "bundle", other(good, "refs/heads/master", "refs/heads/evil", 1), "pin", text), "channel-bundle"},
		{"a tag", aNar(t, "bundle", other(good, "refs/heads/master", "refs/tags/master", 1), "pin", text), "channel-bundle"},
		{"HEAD", aNar(t, "bundle", other(good, "refs/heads/master", "HEAD", 1), "pin", text), "channel-bundle"},
		{"one more reference", aNar(t, "bundle", other(good, "\n\n", "\n"+p.Commit.String()+" refs/heads/more\n\n", 1), "pin", text), "channel-bundle"},
		{"keyring alone", aNar(t, "bundle", other(good, p.Commit.String()+" refs/heads/master\n", "", 1), "pin", text), "channel-bundle"},
		{"no keyring", aNar(t, "bundle", other(good, p.Keyring.String()+" refs/heads/keyring\n", "", 1), "pin", text), "channel-bundle"},
		{"another order", aNar(t, "bundle", "# v2 git bundle\n"+p.Keyring.String()+" refs/heads/keyring\n"+p.Commit.String()+" refs/heads/master\n\n", "pin", text), "channel-bundle"},
		{"another commit", aNar(t, "bundle", h(func(h *pin.Header) { h.Commit = git.ID{99} }), "pin", text), "channel-bundle"},
		{"another keyring", aNar(t, "bundle", h(func(h *pin.Header) { h.Keyring = git.ID{99} }), "pin", text), "channel-bundle"},
		{"everything is another", aNar(t, "bundle", h(func(h *pin.Header) { h.Commit, h.Keyring, h.Branch, h.Basis = git.ID{99}, git.ID{99}, "x", git.ID{99} }), "pin", text),
			"channel-bundle channel-bundle channel-bundle channel-bundle"},
		{"a missing prerequisite", aNar(t, "bundle", other(goodInc, "-"+q.Basis.String()+" \n", "", 1), "pin", inc), "channel-bundle"},
		{"a prerequisite too many", aNar(t, "bundle", goodInc, "pin", text), "channel-bundle channel-bundle"},
		{"three prerequisites", aNar(t, "bundle", other(both, "-", "-"+p.Commit.String()+" \n-", 1), "pin", inc), "channel-bundle"},
		{"a prerequisite behind", aNar(t, "bundle", other(goodInc, "\n\n", "\n-"+q.Basis.String()+" \n\n", 1), "pin", inc), "channel-bundle"},
		{"a remark", aNar(t, "bundle", other(goodInc, " \n", " a remark\n", 1), "pin", inc), "channel-bundle"},
		{"no space", aNar(t, "bundle", other(goodInc, " \n", "\n", 1), "pin", inc), "channel-bundle"},
		{"CRLF in the header", aNar(t, "bundle", strings.ReplaceAll(good, "\n", "\r\n"), "pin", text), "channel-bundle"},
		{"capitals in the header", aNar(t, "bundle", other(good, "02000", "0200A", 1), "pin", text), "channel-bundle"},
		{"no end of the header", aNar(t, "bundle", strings.TrimSuffix(good, "\n"), "pin", text), "channel-bundle"},
		{"a long header", aNar(t, "bundle", "# v2 git bundle\n"+strings.Repeat("-"+q.Basis.String()+" x\n", 1000)+"\n", "pin", text), "channel-bundle"},
		{"an empty bundle", aNar(t, "bundle", "", "pin", text), "channel-bundle"},

		{"CRLF", aNar(t, "bundle", good, "pin", strings.ReplaceAll(text, "\n", "\r\n")), "pin-syntax"},
		{"a pin that goes on", aNar(t, "bundle", good, "pin", text+"\n"), "pin-syntax"},
		{"a bad pin and another commit", aNar(t, "bundle", h(func(h *pin.Header) { h.Commit = git.ID{99} }), "pin", text+"x"), "pin-syntax"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, _, err := pin.Open(bytes.NewReader(test.item), io.Discard)
			rs, ok := trust.AsRefusals(err)
			if !ok || p != nil {
				t.Fatalf("%v", err)
			}
			codes := slices.Clone(rs.Codes())
			if test.codes == "pin-syntax" {
				codes = slices.Compact(codes)
			}
			if got := strings.Join(codes, " "); got != test.codes {
				t.Errorf("%s, want %s: %v", got, test.codes, err)
			}
		})
	}
	full := errors.New("the disk is full")
	if _, _, err := pin.Open(bytes.NewReader(aNar(t, "bundle", good+"PACK", "pin", text)), fullDisk{full}); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
}

type fullDisk struct{ err error }

func (f fullDisk) Write([]byte) (int, error) { return 0, f.err }

// TestSpelling: every other spelling of a pin is refused, and all faults are told at once.
func TestSpelling(t *testing.T) {
	b := &bench{keyring: git.ID{7}}
	b.history.Introduction, b.history.Signer = git.ID{9}, openpgp.Fingerprint{9}
	b.history.Signer[0] = 0xab
	good := b.pin(git.ID{1}, git.ID{2})
	text := string(good.Text())
	p, err := pin.Parse([]byte(text))
	if err != nil || *p != *good {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, c := range []struct{ old, new string }{
		{"pin v1", "pin v2"}, {"pin v1\n", "pin v1 \n"}, {"sallyport pin v1\n", ""}, {"channel guix", "channel  guix"}, {"channel guix", "channel\tguix"}, {"channel guix", "channel -x"},
		{"channel guix", "channel gu/ix"}, {"channel guix", "channel " + strings.Repeat("x", 65)}, {"channel guix", "Channel guix"}, {"channel guix\n", "channel guix\nchannel guix\n"},
		{"https://", "HTTPS://"}, {"https://", "git://"}, {"https://", "ext::"}, {"guix.git", "guix .git"}, {"guix.git", "guix\x00.git"}, {"guix.git", "guix\u00e9.git"}, {"guix.git", strings.Repeat("x", 1024)},
		{"branch master", "branch keyring"}, {"branch master", "branch HEAD"}, {"branch master", "branch -x"}, {"branch master", "branch a..b"}, {"branch master", "branch a.lock"}, {"branch master", "branch /a"},
		{"AB000", "ab000"}, {" AB00", " AB00 "}, {"commit 01", "commit 0x"}, {"keyring 07", "keyring 7"}, {"commit 0100000000000000000000000000000000000000", "commit " + strings.Repeat("0", 40)},
		{" 1000\n", " 01000\n"}, {" 1000\n", " +1000\n"}, {" 1000\n", " 1e3\n"}, {" 1000\n", " 99999999999999\n"}, {"nar " + good.NarHash.String(), "nar " + strings.ToUpper(good.NarHash.String())},
		{"basis 02", "basis  02"}, {"basis 0200000000000000000000000000000000000000", "basis " + strings.Repeat("0", 40)}, {"basis 0200000000000000000000000000000000000000", "basis --"},
		{"basis 0200000000000000000000000000000000000000\n", "basis -"}, {"basis 0200000000000000000000000000000000000000\n", ""}, {"\nbasis", "\n\nbasis"}, {"\n", "\r\n"}, {"sallyport", "\ufeffsallyport"},
	} {
		bad := strings.Replace(text, c.old, c.new, 1)
		if bad == text {
			t.Fatalf("%q is not in the pin", c.old)
		}
		p, err := pin.Parse([]byte(bad))
		if rs, ok := trust.AsRefusals(err); !ok || !rs.Has(pin.CodeSyntax) || p != nil {
			t.Errorf("%q for %q: %v", c.new, c.old, err)
		}
	}
	_, err = pin.Parse([]byte(strings.NewReplacer("guix\n", "-\n", "https", "gopher", " 1000", " -1", "master", "HEAD").Replace(text)))
	if rs, _ := trust.AsRefusals(err); len(rs) != 4 || !strings.Contains(rs.Error(), "line 3") {
		t.Errorf("%v", err)
	}
	for n := range text {
		if _, err := pin.Parse([]byte(text[:n])); err == nil {
			t.Errorf("the first %d bytes are a pin", n)
		}
	}
}

// TestNames: what others make of a pin.
func TestNames(t *testing.T) {
	b := &bench{keyring: git.ID{7}}
	b.history.Introduction, b.history.Signer = git.ID{9}, openpgp.Fingerprint{9}
	p := b.pin(git.ID{1}, git.ID{})
	if got := p.StoreName(); got != "guix-channel-0100000000000000000000000000000000000000" {
		t.Error(got)
	}
	if got, err := p.ItemName(trust.Sum(nil)); err != nil || !strings.HasSuffix(got, "-"+p.StoreName()) || len(got) != 33+len(p.StoreName()) {
		t.Error(got, err)
	}
	list, err := scheme.Channels(scheme.PrintChannels([]scheme.Channel{p.Scheme()}))
	if err != nil || len(list) != 1 || list[0].Commit != p.Commit.String() || list[0].URL != p.URL || list[0].Introduction.Signer.Hex() != p.Signer.Hex() {
		t.Errorf("%+v %v", list, err)
	}
}

// TestCreateRefuses: no item of a pin that would not be taken, nor of objects that are not there.
func TestCreateRefuses(t *testing.T) {
	b := newBench(t)
	tmp := t.TempDir()
	bad := b.pin(b.ends[1], git.ID{})
	bad.URL = "ext::sh -c evil"
	if err := pin.Create(t.Context(), b.g, b.r, tmp, bad, git.ID{}, io.Discard); err == nil {
		t.Error("a URL that runs programs")
	}
	if err := pin.Create(t.Context(), b.g, b.r, tmp, b.pin(git.ID{1}, git.ID{}), git.ID{}, io.Discard); err == nil {
		t.Error("a commit that is not there")
	}
	if err := pin.Create(t.Context(), b.g, b.r, tmp, b.pin(b.ends[1], git.ID{1}), git.ID{}, io.Discard); err == nil {
		t.Error("a basis that is not there")
	}
	full := errors.New("the disk is full")
	if err := pin.Create(t.Context(), b.g, b.r, tmp, b.pin(b.ends[1], git.ID{}), git.ID{}, fullDisk{full}); !errors.Is(err, full) {
		t.Error(err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func FuzzParse(f *testing.F) {
	b := &bench{keyring: git.ID{7}}
	b.history.Introduction, b.history.Signer = git.ID{9}, openpgp.Fingerprint{9}
	text := b.pin(git.ID{1}, git.ID{2}).Text()
	f.Add(text)
	f.Add(b.pin(git.ID{1}, git.ID{}).Text())
	f.Add(bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
	f.Add([]byte("sallyport pin v1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := pin.Parse(text)
		if err != nil {
			if _, ok := trust.AsRefusals(err); !ok || p != nil {
				t.Fatal(err)
			}
			return
		}
		if got := p.Text(); !bytes.Equal(got, text) {
			t.Fatalf("%q is printed as %q", text, got)
		}
	})
}

func FuzzHeader(f *testing.F) {
	h := pin.Header{Branch: "master", Commit: git.ID{1}, Keyring: git.ID{2}}
	f.Add(append(h.Text(), "PACK"...))
	h.Basis = git.ID{3}
	f.Add(h.Text())
	h.BasisKeyring = git.ID{4}
	f.Add(h.Text())
	f.Add([]byte("# v2 git bundle\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, n, err := pin.ParseHeader(text)
		if err != nil {
			if _, ok := trust.AsRefusals(err); !ok || h != nil {
				t.Fatal(err)
			}
			return
		}
		if got := h.Text(); !bytes.Equal(got, text[:n]) {
			t.Fatalf("%q is printed as %q", text[:n], got)
		}
	})
}
