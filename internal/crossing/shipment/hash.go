package shipment

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"io"
	"sync"
)

// chunk is how much of a file is in memory at a time, twice: while one part is hashed and written, the next is read.
const chunk = 1 << 20

// alone is the size from which a chunk is worth a second processor.
const alone = 64 << 10

// digests are those that stand in the sums.
type digests struct {
	sha256 [sha256.Size]byte
	sha512 [sha512.Size]byte
}

func digestsOf(b []byte) digests { return digests{sha256.Sum256(b), sha512.Sum512(b)} }

// A hasher copies files and hashes what passes, in the same two buffers for all of them.
type hasher struct {
	h256, h512 hash.Hash
	now, next  []byte
}

func newHasher() *hasher {
	return &hasher{sha256.New(), sha512.New(), make([]byte, chunk), make([]byte, chunk)}
}

// copy copies r to w, hashing on the side, and returns the digests and the size. At most limit+1 bytes are read. Nothing of it runs on
// when copy has returned: r and w may be closed.
func (h *hasher) copy(ctx context.Context, w io.Writer, r io.Reader, limit int64) (d digests, size int64, err error) {
	h.h256.Reset()
	h.h512.Reset()
	left := limit + 1
	fill := func(buf []byte) (n int, err error) {
		n, err = io.ReadFull(r, buf[:min(int64(len(buf)), left)])
		if left -= int64(n); left == 0 && err == nil {
			err = io.EOF
		}
		return n, err
	}
	n, readErr := fill(h.now)
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return d, size, err
		}
		var wg sync.WaitGroup
		part, more := h.now[:n], 0
		if readErr == nil {
			wg.Go(func() { more, readErr = fill(h.next) })
		}
		hash512 := func() { h.h512.Write(part) }
		if n >= alone {
			wg.Go(hash512)
		} else {
			hash512()
		}
		h.h256.Write(part)
		wrote, err := w.Write(part)
		wg.Wait()
		if err == nil && wrote != n {
			err = io.ErrShortWrite
		}
		if err != nil {
			return d, size, err
		}
		size += int64(n)
		h.now, h.next, n = h.next, h.now, more
	}
	if readErr != nil && !errors.Is(readErr, io.EOF) && !errors.Is(readErr, io.ErrUnexpectedEOF) {
		return d, size, readErr
	}
	h.h256.Sum(d.sha256[:0])
	h.h512.Sum(d.sha512[:0])
	return d, size, nil
}

// counter tells of bytes that pass.
type counter func(int64)

func (c counter) Write(p []byte) (int, error) { c(int64(len(p))); return len(p), nil }
