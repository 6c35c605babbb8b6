package create

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// MaxCommitters bounds the keys of others that may sign from the beginning.
const MaxCommitters = 100

// A Committer is one who may sign beside the one who creates the channel.
type Committer struct {
	Key    openpgp.Fingerprint // a key, or a subkey of the certificate
	Public []byte              // the certificate in ASCII armour, or binary
}

// Options say what a new channel is.
type Options struct {
	Name       string
	URL        string
	Branch     string
	Author     string // NAME <ADDRESS>
	Message    string // of the introduction; "" for one of ours
	Date       time.Time
	Committers []Committer
}

// A Made is a channel that was created.
type Made struct {
	Introduction git.ID
	Signer       openpgp.Fingerprint
	Keyring      git.ID
	Order        trust.Channel // what officers sign, but for the reason
}

// Channel is how channels.scm names it.
func (m *Made) Channel() scheme.Channel {
	return scheme.Channel{Name: m.Order.Name, URL: m.Order.URL, Branch: m.Order.Branch,
		Introduction: &scheme.Introduction{Commit: m.Introduction.String(), Signer: scheme.Fingerprint(m.Signer)}}
}

// Check says everything that is wrong with the options.
func (o *Options) Check() error {
	errs := []error{trust.CheckChannel(o.Name), trust.CheckChannelURL(o.URL), trust.CheckBranch(o.Branch), CheckUser(o.Author)}
	if strings.ContainsFunc(o.Message, func(c rune) bool { return c < ' ' && c != '\n' || c == 0x7f }) || len(o.Message) > 64<<10 {
		errs = append(errs, errors.New("the message has control characters, or is too long"))
	}
	if len(o.Committers) > MaxCommitters {
		errs = append(errs, fmt.Errorf("%d committers, at most %d", len(o.Committers), MaxCommitters))
	}
	return errors.Join(errs...)
}

// Repository makes the channel's repository in dir, which must not be there.
func Repository(ctx context.Context, dir string, o Options, by Signer) (_ *Made, err error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(dir); err == nil {
		return nil, fmt.Errorf("%s is there already", dir)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	c, err := o.content(by)
	if err != nil {
		return nil, err
	}
	made, objects, err := o.commits(ctx, c, by)
	if err != nil {
		return nil, err
	}
	tmp, done, err := durable.TempBeside(dir, "channel")
	if err != nil {
		return nil, err
	}
	defer done()
	place := filepath.Join(tmp, "repository")
	if err := o.write(place, c, made, objects); err != nil {
		return nil, err
	}
	// What everybody will ask of it is asked here first.
	if err := judge(ctx, place, o.Branch, made); err != nil {
		return nil, err
	}
	return made, durable.Rename(durable.OS{}, place, dir)
}

// A content is what the two branches hold.
type content struct {
	channel map[string][]byte
	keyring map[string][]byte
}

// content makes the files.
func (o *Options) content(by Signer) (*content, error) {
	c := &content{keyring: map[string][]byte{}}
	var list strings.Builder
	seen := map[openpgp.Fingerprint]bool{}
	for _, k := range append([]Committer{{by.Fingerprint(), by.Public()}}, o.Committers...) {
		ring := openpgp.NewKeyring()
		if err := ring.Add("key", k.Public); err != nil {
			return nil, trust.Refuse("key-unusable", k.Key.String(), "%v: Guix could use no key of a keyring with this certificate", err)
		}
		key := ring.ByFingerprint(k.Key)
		if key == nil || key.Bits == 0 {
			return nil, trust.Refuse("key-unusable", k.Key.String(), "the certificate has no such key, or one of an algorithm that Guix cannot verify")
		}
		if seen[k.Key] {
			return nil, trust.Refuse("key-twice", k.Key.String(), "the key is named twice")
		}
		seen[k.Key] = true
		name := fileName(key.User())
		fmt.Fprintf(&list, "\n   (%q\n    (name %s))", k.Key.String(), scheme.Value{Kind: scheme.String, Text: name})
		file := fmt.Sprintf("%s-%s.key", name, hexOf(k.Key)[32:])
		if c.keyring[file] != nil {
			return nil, fmt.Errorf("two keys would have the file %s", file)
		}
		c.keyring[file] = k.Public
	}
	c.channel = map[string][]byte{
		".guix-channel": fmt.Appendf(nil, "(channel\n (version 0)\n (url %s)\n (keyring-reference %q))\n", scheme.Value{Kind: scheme.String, Text: o.URL}, authenticate.DefaultKeyring),
		".guix-authorizations": fmt.Appendf(nil, ";; Who may sign commits: the commit that changes this list is itself signed by one who stood in it before.\n"+
			"(authorizations\n (version 0)\n\n (%s))\n", strings.TrimLeft(list.String(), "\n ")),
	}
	// They are read as everybody will read them.
	if _, err := scheme.ParseMetadata(c.channel[".guix-channel"]); err != nil {
		return nil, err
	}
	if all, err := scheme.ParseAuthorizations(c.channel[".guix-authorizations"]); err != nil || len(all) != len(seen) {
		return nil, fmt.Errorf(".guix-authorizations: %d keys, not %d: %w", len(all), len(seen), err)
	}
	return c, nil
}

// fileName makes a plain word of a person.
func fileName(user string) string {
	name, _, _ := strings.Cut(user, " <")
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 32 {
			break
		}
	}
	if name = strings.Trim(b.String(), "-"); name == "" {
		return "signer"
	}
	return name
}

