package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// Bounds on what is read of one process.
const (
	maxProcesses = 1 << 20
	maxMaps      = 64 << 20 // of /proc/PID/maps
	maxEnviron   = 8 << 20
	maxOpen      = 1 << 20 // descriptors
)

// findProcesses finds what the running processes use of the store: their programs, directories, open files, what is mapped and what their environment
// names, which is what the garbage collector looks at. Only processes whose root directory is the tree's are looked at; unread counts those that may
// not be looked at. One root is made for each item, named after the first process.
func findProcesses(t *tree, proc string) (roots []Root, unread int, err error) {
	mine, err := t.root.Stat(".")
	if err != nil {
		return nil, 0, err
	}
	// Of another root than this machine's nobody's processes need be anything but those that say so.
	own := false
	if here, err := os.Stat("/"); err == nil {
		own = os.SameFile(mine, here)
	}
	list, err := os.ReadDir(proc)
	if err != nil {
		return nil, 0, err
	}
	first, more := map[string]string{}, map[string]int{}
	n := 0
	for _, e := range list {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid < 1 || strconv.Itoa(pid) != e.Name() {
			continue
		}
		if n++; n > maxProcesses {
			return nil, 0, fmt.Errorf("%s: more than %d processes", proc, maxProcesses)
		}
		dir := filepath.Join(proc, e.Name())
		at, err := os.Stat(filepath.Join(dir, "root"))
		if err != nil {
			if own && !gone(err) {
				unread++
			}
			continue
		}
		if !os.SameFile(at, mine) {
			continue
		}
		items, err := usedBy(dir)
		if err != nil && !gone(err) {
			unread++
		}
		name, _ := readSome(filepath.Join(dir, "comm"), 64)
		for item := range items {
			if first[item] == "" {
				first[item] = fmt.Sprintf("process %d (%s)", pid, bytes.TrimSpace(name))
			} else {
				more[item]++
			}
		}
	}
	for _, item := range slices.Sorted(maps.Keys(first)) {
		path := first[item]
		if more[item] > 0 {
			path += fmt.Sprintf(" and %d more", more[item])
		}
		roots = append(roots, Root{Kind: KindProcess, Path: path, Item: item})
	}
	return roots, unread, nil
}

// gone says that a process has ended, or has none of what was asked for: a kernel thread has no program.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// usedBy returns the items that a process uses, as far as they can be told.
func usedBy(dir string) (map[string]bool, error) {
	items := map[string]bool{}
	add := func(item string) { items[item] = true }
	var errs []error
	note := func(err error) {
		if err != nil && !gone(err) {
			errs = append(errs, err)
		}
	}
	link := func(name string) {
		target, err := os.Readlink(filepath.Join(dir, name))
		note(err)
		itemsIn([]byte(target), add)
	}
	link("exe")
	link("cwd")
	fds, err := os.Open(filepath.Join(dir, "fd"))
	note(err)
	if err == nil {
		names, err := fds.Readdirnames(maxOpen)
		if !errors.Is(err, io.EOF) {
			note(err)
		}
		fds.Close()
		for _, n := range names {
			link(filepath.Join("fd", n))
		}
	}
	for name, limit := range map[string]int64{"maps": maxMaps, "environ": maxEnviron} {
		data, err := readSome(filepath.Join(dir, name), limit)
		note(err)
		itemsIn(data, add)
	}
	return items, errors.Join(errs...)
}

// readSome reads a file of the kernel's, up to a limit.
func readSome(p string, limit int64) ([]byte, error) {
	f, err := os.Open(p)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
