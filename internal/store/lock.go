package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// A LockedError says who holds a lock.
type LockedError struct {
	Name   string
	Holder string // as he wrote it: "pid 17 since 2026-03-01T09:00:00Z"; may be empty
}

func (e *LockedError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("%s is in use by another process", e.Name)
	}
	return fmt.Sprintf("%s is in use by %s", e.Name, e.Holder)
}

// maxHolder bounds what is read from a lock file.
const maxHolder = 200

// Lock waits for the lock ZONE/lock/NAME and takes it. It is held until
// unlock is called or the process ends. Within one process it excludes, too.
func (z *Zone) Lock(name string) (unlock func(), err error) { return z.lock(name, syscall.LOCK_EX) }

// TryLock is Lock without waiting: a lock that is held is a [*LockedError].
func (z *Zone) TryLock(name string) (unlock func(), err error) {
	return z.lock(name, syscall.LOCK_EX|syscall.LOCK_NB)
}

func (z *Zone) lock(name string, how int) (func(), error) {
	if err := trust.CheckWord(name); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if name == publishLock {
		return nil, fmt.Errorf("lock: %s is the zone's own: whoever held it would wait for himself", name)
	}
	// Lock files are never removed: a lock on a file without a name excludes nobody.
	f, err := os.OpenFile(filepath.Join(z.Dir, "lock", name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := durable.Lock(f, how); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			b, _ := io.ReadAll(io.LimitReader(f, maxHolder))
			return nil, &LockedError{name, trust.Printable(strings.TrimSpace(string(b)), maxHolder)}
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	// For people only, so no error: the lock is the kernel's.
	if f.Truncate(0) == nil {
		fmt.Fprintf(f, "pid %d since %s\n", os.Getpid(), trust.FormatDate(z.clock()))
	}
	return sync.OnceFunc(func() {
		f.Truncate(0)
		f.Close()
	}), nil
}
