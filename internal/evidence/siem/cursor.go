package siem

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

const (
	cursorTitle = "sallyport cursor v1"
	maxCursor   = 4096
)

// A Position is how far a ledger was told: the tree of the entries that were,
// and, where they went to a file, how long that was afterwards.
type Position struct {
	Told ledger.Checkpoint
	File *FileMark
}

// A FileMark says which file it was, and its length.
type FileMark struct{ Inode, Size uint64 }

// text is what the file of a cursor holds.
func (p Position) text() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\norigin %s\nnext %d\ntree %s\n", cursorTitle, p.Told.Origin, p.Told.Size, base64.StdEncoding.EncodeToString(p.Told.Root[:]))
	if p.File != nil {
		fmt.Fprintf(&b, "file %d %d\n", p.File.Inode, p.File.Size)
	}
	return []byte(b.String())
}

// parsePosition parses what text prints, and nothing else.
func parsePosition(data []byte) (Position, error) {
	bad := errors.New("not a cursor: want its four or five lines")
	lines := strings.Split(string(data), "\n")
	if len(data) > maxCursor || len(lines) < 5 || len(lines) > 6 || lines[0] != cursorTitle {
		return Position{}, bad
	}
	var p Position
	p.Told.Origin = strings.TrimPrefix(lines[1], "origin ")
	var err error
	if p.Told.Size, err = strconv.ParseInt(strings.TrimPrefix(lines[2], "next "), 10, 64); err != nil || p.Told.Size < 0 || p.Told.Size > ledger.MaxSize {
		return Position{}, bad
	}
	root, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[3], "tree "))
	if err != nil || len(root) != tlog.HashSize {
		return Position{}, bad
	}
	p.Told.Root = tlog.Hash(root)
	if len(lines) == 6 {
		inode, size, _ := strings.Cut(strings.TrimPrefix(lines[4], "file "), " ")
		p.File = &FileMark{}
		if p.File.Inode, err = strconv.ParseUint(inode, 10, 64); err != nil {
			return Position{}, bad
		}
		if p.File.Size, err = strconv.ParseUint(size, 10, 63); err != nil {
			return Position{}, bad
		}
	}
	if string(p.text()) != string(data) {
		return Position{}, bad
	}
	return p, nil
}

// A Cursor is the file that remembers a Position, held by one exporter at a time.
type Cursor struct {
	path string
	lock *os.File
}

// ErrHeld says that another process goes by the same cursor.
var ErrHeld = errors.New("another process goes by this cursor")

// OpenCursor takes a cursor and reads it; ok is false if it does not exist yet. Beside it lies PATH.lock.
func OpenCursor(path string) (c *Cursor, at Position, ok bool, err error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, Position{}, false, fmt.Errorf("cursor: %w", err)
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := durable.Lock(lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrHeld
		}
		return nil, Position{}, false, fmt.Errorf("cursor %s: %w", path, err)
	}
	c = &Cursor{path, lock}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, Position{}, false, nil
	}
	if err != nil {
		return nil, Position{}, false, fmt.Errorf("cursor: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCursor+1))
	if err != nil {
		return nil, Position{}, false, fmt.Errorf("cursor: %w", err)
	}
	if at, err = parsePosition(data); err != nil {
		return nil, Position{}, false, fmt.Errorf("cursor %s: %w", path, err)
	}
	return c, at, true, nil
}

// Save moves the cursor, durably.
func (c *Cursor) Save(at Position) error {
	tmp := c.path + ".new"
	// Only the holder of the lock writes here: what lies there is of a run that was killed.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cursor: %w", err)
	}
	calls := durable.OS{}
	f, err := calls.Create(tmp, 0o600)
	if err != nil {
		return fmt.Errorf("cursor: %w", err)
	}
	_, err = calls.Write(f, at.text())
	if err == nil {
		err = calls.Sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cursor: %w", errors.Join(err, os.Remove(tmp)))
	}
	if err := durable.Rename(calls, tmp, c.path); err != nil {
		return fmt.Errorf("cursor: %w", err)
	}
	return nil
}

// Close lets the cursor go.
func (c *Cursor) Close() error { return c.lock.Close() }

// Check refuses a ledger that does not go on from where it was told: another one, a smaller one, or one with other entries.
func (p Position) Check(log *ledger.Log) error {
	now := log.Checkpoint()
	if p.Told.Origin != now.Origin {
		return trust.Refuse("cursor-origin", "cursor", "it is of %s, the ledger is %s", p.Told.Origin, now.Origin)
	}
	return log.Contains(p.Told)
}
