package host

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func mkfifo(t testing.TB, p string) {
	t.Helper()
	if err := syscall.Mkfifo(p, 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeNote leaves a note of pending blobs behind.
func writeNote(t testing.TB, s *estate, text string) {
	t.Helper()
	dir := filepath.Join(s.e.Zone.Dir, "pending")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, stage), []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}
