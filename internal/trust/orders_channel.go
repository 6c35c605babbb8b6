package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bounds on what orders say of channels.
const (
	MaxChannelURL  = 1024 // bytes
	MaxBranch      = 200  // bytes
	MaxExcuse      = 366 * 24 * time.Hour
	maxChannel     = 64
	commitLen      = 40
	fingerprintLen = 40
)

// A Channel is one that the enclave takes, as it was handed over on paper. There is at most one of a name.
type Channel struct {
	Name   string
	URL    string // under which it is known on both sides of the gap, and on every track
	Branch string
	Commit string // of the introduction, 40 lower-case hexadecimal digits
	Signer string // who signed the introduction: the fingerprint of an OpenPGP key, 40 upper-case hexadecimal digits
	Date   time.Time
	Reason string
}

// An Excuse lets a finding about a channel's commits pass for a while.
type Excuse struct {
	Name    string // by which people speak of it
	Code    string // of the finding
	Channel string
	Commit  string // the one commit that it is about; "" for all
	Key     string // the one key that it is about, 40 upper-case hexadecimal digits; "" for all
	Until   time.Time
	Date    time.Time
	Reason  string
}

func (c Channel) append(b []byte) []byte {
	b = append(b, orderChannel...)
	for _, field := range []string{c.Name, c.URL, c.Branch, c.Commit, c.Signer} {
		b = append(append(b, ' '), field...)
	}
	return appendReason(b, c.Date, c.Reason)
}

func (e Excuse) append(b []byte) []byte {
	b = append(b, orderExcuse...)
	for _, field := range []string{e.Name, e.Code, e.Channel, orDash(e.Commit), orDash(e.Key)} {
		b = append(append(b, ' '), field...)
	}
	return appendReason(appendDate(append(b, ' '), e.Until), e.Date, e.Reason)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// Channel returns the order by which the enclave takes a channel, if there is one. It may be asked of no orders at all.
func (o *Orders) Channel(name string) (Channel, bool) {
	if o == nil {
		return Channel{}, false
	}
	i := slices.IndexFunc(o.Channels, func(c Channel) bool { return c.Name == name })
	if i < 0 {
		return Channel{}, false
	}
	return o.Channels[i], true
}

// ExcusesFor returns the excuses for findings about a channel, those that are over included. It may be asked of no orders at all.
func (o *Orders) ExcusesFor(channel string) []Excuse {
	if o == nil {
		return nil
	}
	var list []Excuse
	for _, e := range o.Excuses {
		if e.Channel == channel {
			list = append(list, e)
		}
	}
	return list
}

// channel reads NAME URL BRANCH COMMIT FINGERPRINT.
func (p *ordersParser) channel(f []string, date time.Time, reason string) error {
	c := Channel{f[0], f[1], f[2], f[3], f[4], date, reason}
	p.o.Channels = append(p.o.Channels, c)
	for _, err := range []error{CheckChannel(c.Name), CheckChannelURL(c.URL), CheckBranch(c.Branch), CheckCommit(c.Commit), CheckOpenPGP(c.Signer)} {
		if err != nil {
			return err
		}
	}
	return nil
}

// excuse reads NAME CODE CHANNEL COMMIT KEY UNTIL.
func (p *ordersParser) excuse(off int64, f []string, date time.Time, reason string) error {
	e := Excuse{Name: f[0], Code: f[1], Channel: f[2], Date: date, Reason: reason}
	for _, err := range []error{CheckWord(e.Name), CheckWord(e.Code), CheckChannel(e.Channel)} {
		if err != nil {
			return err
		}
	}
	if f[3] != "-" {
		if e.Commit = f[3]; CheckCommit(e.Commit) != nil {
			return CheckCommit(e.Commit)
		}
	}
	if f[4] != "-" {
		if e.Key = f[4]; CheckOpenPGP(e.Key) != nil {
			return CheckOpenPGP(e.Key)
		}
	}
	var err error
	if e.Until, err = ParseDate(f[5]); err != nil {
		return err
	}
	if !date.Before(e.Until) || e.Until.Sub(date) > MaxExcuse {
		p.Refuse("excuse", off, "excuse %s from %s until %s: want 1 second to %d days", e.Name, FormatDate(date), FormatDate(e.Until), int(MaxExcuse/(24*time.Hour)))
	}
	p.o.Excuses = append(p.o.Excuses, e)
	return nil
}

// CheckChannel checks the name of a channel, a symbol of Scheme: [A-Za-z0-9][A-Za-z0-9._+-]{0,63}.
func CheckChannel(s string) error {
	bad := s == "" || len(s) > maxChannel
	for i := 0; i < len(s) && !bad; i++ {
		bad = !isAlphanumeric(s[i]) && (i == 0 || strings.IndexByte("._+-", s[i]) < 0)
	}
	if bad {
		return fmt.Errorf("channel %.80q: want [A-Za-z0-9][A-Za-z0-9._+-]{0,63}", s)
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// CheckChannelURL checks the URL of a channel: https://, http://, ssh:// or file:/// and more behind it, printable ASCII without a space, at most
// [MaxChannelURL] bytes.
func CheckChannelURL(s string) error {
	ok := false
	for _, scheme := range []string{"https://", "http://", "ssh://", "file:///"} {
		ok = ok || strings.HasPrefix(s, scheme) && len(s) > len(scheme)
	}
	for i := 0; i < len(s) && ok; i++ {
		ok = s[i] > 0x20 && s[i] < 0x7f
	}
	if !ok || len(s) > MaxChannelURL {
		return fmt.Errorf("URL %.80q: want https://, http://, ssh:// or file:/// and more behind it, at most %d printable ASCII characters without a space", s, MaxChannelURL)
	}
	return nil
}

// CheckBranch checks the name of a channel's branch: at most [MaxBranch] of [A-Za-z0-9._+-] in parts between slashes, of which none is empty, begins with a
// dot or a hyphen or ends in a dot or in .lock; without two dots in a row; neither HEAD nor keyring, which cross with it.
func CheckBranch(s string) error {
	ok := len(s) <= MaxBranch && s != "HEAD" && s != "keyring" && !strings.Contains(s, "..")
	for part := range strings.SplitSeq(s, "/") {
		ok = ok && part != "" && part[0] != '.' && part[0] != '-' && part[len(part)-1] != '.' && !strings.HasSuffix(part, ".lock")
		for i := 0; i < len(part) && ok; i++ {
			ok = isAlphanumeric(part[i]) || strings.IndexByte("._+-", part[i]) >= 0
		}
	}
	if !ok {
		return fmt.Errorf("branch %.80q: want a branch's name of [A-Za-z0-9._+/-], neither HEAD nor keyring", s)
	}
	return nil
}

// CheckCommit checks a git commit: 40 lower-case hexadecimal digits. Zeros alone are none: whoever judges commits takes them for no commit in particular.
func CheckCommit(s string) error {
	if len(s) != commitLen || strings.Trim(s, "0123456789abcdef") != "" || strings.Trim(s, "0") == "" {
		return fmt.Errorf("commit %.80q: want 40 lower-case hexadecimal digits, not all of them 0", s)
	}
	return nil
}

// CheckOpenPGP checks the fingerprint of an OpenPGP key: 40 upper-case hexadecimal digits. Zeros alone are none, as for a commit.
func CheckOpenPGP(s string) error {
	if len(s) != fingerprintLen || strings.Trim(s, "0123456789ABCDEF") != "" || strings.Trim(s, "0") == "" {
		return fmt.Errorf("fingerprint %.80q: want 40 upper-case hexadecimal digits, not all of them 0", s)
	}
	return nil
}
