package pin

import (
	"bufio"
	"compress/zlib"
	"encoding/binary"
	"io"

	"sallyport/guix/channel/git"
	"sallyport/internal/trust"
)

// weigh reads a pack and refuses one whose objects are out of all proportion to it: git makes each of them, to hash it, and some thousand bytes of deltas can say what
// takes it hours. read tells how many bytes of the pack have come. What is not well formed is left to git. All is read to the end, unless something is refused.
func weigh(pack io.Reader, read func() int64) error {
	r := bufio.NewReaderSize(pack, 64<<10)
	var head [packHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil
	}
	var z io.ReadCloser
	total := int64(0)
	for range binary.BigEndian.Uint32(head[8:]) {
		kind, size, ok := entryHead(r)
		if !ok {
			break
		}
		var err error
		if z == nil {
			z, err = zlib.NewReader(r)
		} else {
			err = z.(zlib.Resetter).Reset(r, nil)
		}
		if err != nil {
			break
		}
		made, left := size, size
		if kind == entryOffset || kind == entryRef {
			// The sizes of the base and of what is made of it stand first.
			b := &oneByte{r: z}
			if _, err := binary.ReadUvarint(b); err != nil {
				break
			}
			n, err := binary.ReadUvarint(b)
			if err != nil {
				break
			}
			made, left = n, size-min(size, b.n)
		}
		if made > git.MaxBlob || size > git.MaxBlob {
			return trust.Refuse(CodePack, "bundle", "its pack has an object of %d bytes, more than %d", max(made, size), git.MaxBlob)
		}
		total += int64(made)
		if most := freeWeight + maxExpansion*read(); total > most {
			return trust.Refuse(CodePack, "bundle", "the objects of its pack have more than %d bytes, which is out of proportion", most)
		}
		if n, err := io.Copy(io.Discard, io.LimitReader(z, int64(left)+1)); err != nil || n != int64(left) {
			break
		}
	}
	io.Copy(io.Discard, r) // whoever writes waits for it
	return nil
}

// Kinds of entries in a pack that stand on another.
const (
	entryOffset = 6
	entryRef    = 7
)

// entryHead reads what stands before the compressed bytes of an entry.
func entryHead(r *bufio.Reader) (kind byte, size uint64, ok bool) {
	c, err := r.ReadByte()
	kind, size = c>>4&7, uint64(c&15)
	for shift := 4; err == nil && c&0x80 != 0; shift += 7 {
		if shift > 53 {
			return 0, 0, false
		}
		c, err = r.ReadByte()
		size |= uint64(c&0x7f) << shift
	}
	switch kind {
	case entryOffset:
		for c = 0x80; err == nil && c&0x80 != 0; {
			c, err = r.ReadByte()
		}
	case entryRef:
		if err == nil {
			_, err = r.Discard(len(git.ID{}))
		}
	}
	return kind, size, err == nil
}

// oneByte reads byte by byte, and counts.
type oneByte struct {
	r io.Reader
	n uint64
}

func (o *oneByte) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(o.r, b[:])
	o.n++
	return b[0], err
}
