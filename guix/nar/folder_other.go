//go:build !linux

package nar

import "os"

// readDir lists dir, unsorted.
func readDir(dir *os.File) ([]dirent, error) {
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	list := make([]dirent, len(entries))
	for i, e := range entries {
		list[i] = dirent{e.Name(), e.Type()}
	}
	return list, nil
}

// openIn opens the regular file name in dir.
func openIn(_ *os.File, root *os.Root, name string) (file, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	return plainFile{f}, nil
}