// An object is one that is to be written.
type object struct {
	kind git.Kind
	data []byte
}

// commits makes the objects of both branches.
func (o *Options) commits(ctx context.Context, c *content, by Signer) (*Made, map[git.ID]object, error) {
	objects := map[git.ID]object{}
	put := func(kind git.Kind, data []byte) git.ID {
		id := git.Hash(kind, data)
		objects[id] = object{kind, data}
		return id
	}
	tree := func(files map[string][]byte) git.ID {
		var b []byte
		for _, name := range slices.Sorted(maps.Keys(files)) {
			id := put(git.KindBlob, files[name])
			b = append(fmt.Appendf(b, "%o %s\x00", git.ModeFile, name), id[:]...)
		}
		return put(git.KindTree, b)
	}
	who := fmt.Sprintf("%s %d +0000", o.Author, o.Date.Unix())
	head := func(tree git.ID) []byte {
		return fmt.Appendf(nil, "tree %s\nauthor %s\ncommitter %s\n", tree, who, who)
	}
	keys := put(git.KindCommit, fmt.Appendf(head(tree(c.keyring)), "\nkeys of those who sign the channel %s\n", o.Name))

	message := o.Message
	if message == "" {
		message = fmt.Sprintf("introduce the channel %s\n\nAuthentication begins at this commit.", o.Name)
	}
	top := head(tree(c.channel))
	text := []byte("\n" + strings.TrimRight(message, "\n") + "\n")
	plain := append(bytes.Clone(top), text...)
	armored, err := by.Sign(ctx, plain)
	if err != nil {
		return nil, nil, err
	}
	if err := check(by, plain, armored); err != nil {
		return nil, nil, err
	}
	header := "gpgsig " + strings.ReplaceAll(strings.TrimRight(strings.ReplaceAll(string(armored), "\r\n", "\n"), "\n"), "\n", "\n ") + "\n"
	introduction := put(git.KindCommit, append(append(bytes.Clone(top), header...), text...))
	made := &Made{Introduction: introduction, Signer: by.Fingerprint(), Keyring: keys}
	made.Order = trust.Channel{Name: o.Name, URL: o.URL, Branch: o.Branch, Commit: introduction.String(), Signer: hexOf(made.Signer), Date: o.Date}
	return made, objects, nil
}

