package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

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
func (z *Zone) Lock(name string) (unlock func(), err error) {
	return z.LockContext(context.Background(), name)
}

// Waiting for a lock is asking for it again and again: the kernel's own waiting ends only with a signal.
const (
	minLockPoll = 2 * time.Millisecond
	maxLockPoll = 100 * time.Millisecond
)

// LockContext is Lock that ends with ctx. Whoever waits is told in the log for whom.
func (z *Zone) LockContext(ctx context.Context, name string) (unlock func(), err error) {
	for poll := minLockPoll; ; poll = min(2*poll, maxLockPoll) {
		unlock, err := z.TryLock(name)
		var locked *LockedError
		if !errors.As(err, &locked) {
			return unlock, err
		}
		if 2*poll >= maxLockPoll && poll < maxLockPoll {
			z.log.Warn("waiting for a lock", "lock", name, "holder", locked.Holder)
		}
		timer := time.NewTimer(poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(ctx.Err(), err)
		case <-timer.C:
		}
	}
}

// TryLock is Lock without waiting: a lock that is held is a [*LockedError].
func (z *Zone) TryLock(name string) (unlock func(), err error) {
	if err := trust.CheckWord(name); err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if name == publishLock || name == catalogLock {
		return nil, fmt.Errorf("lock: %s is the zone's own: whoever held it would wait for himself", name)
	}
	// Lock files are never removed: a lock on a file without a name excludes nobody.
	f, err := os.OpenFile(filepath.Join(z.Dir, lockDir, name), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := durable.Lock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
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

// useCatalog takes the lock by which the catalog of a zone is used: shared by all
// who have the zone open, alone by whoever puts another one in its place.
func useCatalog(dir string, how int) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockDir, catalogLock), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	if err := durable.Lock(f, how|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &LockedError{dir, lockHolders(f)}
		}
		return nil, fmt.Errorf("lock %s: %w", catalogLock, err)
	}
	return f, nil
}

// lockHolders names the processes that have a lock on a file, as far as the kernel tells.
func lockHolders(f *os.File) string {
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		return ""
	}
	table, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	// N: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END
	inode := fmt.Sprintf(":%d", st.Ino)
	var pids []string
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) == 8 && fields[1] == "FLOCK" && strings.HasSuffix(fields[5], inode) && !slices.Contains(pids, "pid "+fields[4]) {
			pids = append(pids, "pid "+fields[4])
		}
	}
	return strings.Join(pids, ", ")
}
