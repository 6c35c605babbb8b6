package narinfo

import (
	"fmt"
	"strings"

	"sallyport/guix/storepath"
)

// Resolve returns the address of f at a server whose URL is given, joined by
// one slash as in Guix. It is the URL itself if that is absolute: then any
// server may have been named, and only the hash of what it sends counts.
func (f File) Resolve(server string) string {
	if strings.Contains(f.URL, "://") {
		return f.URL
	}
	return strings.TrimRight(server, "/") + "/" + f.URL
}

// ItemURL returns the URL of the archive of p as guix publish writes it:
// prefix/compression/ITEM, or prefix/ITEM for the compression none. The
// prefix is nar, unless the server was told otherwise.
func ItemURL(prefix, compression string, p storepath.Path) string {
	if compression != "none" {
		prefix += "/" + compression
	}
	return prefix + "/" + EscapeItem(p.Base())
}

// EscapeItem percent-encodes the base name of a store item for a URL. Of what
// a name may hold, "+", "=" and "?" are encoded, as uri-encode of Guile does.
// Servers split a path at slashes before they decode it, and need %3F.
func EscapeItem(base string) string {
	var b strings.Builder
	for i := 0; i < len(base); i++ {
		if c := base[i]; unreserved(c) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// UnescapeItem reads the last segment of such a URL, in any encoding that
// decodes to the base name of a store item: clients may send "+" as it is.
func UnescapeItem(segment string) (storepath.Path, error) {
	base, ok := unescape(segment)
	if !ok {
		return storepath.Path{}, &Error{-1, CodeMalformed, fmt.Sprintf("%.80q is not percent-encoded", segment)}
	}
	return storepath.ParseBase(base)
}

// checkURL returns what is wrong with a URL, or "".
func checkURL(url string) string {
	if len(url) > MaxURL {
		return fmt.Sprintf("has more than %d bytes", MaxURL)
	}
	path := url
	if scheme, rest, ok := strings.Cut(url, "://"); ok {
		if scheme != "http" && scheme != "https" {
			return "is neither relative nor of http or https"
		}
		var host string
		if host, path, ok = strings.Cut(rest, "/"); !ok {
			return "names no file"
		}
		// A user name in front of the host could pass for a host.
		if host == "" || strings.ContainsFunc(host, func(r rune) bool { return !strings.ContainsRune(hostChars, r) }) {
			return "names no host"
		}
	} else if first, _, _ := strings.Cut(url, "/"); strings.Contains(first, ":") {
		return "is neither relative nor of http or https"
	}
	for segment := range strings.SplitSeq(path, "/") {
		decoded, ok := unescape(segment)
		switch {
		case !ok:
			return "has a character that must be encoded"
		case decoded == "" || decoded == "." || decoded == "..":
			return "has an empty segment, \".\" or \"..\""
		case strings.ContainsFunc(decoded, func(r rune) bool { return r < ' ' || r > '~' || r == '/' || r == '\\' }):
			return "encodes a slash or what is no text"
		}
	}
	return ""
}

const hostChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]"

func unreserved(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c != 0 && strings.IndexByte("-._~", c) >= 0
}

// unescape decodes a segment of the path of a URL. It reports false if a
// character of it has no place there: RFC 3986, section 3.3, pchar.
func unescape(segment string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		switch {
		case unreserved(c) || strings.IndexByte("!$&'()*+,;=:@", c) >= 0:
			b.WriteByte(c)
		case c == '%' && len(segment)-i > 2 && isHex(segment[i+1]) && isHex(segment[i+2]):
			b.WriteByte(unhex(segment[i+1])<<4 | unhex(segment[i+2]))
			i += 2
		default:
			return "", false
		}
	}
	return b.String(), true
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
