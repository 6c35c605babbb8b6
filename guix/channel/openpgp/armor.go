package openpgp

import (
	"bytes"
	"encoding/base64"
)

// Armored reports whether data is in ASCII armour rather than binary. The test is Guix's: what does not begin as a packet of a known kind.
func Armored(data []byte) bool {
	switch {
	case len(data) == 0:
		return false
	case data[0]&0x80 == 0:
		return true
	}
	tag := data[0] & 0x3f
	if data[0]&0x40 == 0 {
		tag >>= 2
	}
	return tag < 1 || tag > 19
}

// Dearmor decodes the first block of ASCII armour (RFC 4880, section 6.2), which must begin at once. Its checksum must be there, as Guix demands
// it; its label means nothing, to Guix neither.
func Dearmor(text []byte) ([]byte, error) {
	line, rest, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimRight(line, white)
	if !bytes.HasPrefix(line, []byte("-----BEGIN ")) || !bytes.HasSuffix(line[min(len(line), 6):], []byte("-----")) || len(line) < 16 {
		return nil, fail(CodeArmor, "the first line is not the beginning of armour")
	}
	end := append([]byte("-----END "), line[11:]...)
	for { // headers
		var ok bool
		if line, rest, ok = bytes.Cut(rest, []byte("\n")); !ok {
			return nil, fail(CodeArmor, "the armour ends in its headers")
		}
		if len(bytes.TrimFunc(line, isSpace)) == 0 {
			break
		}
	}
	body := make([]byte, 0, len(rest))
	last := 0 // where the last line begins in body
	for {
		var more bool
		line, rest, more = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimFunc(line, isSpace)
		if bytes.Equal(line, end) {
			break
		}
		if !more {
			return nil, fail(CodeArmor, "the armour has no end")
		}
		if len(line) > 0 {
			if bytes.IndexByte(line, '\r') >= 0 {
				return nil, fail(CodeArmor, "a carriage return within a line")
			}
			last = len(body)
			body = append(body, line...)
		}
	}
	if len(body)-last != 5 || body[last] != '=' {
		return nil, fail(CodeArmor, "the checksum is missing")
	}
	var sum [3]byte
	if n, err := base64.StdEncoding.Strict().Decode(sum[:], body[last+1:]); err != nil || n != 3 {
		return nil, fail(CodeArmor, "the checksum is not well formed")
	}
	data := make([]byte, base64.StdEncoding.DecodedLen(last))
	n, err := base64.StdEncoding.Strict().Decode(data, body[:last])
	if err != nil {
		return nil, fail(CodeArmor, "%v", err)
	}
	data = data[:n]
	if got := crc24(data); got != uint32(sum[0])<<16|uint32(sum[1])<<8|uint32(sum[2]) {
		return nil, fail(CodeArmor, "the checksum is wrong")
	}
	return data, nil
}

const white = " \t\r\v\f"

func isSpace(r rune) bool { return r <= ' ' && bytes.ContainsRune([]byte(white), r) }

// crcTable is what one byte does to the sum.
var crcTable = func() (t [256]uint32) {
	const poly = 0x1864cfb
	for b := range t {
		crc := uint32(b) << 16
		for range 8 {
			crc <<= 1
			if crc&0x1000000 != 0 {
				crc ^= poly
			}
		}
		t[b] = crc
	}
	return t
}()

func crc24(data []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc = crc<<8&0xffffff ^ crcTable[byte(crc>>16)^b]
	}
	return crc
}
