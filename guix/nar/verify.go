package nar

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A Verifier passes a stream on while it checks its size and SHA-256.
//
// The last bytes come out only when both agree and the source has ended; until then
// they are held back. So not only io.EOF is a proof: whoever has got all bytes
// has got the right ones, even if, like [Reader], he stops reading there.
// What came out before is unverified, and worthless if an error follows.
type Verifier struct {
	src  io.Reader
	hash hash.Hash
	size int64
	want [sha256.Size]byte
	n    int64 // read and hashed
	err  error
}

// NewVerifier returns a Verifier of r, which has to hold exactly size bytes
// with the given SHA-256.
func NewVerifier(r io.Reader, size int64, sha256sum [sha256.Size]byte) *Verifier {
	v := &Verifier{src: r, hash: sha256.New(), size: size, want: sha256sum}
	if size < 0 {
		v.err = &Error{0, CodeSize, fmt.Sprintf("a stream cannot have %d bytes", size)}
	}
	return v
}

// Read reads from the source. Its error is an [*Error] with [CodeTruncated],
// [CodeSize] or [CodeDigest] if the source is not the expected one.
func (v *Verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if v.n == v.size { // only for size 0; otherwise the end was judged below
		v.err = v.end(nil)
		return 0, v.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := v.src.Read(p[:min(int64(len(p)), v.size-v.n)])
	if n < 0 || int64(n) > min(int64(len(p)), v.size-v.n) {
		v.err = errors.New("nar: a reader returned an impossible count")
		return 0, v.err
	}
	v.hash.Write(p[:n])
	v.n += int64(n)
	if v.n == v.size {
		v.err = v.end(err)
		if v.err != io.EOF {
			clear(p[:n])
			return 0, v.err
		}
		return n, nil
	}
	switch {
	case err == io.EOF:
		v.err = &Error{v.n, CodeTruncated, fmt.Sprintf("the stream ends after %d of %d bytes", v.n, v.size)}
	case err != nil:
		v.err = err
	}
	return n, v.err
}

// end judges the stream when size bytes have been read, the last with err. It returns
// io.EOF if all is well.
func (v *Verifier) end(err error) error {
	var one [1]byte
	for range 100 {
		if err != nil {
			break
		}
		var n int
		if n, err = v.src.Read(one[:]); n != 0 {
			return &Error{v.size, CodeSize, fmt.Sprintf("the stream goes on after %d bytes", v.size)}
		}
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if err != io.EOF {
		return err
	}
	if sum := v.hash.Sum(nil); [sha256.Size]byte(sum) != v.want {
		return &Error{v.size, CodeDigest, fmt.Sprintf("the SHA-256 is %s, not %s",
			hex.EncodeToString(sum), hex.EncodeToString(v.want[:]))}
	}
	return io.EOF
}
