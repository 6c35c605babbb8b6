package scheme

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
)

// A Fingerprint is that of an OpenPGP key, version 4.
type Fingerprint [20]byte

// ParseFingerprint reads 40 hexadecimal digits in either case, with any white space
// among them, as Guix does.
func ParseFingerprint(s string) (f Fingerprint, err error) {
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune(space+"\v", r) {
			return -1
		}
		return r
	}, s)
	if len(digits) != 2*len(f) {
		return f, fmt.Errorf("scheme: %s is no fingerprint of 40 hexadecimal digits", quoted(s))
	}
	if _, err := hex.Decode(f[:], []byte(digits)); err != nil {
		return Fingerprint{}, fmt.Errorf("scheme: %s is no fingerprint of 40 hexadecimal digits", quoted(s))
	}
	return f, nil
}

// String prints f in ten groups of four digits, as gpg and Guix do.
func (f Fingerprint) String() string {
	var b strings.Builder
	for i := 0; i < len(f); i += 2 {
		switch i {
		case 0:
		case 10:
			b.WriteString("  ")
		default:
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%02X%02X", f[i], f[i+1])
	}
	return b.String()
}

// Hex prints f as 40 lower-case digits.
func (f Fingerprint) Hex() string { return hex.EncodeToString(f[:]) }

// An Introduction says at which commit the authentication of a channel begins, and
// whose signature it bears.
type Introduction struct {
	Commit string // 40 lower-case hexadecimal digits
	Signer Fingerprint
}

// A Channel is a repository of package definitions. What is "" is not known, or not said.
type Channel struct {
	Name         string
	URL          string
	Branch       string // "master" where a file is silent
	Commit       string // a pin: a commit's id, or what else names one
	Introduction *Introduction
}

// Pinned reports whether the channel names one commit by its whole id.
func (c Channel) Pinned() bool { return isCommit(c.Commit) }

func isCommit(s string) bool { return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == "" }

const defaultBranch = "master"

// DefaultChannel returns what %default-guix-channel is in Guix 1.5.0.
func DefaultChannel() Channel {
	signer, _ := ParseFingerprint("BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA") // is one
	return Channel{
		Name: "guix", URL: "https://git.guix.gnu.org/guix.git", Branch: defaultBranch,
		Introduction: &Introduction{Commit: "9edb3f66fd807b096b48283debdcddccfea34bad", Signer: signer},
	}
}

// Channels reads a channels.scm, or what guix describe -f channels prints.
func Channels(text []byte) ([]Channel, error) {
	v, err := program(text)
	if err != nil {
		return nil, err
	}
	var all []Channel
	seen := make(map[string]bool)
	add := func(c Channel, at Value) error {
		if seen[c.Name] {
			return failAt(at, CodeDuplicate, "a second channel %s", quoted(c.Name))
		}
		seen[c.Name] = true
		all = append(all, c)
		return nil
	}
	err = elements(v, func(v Value) error {
		if v.Kind == Symbol && v.Text == "%default-guix-channel" {
			return add(DefaultChannel(), v)
		}
		c, err := channelCode(v)
		if err != nil {
			return err
		}
		return add(c, v)
	}, func(v Value) (bool, error) {
		if v.Kind == Symbol && v.Text == "%default-channels" {
			return true, add(DefaultChannel(), v)
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// program returns the last form of a file whose other forms load modules.
func program(text []byte) (Value, error) {
	all, err := Parse(text)
	if err != nil {
		return Value{}, err
	}
	if len(all) == 0 {
		return Value{}, &Error{1, 1, 0, CodeForm, "the file holds nothing"}
	}
	last := len(all) - 1
	for _, v := range all[:last] {
		if v.Head() != "use-modules" || v.Tail != nil {
			return Value{}, failAt(v, CodeForm, "only (use-modules ...) may come before the value, not %s", describe(v))
		}
	}
	return all[last], nil
}

// elements walks an expression whose value is a list, and calls each for what it holds. If
// special takes a form, that is an end of the walk.
func elements(v Value, each func(Value) error, special func(Value) (bool, error)) error {
	if done, err := special(v); done || err != nil {
		return err
	}
	if v.Kind != List || v.Tail != nil {
		return failAt(v, CodeForm, "a list belongs here, not %s", describe(v))
	}
	items := v.Items
	if len(items) > 0 {
		items = items[1:]
	}
	switch head := v.Head(); head {
	case "list":
		for _, item := range items {
			if err := each(item); err != nil {
				return err
			}
		}
		return nil
	case "cons", "cons*":
		if len(items) == 0 || head == "cons" && len(items) != 2 {
			return failAt(v, CodeForm, "%s has a wrong number of arguments: %d", head, len(items))
		}
		last := len(items) - 1
		for _, item := range items[:last] {
			if err := each(item); err != nil {
				return err
			}
		}
		return elements(items[last], each, special)
	case "append":
		for _, item := range items {
			if err := elements(item, each, special); err != nil {
				return err
			}
		}
		return nil
	case quote:
		if len(items) == 1 && items[0].Kind == List && len(items[0].Items) == 0 {
			return nil
		}
	}
	return failAt(v, CodeForm, "%s would have to be evaluated", describe(v))
}

// channelCode reads a channel of channels.scm.
func channelCode(v Value) (Channel, error) {
	items, err := proper(v, "channel")
	if err != nil {
		return Channel{}, err
	}
	for _, item := range items {
		if item.Head() == "inherit" {
			return Channel{}, failAt(item, CodeForm, "inherit would have to be evaluated: write out the channel")
		}
	}
	return channelFields(v, items, true)
}

// channelFields reads the fields of a channel. In code, names are quoted and introductions are
// calls; elsewhere they are data.
func channelFields(v Value, items []Value, code bool) (Channel, error) {
	var c Channel
	r, err := fields(v, items, "name", "url", "branch", "commit", "introduction")
	if err != nil {
		return c, err
	}
	name, err := r.must("name")
	if err != nil {
		return c, err
	}
	if c.Name, err = channelName(name, code); err != nil {
		return c, err
	}
	if _, err := r.must("url"); err != nil {
		return c, err
	}
	return c, c.origin(r, code)
}

// channelData reads a channel that is data.
func channelData(v Value) (Channel, error) {
	items, err := proper(v, "channel")
	if err != nil {
		return Channel{}, err
	}
	return channelFields(v, items, false)
}

// origin reads url, branch, commit and introduction.
func (c *Channel) origin(r record, code bool) (err error) {
	if c.URL, _, err = r.text("url", "", true); err != nil {
		return err
	}
	if c.Branch, _, err = r.text("branch", defaultBranch, true); err != nil {
		return err
	}
	if c.Commit, _, err = r.text("commit", "", true); err != nil {
		return err
	}
	in, ok, err := r.value("introduction")
	if ok && err == nil && !(in.Kind == Boolean && !in.Bool) {
		c.Introduction, err = introduction(in, code)
	}
	return err
}

func channelName(v Value, code bool) (string, error) {
	if code {
		items, err := proper(v, quote)
		if err != nil || len(items) != 1 {
			return "", failAt(v, CodeValue, "a quoted symbol belongs here, not %s", describe(v))
		}
		v = items[0]
	}
	switch {
	case v.Kind != Symbol:
		return "", failAt(v, CodeValue, "a symbol belongs here, not %s", describe(v))
	case strings.Trim(v.Text, initialLetters+digits+"+-._") != "" || strings.HasPrefix(v.Text, ".") || len(v.Text) > maxName:
		// The name becomes one of a directory and of a branch.
		return "", failAt(v, CodeValue, "%s cannot be the name of a channel", quoted(v.Text))
	}
	return v.Text, nil
}

const (
	initialLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	maxName        = 128
)

// introduction reads (make-channel-introduction C (openpgp-fingerprint F)) in code, and
// (channel-introduction (version 0) (commit C) (signer F)) elsewhere.
func introduction(v Value, code bool) (*Introduction, error) {
	var commit, signer Value
	if code && v.Head() == "make-channel-introduction" {
		items, err := proper(v, "make-channel-introduction")
		if err != nil {
			return nil, err
		}
		if len(items) != 2 {
			return nil, failAt(v, CodeForm, "an introduction has two arguments, not %d", len(items))
		}
		print, err := proper(items[1], "openpgp-fingerprint")
		if err != nil {
			return nil, err
		}
		if len(print) != 1 {
			return nil, failAt(items[1], CodeForm, "a fingerprint has one argument, not %d", len(print))
		}
		commit, signer = items[0], print[0]
	} else {
		if code {
			return nil, failAt(v, CodeForm, "(make-channel-introduction ...) belongs here, not %s", describe(v))
		}
		_, items, err := versioned(v, "channel-introduction", 0)
		if err != nil {
			return nil, err
		}
		r, err := fields(v, items, "commit", "signer")
		if err != nil {
			return nil, err
		}
		if commit, err = r.must("commit"); err != nil {
			return nil, err
		}
		if signer, err = r.must("signer"); err != nil {
			return nil, err
		}
	}
	if commit.Kind != String || !isCommit(commit.Text) {
		return nil, failAt(commit, CodeValue, "the id of a commit, 40 lower-case hexadecimal digits, belongs here")
	}
	f, err := fingerprint(signer)
	if err != nil {
		return nil, err
	}
	return &Introduction{commit.Text, f}, nil
}

func fingerprint(v Value) (Fingerprint, error) {
	if v.Kind != String {
		return Fingerprint{}, failAt(v, CodeValue, "a fingerprint belongs here, not %s", describe(v))
	}
	f, err := ParseFingerprint(v.Text)
	if err != nil {
		return f, failAt(v, CodeValue, "%s is no fingerprint of 40 hexadecimal digits", quoted(v.Text))
	}
	return f, nil
}

// PrintChannels returns channels as guix describe -f channels prints them; only a line that is longer than
// 79 columns is not broken. Channels reads them back.
func PrintChannels(channels []Channel) []byte {
	var b bytes.Buffer
	b.WriteString("(list")
	for i, c := range channels {
		if i > 0 {
			b.WriteString("\n     ")
		}
		fmt.Fprintf(&b, " (channel\n       (name '%s)\n       (url %s)\n       (branch %s)", c.Name, orFalse(c.URL), orFalse(c.Branch))
		if c.Commit != "" {
			fmt.Fprintf(&b, "\n       (commit %s)", orFalse(c.Commit))
		}
		if in := c.Introduction; in != nil {
			fmt.Fprintf(&b, "\n       (introduction\n        (make-channel-introduction\n         %q\n         (openpgp-fingerprint\n          \"%s\")))", in.Commit, in.Signer)
		}
		b.WriteByte(')')
	}
	b.WriteString(")\n")
	return b.Bytes()
}

func orFalse(s string) string {
	if s == "" {
		return "#f"
	}
	return string(appendString(nil, s))
}

// An Authorization is one key that may sign commits.
type Authorization struct {
	Key  Fingerprint
	Name string // of the key's owner, if the file has (name "..."): a remark, not a fact
}

// ParseAuthorizations reads a .guix-authorizations:
//
//	(authorizations (version 0) (("FINGERPRINT" OPTION ...) ...) REST ...)
//
// Options other than (name "...") and the REST mean nothing, to Guix neither.
func ParseAuthorizations(text []byte) ([]Authorization, error) {
	v, _, items, err := document(text, "authorizations", 0)
	if err != nil {
		return nil, err
	}
	if len(items) == 0 || items[0].Kind != List || items[0].Tail != nil {
		return nil, failAt(v, CodeForm, "the list of keys is missing")
	}
	var all []Authorization
	for _, entry := range items[0].Items {
		if entry.Kind != List || len(entry.Items) == 0 || entry.Tail != nil {
			return nil, failAt(entry, CodeForm, `("FINGERPRINT" ...) belongs here, not %s`, describe(entry))
		}
		var a Authorization
		if a.Key, err = fingerprint(entry.Items[0]); err != nil {
			return nil, err
		}
		for _, option := range entry.Items[1:] {
			if option.Head() == "name" && len(option.Items) == 2 && option.Items[1].Kind == String && a.Name == "" {
				a.Name = option.Items[1].Text
			}
		}
		all = append(all, a)
	}
	return all, nil
}

// Metadata is what the repository of a channel says of itself.
type Metadata struct {
	Directory        string // of the modules in the repository, "." for its top
	NewsFile         string // in the repository, or ""
	URL              string // the primary one, or ""
	KeyringReference string // the branch with the keys; "keyring" where the file is silent
	Dependencies     []Channel
}

// ParseMetadata reads a .guix-channel:
//
//	(channel (version 0) [(directory "D")] [(news-file "F")] [(url "U")] [(keyring-reference "B")]
//	         [(dependencies (channel (name N) (url "U") ...) ...)])
func ParseMetadata(text []byte) (*Metadata, error) {
	v, _, items, err := document(text, "channel", 0)
	if err != nil {
		return nil, err
	}
	r, err := fields(v, items, "directory", "news-file", "url", "keyring-reference", "dependencies")
	if err != nil {
		return nil, err
	}
	m := new(Metadata)
	var at Value
	if m.Directory, at, err = r.text("directory", ".", false); err != nil {
		return nil, err
	}
	if m.Directory, err = inside(at, m.Directory); err != nil {
		return nil, err
	}
	if m.NewsFile, at, err = r.text("news-file", "", false); err != nil {
		return nil, err
	}
	if m.NewsFile != "" {
		if m.NewsFile, err = inside(at, m.NewsFile); err != nil {
			return nil, err
		}
	}
	if m.URL, _, err = r.text("url", "", false); err != nil {
		return nil, err
	}
	if m.KeyringReference, _, err = r.text("keyring-reference", "keyring", false); err != nil {
		return nil, err
	}
	seen := make(map[string]bool)
	if deps, ok := r.fields["dependencies"]; ok {
		for _, dep := range deps.Items[1:] {
			c, err := channelData(dep)
			if err != nil {
				return nil, err
			}
			if seen[c.Name] {
				return nil, failAt(dep, CodeDuplicate, "a second channel %s", quoted(c.Name))
			}
			seen[c.Name] = true
			m.Dependencies = append(m.Dependencies, c)
		}
	}
	return m, nil
}

// inside returns s as a clean path relative to the repository. A leading slash means its top.
func inside(at Value, s string) (string, error) {
	clean := path.Clean(strings.TrimLeft(s, "/"))
	for part := range strings.SplitSeq(s, "/") {
		if part == ".." {
			return "", failAt(at, CodeValue, "%s leaves the repository", quoted(s))
		}
	}
	return clean, nil
}
