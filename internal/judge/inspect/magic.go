package inspect

import (
	"bytes"
	"encoding/binary"
	"strings"
)

// form is what the first bytes of a file say that it is.
type form byte

const (
	unknown    form = iota
	executable      // a program or a part of one
	archive         // holds other files, or other bytes, that are not looked at
	media           // a known type that explains bytes of high entropy
)

// executableType names the program format of a file by its first bytes, or gives "".
func executableType(b []byte) string {
	if len(b) < 8 {
		return ""
	}
	has := func(s string) bool { return strings.HasPrefix(string(b[:min(len(b), 16)]), s) }
	be := binary.BigEndian.Uint32(b)
	switch {
	case has("\x7fELF"):
		return "ELF"
	case has("MZ") && len(b) >= 0x40:
		// MZ alone begins many a text; the new header must be where the old one says.
		at := int64(binary.LittleEndian.Uint32(b[0x3c:]))
		if at+4 <= int64(len(b)) && string(b[at:at+4]) == "PE\x00\x00" {
			return "PE"
		}
	case be == 0xfeedface, be == 0xfeedfacf, be == 0xcefaedfe, be == 0xcffaedfe:
		return "Mach-O"
	case be == 0xcafebabe:
		// Fat Mach-O and Java class share this word; the next is a small count of architectures or a class version.
		if binary.BigEndian.Uint32(b[4:]) < 30 {
			return "Mach-O"
		}
		return "Java class"
	case has("\x00asm\x01\x00\x00\x00"):
		return "wasm"
	case has("!<arch>\ndebian-binary"[:8]):
		if len(b) >= 21 && string(b[8:21]) == "debian-binary" {
			return "deb"
		}
		return "ar"
	case has("dex\n0"):
		return "dex"
	case has("\x1bLua"):
		return "Lua bytecode"
	case has("BC\xc0\xde"), has("\xde\xc0\x17\x0b"):
		return "LLVM bitcode"
	case has("gpch"):
		return "precompiled header"
	case has("\xed\xab\xee\xdb"):
		return "rpm"
	case has("go object ") || has("\x00go1") && bytes.IndexByte(b[:16], 'l') > 0:
		return "Go object"
	case b[2] == '\r' && b[3] == '\n' && len(b) >= 16:
		// Python bytecode: a version number, then CR LF. 62xxx are Python 2, 3000 to 3999 Python 3.
		if v := binary.LittleEndian.Uint16(b); v >= 3000 && v < 4000 || v >= 62000 && v < 62300 {
			return "Python bytecode"
		}
	}
	return ""
}

