package openpgp

import (
	"encoding/binary"
	"fmt"
)

// Codes of an [Error].
const (
	CodeArmor       = "openpgp-armor"       // ASCII armour that is not well formed
	CodePacket      = "openpgp-packet"      // a packet that is not well formed, or of a kind that Guix does not know
	CodeSignature   = "openpgp-signature"   // a signature packet that is not well formed, or says what Guix does not know
	CodeKey         = "openpgp-key"         // a key packet that is not well formed
	CodeUnsupported = "openpgp-unsupported" // an algorithm or version that Guix cannot use
	CodeLimit       = "openpgp-limit"       // larger than a bound of this package
	CodeBad         = "openpgp-bad"         // the signature is not one of the key over the data
)

// Bounds.
const (
	MaxFile   = 16 << 20 // bytes in a file of keys
	MaxKeys   = 10000    // keys in a keyring, subkeys included
	MaxPacket = 8 << 20  // bytes in a packet
	MaxMPI    = 16384    // bits in a number
)

// An Error says what is wrong with OpenPGP data.
type Error struct {
	Code   string
	Detail string
}

func (e *Error) Error() string { return "openpgp: " + e.Code + ": " + e.Detail }

func fail(code, format string, args ...any) error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// Kinds of packets.
const (
	tagSignature     = 2
	tagOnePass       = 4
	tagPublicKey     = 6
	tagTrust         = 12
	tagUserID        = 13
	tagPublicSubkey  = 14
	tagUserAttribute = 17
)

// packet takes the first packet from b (RFC 4880, section 4.2).
func packet(b []byte) (tag byte, body, rest []byte, err error) {
	if len(b) == 0 || b[0]&0x80 == 0 {
		return 0, nil, nil, fail(CodePacket, "this is no packet")
	}
	short := fail(CodePacket, "a packet that ends early")
	var size uint64
	tag, b = b[0], b[1:]
	if tag&0x40 != 0 {
		tag &= 0x3f
		var ok bool
		if size, b, ok = length(b); !ok {
			return 0, nil, nil, fail(CodePacket, "the length of a packet is not well formed, or partial")
		}
	} else {
		kind := tag & 3
		tag = tag >> 2 & 15
		if n := 1 << kind; kind == 3 {
			size = uint64(len(b)) // to the end
		} else if len(b) < n {
			return 0, nil, nil, short
		} else {
			for _, c := range b[:n] {
				size = size<<8 | uint64(c)
			}
			b = b[n:]
		}
	}
	if size > MaxPacket {
		return 0, nil, nil, fail(CodeLimit, "a packet of %d bytes", size)
	}
	if size > uint64(len(b)) {
		return 0, nil, nil, short
	}
	return tag, b[:size], b[size:], nil
}

// length reads the length of a new packet or of a subpacket.
func length(b []byte) (n uint64, rest []byte, ok bool) {
	switch {
	case len(b) >= 1 && b[0] < 192:
		return uint64(b[0]), b[1:], true
	case len(b) >= 2 && b[0] < 224:
		return uint64(b[0]-192)<<8 + uint64(b[1]) + 192, b[2:], true
	case len(b) >= 5 && b[0] == 255:
		return uint64(binary.BigEndian.Uint32(b[1:])), b[5:], true
	}
	return 0, nil, false
}

// mpi reads a number: its length in bits, then its bytes.
func mpi(b []byte) (n, rest []byte, err error) {
	if len(b) < 2 {
		return nil, nil, fail(CodePacket, "a number that ends early")
	}
	bits := int(binary.BigEndian.Uint16(b))
	size := (bits + 7) / 8
	switch {
	case bits > MaxMPI:
		return nil, nil, fail(CodeLimit, "a number of %d bits", bits)
	case size == 0 || len(b)-2 < size:
		return nil, nil, fail(CodePacket, "a number that is empty or ends early")
	}
	return b[2 : 2+size], b[2+size:], nil
}