// check verifies what a signer has made, as Guix will.
func check(by Signer, data, armored []byte) error {
	bad := func(err error) error {
		return trust.Refuse("signature-bad", by.Fingerprint().String(), "what was signed does not verify: %v", err)
	}
	sig, err := openpgp.ParseArmoredSignature(armored)
	if err != nil {
		return bad(err)
	}
	ring := openpgp.NewKeyring()
	if err := ring.Add("key", by.Public()); err != nil {
		return bad(err)
	}
	key := ring.Issuer(sig)
	if key == nil || key.Fingerprint != by.Fingerprint() {
		return bad(errors.New("another key has signed"))
	}
	if err := key.Verify(sig, [][]byte{data}); err != nil {
		return bad(err)
	}
	return nil
}

// write writes the repository. Everything in it has reached the disk when it returns.
func (o *Options) write(dir string, c *content, made *Made, objects map[git.ID]object) error {
	files := []durable.File{}
	add := func(name string, data []byte, perm fs.FileMode) {
		files = append(files, durable.File{Path: filepath.Join(dir, name), Data: data, Perm: perm})
	}
	for id, obj := range objects {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		fmt.Fprintf(w, "%s %d\x00", obj.kind, len(obj.data))
		w.Write(obj.data)
		if err := w.Close(); err != nil {
			return err
		}
		hex := id.String()
		add(".git/objects/"+hex[:2]+"/"+hex[2:], b.Bytes(), 0o444)
	}
	add(".git/refs/heads/"+o.Branch, []byte(made.Introduction.String()+"\n"), 0o644)
	add(".git/refs/heads/"+authenticate.DefaultKeyring, []byte(made.Keyring.String()+"\n"), 0o644)
	add(".git/HEAD", []byte("ref: refs/heads/"+o.Branch+"\n"), 0o644)
	name, address, _ := strings.Cut(o.Author, " <")
	add(".git/config", fmt.Appendf(nil, "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"+
		"[user]\n\tname = %s\n\temail = %s\n\tsigningkey = %s!\n[commit]\n\tgpgsign = true\n[gpg]\n\tformat = openpgp\n",
		configValue(name), configValue(strings.TrimSuffix(address, ">")), hexOf(made.Signer)), 0o644)
	add(".git/index", index(c.channel), 0o644)
	for name, data := range c.channel {
		add(name, data, 0o644)
	}
	for _, f := range files {
		if err := durable.MkdirAll(durable.OS{}, filepath.Dir(f.Path), 0o755); err != nil {
			return err
		}
	}
	return durable.WriteAll(durable.OS{}, dir, files...)
}

// configValue quotes a value for git's configuration.
func configValue(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// index is git's index, version 2 (gitformat-index), of files whose times nobody knows yet: git looks them up when it is asked first.
func index(files map[string][]byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte("DIRC"), 2)
	b = binary.BigEndian.AppendUint32(b, uint32(len(files)))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		at := len(b)
		b = append(b, make([]byte, 24)...) // times, device, inode
		b = binary.BigEndian.AppendUint32(b, git.ModeFile)
		b = append(b, make([]byte, 8)...) // owner
		b = binary.BigEndian.AppendUint32(b, uint32(len(files[name])))
		id := git.Hash(git.KindBlob, files[name])
		b = append(b, id[:]...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		b = append(b, name...)
		b = append(b, make([]byte, 8-(len(b)-at)%8)...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

// judge authenticates what was made.
func judge(ctx context.Context, dir, branch string, made *Made) (err error) {
	r, err := authenticate.Open(dir, authenticate.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	report, err := r.Authenticate(ctx, authenticate.Request{Introduction: made.Introduction, Signer: made.Signer, End: "refs/heads/" + branch})
	if err != nil {
		return err
	}
	if refused := r.Refused(report.Verdict, nil); len(refused) > 0 {
		return refused
	}
	if report.End != made.Introduction {
		return fmt.Errorf("the branch %s is at %s", branch, report.End)
	}
	return r.Check(report.End, nil)
}