// archiveType names the archive or compression format.
func archiveType(b []byte, ext string) string {
	has := func(s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
	at := func(i int, s string) bool { return len(b) >= i+len(s) && string(b[i:i+len(s)]) == s }
	switch {
	case has("\x1f\x8b\x08"):
		return "gzip"
	case has("\xfd7zXZ\x00"):
		return "xz"
	case has("BZh") && (at(4, "1AY&SY") || at(4, "\x17\x72\x45\x38\x50\x90")):
		return "bzip2"
	case has("\x28\xb5\x2f\xfd"):
		return "zstd"
	case has("LZIP\x01"):
		return "lzip"
	case has("\x5d\x00\x00") && ext == "lzma":
		return "lzma"
	case has("\x04\x22\x4d\x18"):
		return "lz4"
	case has("\x1f\x9d") && (ext == "z" || len(b) > 2 && b[2]&0x60 == 0):
		return "compress"
	case has("PK\x03\x04"), has("PK\x05\x06"):
		if ext == "jar" || at(30, "META-INF/") {
			return "jar"
		}
		return "zip"
	case has("7z\xbc\xaf\x27\x1c"):
		return "7z"
	case has("Rar!\x1a\x07"):
		return "rar"
	case has("MSCF\x00\x00\x00\x00"):
		return "cab"
	case at(257, "ustar"):
		return "tar"
	case has("070701"), has("070702"), has("070707"), has("\xc7\x71"):
		if len(b) >= 64 {
			return "cpio"
		}
	case has("hsqs"):
		return "squashfs"
	case at(0x8001, "CD001"):
		return "ISO 9660"
	case has("\x0d\x00\x00\x00\x00\x00\x00\x00nix-archive-1"):
		return "nar"
	}
	return ""
}

// mediaType names a type that is neither, but explains what is in it.
func mediaType(b []byte, size int64) string {
	has := func(s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }
	at := func(i int, s string) bool { return len(b) >= i+len(s) && string(b[i:i+len(s)]) == s }
	switch {
	case has("\x89PNG\r\n\x1a\n"), has("\x8aMNG"), has("\x8bJNG"):
		return "PNG"
	case has("\xff\xd8\xff"):
		return "JPEG"
	case has("GIF87a"), has("GIF89a"):
		return "GIF"
	case has("RIFF") && len(b) >= 12, has("FORM") && len(b) >= 12 && (at(8, "AIF") || at(8, "ILBM")):
		return "RIFF"
	case has("%PDF-"):
		return "PDF"
	case has("OggS\x00"), has("fLaC"), has("ID3\x02"), has("ID3\x03"), has("ID3\x04"), has("MThd"), has(".snd"):
		return "audio"
	case at(4, "ftyp"), at(4, "moov"), at(4, "mdat"), has("\x1a\x45\xdf\xa3"):
		return "video"
	case has("wOFF"), has("wOF2"), has("OTTO\x00"), has("\x00\x01\x00\x00\x00") && len(b) >= 12, has("ttcf"), has("true\x00"):
		return "font"
	case has("\x00\x00\x01\x00"), has("\x00\x00\x02\x00"), has("BM") && len(b) >= 10 && int64(binary.LittleEndian.Uint32(b[2:])) == size,
		has("II*\x00"), has("MM\x00*"), has("\x00\x00\x00\x0cjP"), has("8BPS"), has("gimp xcf"), has("icns"), has("\xff\x0a"), has("qoif"):
		return "image"
	case has("SQLite format 3\x00"), has("TZif"), has("\xde\x12\x04\x95"), has("\x95\x04\x12\xde"), has("\x89HDF\r\n"), has("AT&TFORM"),
		has("PACK\x00\x00\x00"), has("DIRC\x00\x00\x00"), has("\xfftOc"), has("\xfe\xed\xfe\xed"), at(36, "acsp"), has("\xd4\xc3\xb2\xa1"), has("\xa1\xb2\xc3\xd4"), has("\xd0\xcf\x11\xe0"), has("\xc5\xd0\xd3\xc6"):
		return "data"
	case isDER(b, size):
		return "DER"
	case isOpenPGP(b, size):
		return "OpenPGP"
	}
	return ""
}

// isDER: one ASN.1 sequence that is exactly as long as the file.
func isDER(b []byte, size int64) bool {
	if len(b) < 8 || b[0] != 0x30 || b[1] < 0x81 || b[1] > 0x84 {
		return false
	}
	n := int64(0)
	digits := int(b[1] & 0x7f)
	for _, d := range b[2 : 2+digits] {
		n = n<<8 | int64(d)
	}
	return n+2+int64(digits) == size
}

// isOpenPGP: a whole packet with its length, of a kind and version that exist. The first byte alone would let every second random file pass.
func isOpenPGP(b []byte, size int64) bool {
	if len(b) < 8 || b[0]&0x80 == 0 {
		return false
	}
	var tag byte
	var n, head int64
	if b[0]&0x40 != 0 { // new format
		tag = b[0] & 0x3f
		switch {
		case b[1] < 192:
			n, head = int64(b[1]), 2
		case b[1] < 224:
			n, head = int64(b[1]-192)<<8+int64(b[2])+192, 3
		case b[1] == 255:
			n, head = int64(binary.BigEndian.Uint32(b[2:])), 6
		default:
			return false
		}
	} else {
		tag = b[0] >> 2 & 0xf
		switch b[0] & 3 {
		case 0:
			n, head = int64(b[1]), 2
		case 1:
			n, head = int64(binary.BigEndian.Uint16(b[1:])), 3
		case 2:
			n, head = int64(binary.BigEndian.Uint32(b[1:])), 5
		default:
			return false
		}
	}
	if n < 4 || head+n > size {
		return false
	}
	version := b[head]
	switch tag {
	case 1, 2, 3, 5, 6, 7, 14:
		if version < 2 || version > 6 {
			return false
		}
	case 18:
		if version != 1 && version != 2 {
			return false
		}
	default:
		return false
	}
	// What follows the packet is another one.
	next := head + n
	return next == size || next >= int64(len(b)) || b[next]&0x80 != 0
}
