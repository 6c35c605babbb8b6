package signed

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/internal/trust"
)

// Bounds of a file of allowed signers.
const (
	MaxAllowed      = 1 << 20 // bytes
	MaxAllowedLines = 10000
	maxLine         = 32 << 10
	maxPatterns     = 256 // in one list
)

// Codes of refusals of the file.
const (
	CodeAllowed   = "allowed-signers-malformed"
	CodeAuthority = "allowed-signers-authority" // a line with cert-authority
)

// An AllowedSigner is a line of a file of allowed signers: one key, and for whom, for what and when it may sign.
type AllowedSigner struct {
	Line       int
	Principals string // a list of patterns
	Namespaces string // a list of patterns; "" for all
	After      time.Time
	Before     time.Time // zero for no bound
	Key        *PublicKey
	Comment    string
}

// AllowedSigners is a file of allowed signers.
type AllowedSigners []AllowedSigner

// ParseAllowedSigners reads a file of allowed signers (ssh-keygen(1)). Times without a zone are of zone. Unlike ssh-keygen, which passes over what it cannot
// read, it refuses a file with any line that is not well formed, all of them at once: an option that was mistyped is one that does not hold.
func ParseAllowedSigners(name string, text []byte, zone *time.Location) (AllowedSigners, error) {
	var refused trust.Refusals
	if len(text) > MaxAllowed {
		return nil, trust.Refuse(CodeAllowed, name, "%d bytes, at most %d are read", len(text), MaxAllowed)
	}
	var all AllowedSigners
	n := 0
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		if n++; n > MaxAllowedLines {
			refused.Add(trust.Refuse(CodeAllowed, name, "more than %d lines", MaxAllowedLines))
			break
		}
		s, err := parseAllowed(line, zone)
		switch {
		case errors.Is(err, errAuthority):
			refused.Add(trust.Refuse(CodeAuthority, fmt.Sprintf("%s, line %d", name, n), "a certificate authority, whose certificates are not evaluated").WithHint("list the signers' own keys"))
		case err != nil:
			refused.Add(trust.Refuse(CodeAllowed, fmt.Sprintf("%s, line %d", name, n), "%v", err))
		case s != nil:
			s.Line = n
			all = append(all, *s)
		}
		if refused.Full() {
			break
		}
	}
	if err := refused.Err(); err != nil {
		return nil, err
	}
	return all, nil
}

var errAuthority = errors.New("cert-authority")

const white = " \t"

