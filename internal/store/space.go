package store

import (
	"fmt"
	"syscall"
)

// A SpaceError says how much is missing. It is an ENOSPC.
type SpaceError struct {
	Dir                 string
	Need, Reserve, Free int64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%s: %d bytes needed and %d to stay free (space.reserve), %d free: %d missing",
		e.Dir, e.Need, e.Reserve, e.Free, e.Need+e.Reserve-e.Free)
}

func (e *SpaceError) Unwrap() error { return syscall.ENOSPC }

// Space checks, before a stage starts, that need bytes fit on the zone's file
// system and the reserve stays free.
func (z *Zone) Space(need int64) error { return z.SpaceAt(z.Dir, need) }

// SpaceAt is Space for a directory that may be on another file system.
func (z *Zone) SpaceAt(dir string, need int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if need < 0 || need > free-z.Config.Space.Reserve {
		return &SpaceError{dir, need, z.Config.Space.Reserve, free}
	}
	return nil
}
