package durable_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/durable/durabletest"
)

func files(dir string, content string) []durable.File {
	return []durable.File{
		{Path: filepath.Join(dir, "a/b/one"), Data: []byte(content), Perm: 0o644},
		{Path: filepath.Join(dir, "a/two"), Data: []byte(strings.Repeat(content, 1000)), Perm: 0o600},
		{Path: filepath.Join(dir, "a/three"), Data: nil, Perm: 0o644},
	}
}

func check(t *testing.T, fs []durable.File) {
	t.Helper()
	for _, f := range fs {
		b, err := os.ReadFile(f.Path)
		if err != nil {
			t.Error(err)
		} else if string(b) != string(f.Data) {
			t.Errorf("%s: %d bytes, want %d", f.Path, len(b), len(f.Data))
		}
	}
}

// What WriteAll has reported survives a power failure.
func TestWriteAllSurvives(t *testing.T) {
	dir, spare, tmp := t.TempDir(), t.TempDir(), t.TempDir()
	c := &durabletest.Crash{Spare: spare}
	for _, content := range []string{"former", "present"} {
		if err := durable.WriteAll(c, tmp, files(dir, content)...); err != nil {
			t.Fatal(err)
		}
		c.Lose()
		check(t, files(dir, content))
	}
}

// The crash itself is no sham: without the syncs the files are gone.
func TestCrashLoses(t *testing.T) {
	dir := t.TempDir()
	c := &durabletest.Crash{Spare: t.TempDir()}
	path := filepath.Join(dir, "x")
	f, err := c.Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	c.Write(f, []byte("bytes"))
	f.Close()
	if err := durable.SyncDir(c, dir); err != nil {
		t.Fatal(err)
	}
	c.Lose()
	if b, err := os.ReadFile(path); err != nil || len(b) != 0 {
		t.Errorf("name synced, bytes not: %q, %v; want an empty file", b, err)
	}
	if err := c.Rename(path, filepath.Join(dir, "y")); err != nil {
		t.Fatal(err)
	}
	c.Lose()
	if _, err := os.Stat(filepath.Join(dir, "y")); err == nil {
		t.Error("a rename that was not synced survived")
	}
}

// Every call fails once, not done and done; each file is then the former or the
// present one, whole, and no temporary file stays but those whose removal failed.
func TestWriteAllFaults(t *testing.T) {
	for _, done := range []bool{false, true} {
		for at := 1; ; at++ {
			dir, tmp := t.TempDir(), t.TempDir()
			former, present := files(dir, "former"), files(dir, "present")
			if err := durable.WriteAll(durable.OS{}, tmp, former...); err != nil {
				t.Fatal(err)
			}
			c := &durabletest.Faulty{Inner: durable.OS{}, Fail: func(n int, _, _ string) (bool, bool) { return n == at, done }}
			err := durable.WriteAll(c, tmp, present...)
			if c.Calls() < at {
				if err != nil {
					t.Fatal(err)
				}
				check(t, present)
				break
			}
			if !errors.Is(err, durabletest.ErrInjected) {
				t.Fatalf("call %d of %d: %v, want the injected fault", at, c.Calls(), err)
			}
			for i, f := range present {
				b, err := os.ReadFile(f.Path)
				if err != nil || string(b) != string(f.Data) && string(b) != string(former[i].Data) {
					t.Errorf("call %d: %s is neither the former nor the present file: %d bytes, %v", at, f.Path, len(b), err)
				}
			}
			if err := durable.SweepTemp(durable.OS{}, tmp); err != nil {
				t.Fatal(err)
			}
			if left, _ := os.ReadDir(tmp); len(left) > 0 {
				t.Errorf("call %d: %v left", at, left)
			}
			if err := durable.WriteAll(durable.OS{}, tmp, present...); err != nil {
				t.Fatal(err)
			}
			check(t, present)
		}
	}
}

// A sweeper beside writers takes nothing from under them.
func TestSweepSparesTheLiving(t *testing.T) {
	tmp := t.TempDir()
	f, path, err := durable.CreateTemp(durable.OS{}, tmp, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(tmp, "dead")
	os.WriteFile(dead, nil, 0o400)
	tree := filepath.Join(tmp, "tree")
	os.MkdirAll(filepath.Join(tree, "sub/sub"), 0o755)
	os.Chmod(filepath.Join(tree, "sub"), 0o500)
	for range 2 {
		if err := durable.SweepTemp(durable.OS{}, tmp); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Fatal("the file of a living writer was swept")
		}
	}
	for _, p := range []string{dead, tree} {
		if _, err := os.Lstat(p); err == nil {
			t.Errorf("%s was not swept", p)
		}
	}
	f.Close()
	durable.SweepTemp(durable.OS{}, tmp)
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file of a writer that is gone was not swept")
	}
	stop := make(chan struct{})
	swept := make(chan error, 1)
	go func() {
		defer close(swept)
		for {
			select {
			case <-stop:
				return
			default:
				if err := durable.SweepTemp(durable.OS{}, tmp); err != nil {
					swept <- err
					return
				}
			}
		}
	}()
	c := &durabletest.Crash{Spare: t.TempDir()} // for its cheap syncs
	dir := t.TempDir()
	for range 300 {
		if err := durable.WriteAll(c, tmp, files(dir, "x")...); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-swept; err != nil {
		t.Error(err)
	}
}