func parseAllowed(line string, zone *time.Location) (*AllowedSigner, error) {
	if len(line) > maxLine {
		return nil, fmt.Errorf("%d characters, at most %d are read", len(line), maxLine)
	}
	if !utf8.ValidString(line) || strings.ContainsFunc(line, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		return nil, errors.New("a control character, or not UTF-8")
	}
	rest := strings.TrimLeft(line, white)
	if rest == "" || rest[0] == '#' {
		return nil, nil
	}
	s := new(AllowedSigner)
	if rest[0] == '"' {
		var ok bool
		if s.Principals, rest, ok = strings.Cut(rest[1:], `"`); !ok || rest != "" && !strings.ContainsAny(rest[:1], white) {
			return nil, errors.New("quoted principals that do not end")
		}
	} else {
		i := strings.IndexAny(rest, white)
		if i < 0 {
			return nil, errors.New("principals, and no key")
		}
		s.Principals, rest = rest[:i], rest[i:]
	}
	if err := checkPatterns(s.Principals); err != nil {
		return nil, fmt.Errorf("principals: %w", err)
	}
	rest = strings.TrimLeft(rest, white)
	if word, _, _ := strings.Cut(strings.ReplaceAll(rest, "\t", " "), " "); !keyKind(word) {
		var err error
		if rest, err = s.options(rest, zone); err != nil {
			return nil, err
		}
	}
	fields := strings.FieldsFunc(rest, func(c rune) bool { return c == ' ' || c == '\t' })
	if len(fields) < 2 || !keyKind(fields[0]) {
		return nil, errors.New("no key of a kind that is known")
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(fields[1])
	if err != nil {
		return nil, fmt.Errorf("the key: %w", err)
	}
	if s.Key, err = ParsePublicKey(blob); err != nil {
		return nil, err
	}
	if s.Key.Algorithm != fields[0] {
		return nil, fmt.Errorf("the key is of the kind %q, not %q", s.Key.Algorithm, fields[0])
	}
	s.Comment = strings.Join(fields[2:], " ")
	return s, nil
}

func keyKind(s string) bool {
	switch s {
	case algEd25519, algRSA, algSKEd25519, algSKP256, algECDSA + "nistp256", algECDSA + "nistp384", algECDSA + "nistp521":
		return true
	}
	return false
}

// options reads what stands before the key, and returns what follows.
func (s *AllowedSigner) options(rest string, zone *time.Location) (string, error) {
	seen := make(map[string]bool)
	for {
		end := strings.IndexAny(rest, "=, \t")
		if end < 0 {
			return "", errors.New("options, and no key")
		}
		name := strings.ToLower(rest[:end])
		value, quoted := "", rest[end] == '='
		rest = rest[end:]
		if quoted {
			var ok bool
			if rest, ok = strings.CutPrefix(rest, `="`); !ok {
				return "", fmt.Errorf("the option %.60q: its value must be quoted", name)
			}
			if value, rest, ok = strings.Cut(rest, `"`); !ok || strings.Contains(value, `\`) {
				return "", fmt.Errorf("the option %.60q: its value is not well formed", name)
			}
		}
		if seen[name] {
			return "", fmt.Errorf("the option %.60q twice", name)
		}
		seen[name] = true
		var err error
		switch {
		case name == "cert-authority" && !quoted:
			return "", errAuthority
		case name == "namespaces" && quoted:
			s.Namespaces = value
			err = checkPatterns(value)
		case name == "valid-after" && quoted:
			s.After, err = parseTime(value, zone)
		case name == "valid-before" && quoted:
			s.Before, err = parseTime(value, zone)
		default:
			err = errors.New("it is not known")
		}
		if err != nil {
			return "", fmt.Errorf("the option %.60q: %w", name, err)
		}
		if rest == "" {
			return "", errors.New("options, and no key")
		}
		if rest[0] != ',' {
			break
		}
		rest = rest[1:]
	}
	if !strings.ContainsAny(rest[:1], white) {
		return "", errors.New("an option that goes on after its value")
	}
	if !s.After.IsZero() && !s.Before.IsZero() && s.After.After(s.Before) {
		return "", errors.New("valid-before lies before valid-after")
	}
	return strings.TrimLeft(rest, white), nil
}

// parseTime reads YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z].
func parseTime(s string, zone *time.Location) (time.Time, error) {
	digits, utc := strings.CutSuffix(s, "Z")
	if utc {
		zone = time.UTC
	}
	layout, ok := map[int]string{8: "20060102", 12: "200601021504", 14: "20060102150405"}[len(digits)]
	if !ok {
		return time.Time{}, fmt.Errorf("%.30q is no time: YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with a Z behind it for UTC", s)
	}
	t, err := time.ParseInLocation(layout, digits, zone)
	if err != nil || t.Unix() <= 0 || t.Format(layout) != digits {
		return time.Time{}, fmt.Errorf("%.30q is no time", s)
	}
	return t, nil
}

// checkPatterns checks a list of patterns.
func checkPatterns(list string) error {
	n := 0
	for p := range strings.SplitSeq(list, ",") {
		if strings.TrimPrefix(p, "!") == "" {
			return errors.New("an empty pattern")
		}
		if n++; n > maxPatterns {
			return fmt.Errorf("more than %d patterns", maxPatterns)
		}
	}
	return nil
}

// matchList tells whether a word is in a list of patterns, as ssh_config(5) has them: with * and ?, and none of those behind a "!" matches.
func matchList(word, list string) bool {
	found := false
	for p := range strings.SplitSeq(list, ",") {
		p, not := strings.CutPrefix(p, "!")
		if match(word, p) {
			if not {
				return false
			}
			found = true
		}
	}
	return found
}

// match tells whether a word is of a pattern, byte by byte, without trying more than one star anew.
func match(word, pattern string) bool {
	w, p, star, from := 0, 0, -1, 0
	for w < len(word) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, w
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == word[w]):
			w++
			p++
		case star >= 0:
			from++
			w, p = from, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// anybody tells whether a list of patterns names anybody at all.
func anybody(list string) bool {
	for p := range strings.SplitSeq(list, ",") {
		if !strings.HasPrefix(p, "!") {
			return true
		}
	}
	return false
}

// String prints the line, in the one way that this package prints it.
func (s *AllowedSigner) String() string {
	var b strings.Builder
	if strings.ContainsAny(s.Principals, " \t#") || s.Principals == "" {
		fmt.Fprintf(&b, `"%s" `, s.Principals)
	} else {
		b.WriteString(s.Principals + " ")
	}
	var options []string
	if s.Namespaces != "" {
		options = append(options, `namespaces="`+s.Namespaces+`"`)
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"valid-after", s.After}, {"valid-before", s.Before}} {
		if !t.at.IsZero() {
			options = append(options, t.name+`="`+t.at.UTC().Format("20060102150405")+`Z"`)
		}
	}
	if len(options) > 0 {
		b.WriteString(strings.Join(options, ",") + " ")
	}
	b.WriteString(s.Key.Algorithm + " " + base64.StdEncoding.EncodeToString(s.Key.Blob))
	if s.Comment != "" {
		b.WriteString(" " + s.Comment)
	}
	return b.String()
}
