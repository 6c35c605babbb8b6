package history_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/internal/crossing/pin/history"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate"
)

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "objects", "pack"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, "objects", "pack", e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func indexes(all map[string][]byte) (n int) {
	for name := range all {
		if strings.HasSuffix(name, ".idx") {
			n++
		}
	}
	return n
}

func readAll(dir string, ends []git.ID) error {
	repo, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		return err
	}
	defer repo.Close()
	reader := repo.Database().NewReader()
	for _, id := range ends {
		if _, err := reader.Read(id, git.KindCommit); err != nil {
			return err
		}
	}
	return nil
}

// A channel of many small items has few packs, whoever reads meanwhile, and whenever it is killed.
func TestRepositoriesOfManyItems(t *testing.T) {
	t.Parallel()
	const n, most = 20, 4
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", n)
	items := []enclavetest.Content{c.At(c.Ends[0], git.ID{})}
	for i := 1; i < n; i++ {
		items = append(items, c.At(c.Ends[i], c.Ends[i-1]))
	}
	e.Quarantine("eve", items...)
	r := repositories(e)
	open := func() {
		t.Helper()
		repo, err := r.Open(t.Context(), "guix")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(repo.Close(), readAll(r.Dir("guix"), c.Ends)); err != nil {
			t.Error(err)
		}
	}
	few := func() {
		t.Helper()
		// Small packs become one; those each more than twice all smaller ones stay.
		if got := indexes(files(t, r.Dir("guix"))); got > most+5 {
			t.Errorf("%d packs", got)
		}
	}
	// Not at first, so that there are many.
	r.Packs = 1000
	open()
	before := files(t, r.Dir("guix"))
	if got := indexes(before); got != n {
		t.Fatalf("%d packs of %d items", got, n)
	}
	// Others read while they become fewer, again and again.
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := readAll(r.Dir("guix"), c.Ends); err != nil {
					t.Errorf("who reads meanwhile: %v", err)
					return
				}
			}
		})
	}
	put := func(all map[string][]byte) {
		t.Helper()
		for _, suffix := range []string{".pack", ".idx"} {
			for name, data := range all {
				to := filepath.Join(r.Dir("guix"), "objects", "pack", name)
				if !strings.HasSuffix(name, suffix) {
					continue
				}
				if _, err := os.Stat(to); err == nil {
					continue
				}
				if err := errors.Join(os.WriteFile(to+".tmp", data, 0o444), os.Rename(to+".tmp", to)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	r.Packs = most
	for range 2 {
		put(before)
		open()
		few()
	}
	close(stop)
	wg.Wait()
	after := files(t, r.Dir("guix"))
	// Killed when the new pack was not there yet, when both were, when some indexes were gone, and some packs.
	for name, gone := range map[string]func(i int, name string) bool{
		"none gone":         func(int, string) bool { return false },
		"some indexes gone": func(i int, name string) bool { return i%2 == 0 && strings.HasSuffix(name, ".idx") },
		"all indexes gone":  func(_ int, name string) bool { return strings.HasSuffix(name, ".idx") },
	} {
		put(before)
		i := 0
		for file := range before {
			if _, stays := after[file]; !stays && gone(i, file) {
				if err := os.Remove(filepath.Join(r.Dir("guix"), "objects", "pack", file)); err != nil {
					t.Fatal(err)
				}
			}
			i++
		}
		if err := errors.Join(os.MkdirAll(filepath.Join(r.Dir("guix"), "unpack", "to", "objects"), 0o700), readAll(r.Dir("guix"), c.Ends)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		open()
		few()
		if _, err := os.Stat(filepath.Join(r.Dir("guix"), "unpack")); err == nil && name != "all indexes gone" {
			t.Errorf("%s: what was left of it is there", name)
		}
	}
	// Made anew, it is never over the bound.
	if err := os.RemoveAll(r.Dir("guix")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	open()
	few()
	t.Logf("%d items made anew in %v", n, time.Since(start))
	// Damaged where nobody looks but git: made anew, once there are too many.
	r.Packs = 1000
	if err := os.RemoveAll(r.Dir("guix")); err != nil {
		t.Fatal(err)
	}
	open()
	for name, data := range files(t, r.Dir("guix")) {
		if strings.HasSuffix(name, ".pack") {
			data[len(data)-22] ^= 0xff // in the last object
			to := filepath.Join(r.Dir("guix"), "objects", "pack", name)
			if err := errors.Join(os.WriteFile(to+".tmp", data, 0o444), os.Rename(to+".tmp", to)); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	r.Packs = most
	open()
	few()
}

// What stands on another repository, as in the gate, is packed without it.
func TestConsolidateOnBase(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "guix", 6)
	r := repositories(e)
	g, err := history.FindGit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	base, dir := filepath.Join(t.TempDir(), "base"), filepath.Join(t.TempDir(), "scratch")
	r.Packs = 2
	for i := range c.Ends {
		item, to, on := c.At(c.Ends[i], git.ID{}), base, ""
		if i > 0 {
			item, to, on = c.At(c.Ends[i], c.Ends[i-1]), dir, base
		}
		e.Quarantine("eve", item)
		if err := errors.Join(r.Unpack(t.Context(), g, to, on, item.Item), r.Consolidate(t.Context(), to, on)); err != nil {
			t.Fatal(err)
		}
	}
	if n := indexes(files(t, dir)); n > 3 {
		t.Errorf("%d packs", n)
	}
	if err := readAll(dir, c.Ends[1:]); err != nil {
		t.Error(err)
	}
}
