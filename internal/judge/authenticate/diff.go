package authenticate

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"sallyport/guix/channel"
	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/trust"
)

// Bounds of a comparison. What is beyond is counted, not listed.
const (
	MaxDiffFiles    = 5000
	MaxDiffPackages = 5000
	maxModule       = 16 << 20 // bytes of a file that is searched for packages
	maxDiffCommits  = 1 << 20
)

// A Difference is what lies between two commits of a channel: what a person looks at before the newer one is pinned or approved. Texts that come from the
// channel are escaped.
type Difference struct {
	Old     git.ID `json:"-"`
	New     git.ID `json:"-"`
	Forward bool   `json:"forward"` // the new commit is the old one or descends from it

	// What the commits in between say; of a difference that is not forward, nothing.
	Commits  int            `json:"commits"`
	Signers  []DiffSigner   `json:"signers,omitempty"`
	Listings []ListChange   `json:"authorization_commits,omitempty"` // the commits that changed .guix-authorizations, the newest first
	Keys     DiffKeys       `json:"authorizations"`                  // what changed in it altogether
	Channel  bool           `json:"channel_file_changed"`            // .guix-channel: dependencies, the directory of modules, the keyring's branch
	Self     bool           `json:"build_self_changed"`              // build-aux/build-self.scm, which guix pull runs
	Files    []FileChange   `json:"files,omitempty"`
	Changed  int            `json:"files_changed"`
	Packages []ModuleChange `json:"packages,omitempty"`
	Renamed  int            `json:"packages_changed"` // definitions, in all files
}

// A DiffSigner has signed some of the commits in between.
type DiffSigner struct {
	Key     string `json:"key"`
	User    string `json:"user,omitempty"` // as the keyring says
	Commits int    `json:"commits"`
	New     bool   `json:"new,omitempty"` // none of the commits before are signed by it
}

// A ListChange is a commit that changed who may sign.
type ListChange struct {
	Commit  string   `json:"commit"`
	Author  string   `json:"author"`
	Key     string   `json:"key,omitempty"`
	Subject string   `json:"subject"`
	Keys    DiffKeys `json:"keys"`
}

// DiffKeys is what became of a list of keys.
type DiffKeys struct {
	Changed bool     `json:"changed"`
	Added   []string `json:"added,omitempty"` // FINGERPRINT (NAME)
	Removed []string `json:"removed,omitempty"`
	Fault   string   `json:"fault,omitempty"` // one of the lists cannot be read
}

// A FileChange is a file that is not as it was.
type FileChange struct {
	Path string `json:"path"`
	How  string `json:"how"` // added, removed or changed
}

// A ModuleChange tells which definitions of a module are not as they were.
type ModuleChange struct {
	Path    string   `json:"path"`
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Changed []string `json:"changed,omitempty"`
}

// Diff compares a commit that was authenticated, the end of the report, with an older one. The older one need not be among its ancestors, but has to be in the repository.
func (r *Repository) Diff(ctx context.Context, report *Report, old git.ID) (*Difference, error) {
	d := &differ{ctx: ctx, r: r.db.NewReader(), report: report, out: &Difference{Old: old, New: report.End}, room: room{2 * MaxTreeFiles, 2 * MaxCheckout}}
	within, ok := report.Ancestors(old)
	if d.out.Forward = ok; ok {
		if err := d.commits(within); err != nil {
			return nil, err
		}
	}
	before, err := r.treeOf(d.r, old)
	if err != nil {
		return nil, err
	}
	after, err := r.treeOf(d.r, report.End)
	if err != nil {
		return nil, err
	}
	was, err := d.list(before)
	if err != nil {
		return nil, err
	}
	is, err := d.list(after)
	if err != nil {
		return nil, err
	}
	if d.out.Keys, err = d.keys(was, is); err != nil {
		return nil, err
	}
	if err := d.trees(before, after, "", 0); err != nil {
		return nil, err
	}
	return d.out, nil
}

type differ struct {
	ctx    context.Context
	r      *git.Reader
	report *Report
	out    *Difference
	room   room // of both trees
}

// list returns the id of a tree's list of keys, zero if it has none.
func (d *differ) list(tree git.ID) (git.ID, error) {
	raw, err := d.r.Read(tree, git.KindTree)
	if err != nil {
		return git.ID{}, bytesAtFault(err, "tree "+tree.String())
	}
	e, _, err := git.Find(raw, ".guix-authorizations")
	return e.ID, bytesAtFault(err, "tree "+tree.String())
}

// commits goes through what lies between, the newest first as far as one sees from the end.
func (d *differ) commits(old func(git.ID) bool) error {
	out := d.out
	count := make(map[openpgp.Fingerprint]int)
	lists := make(map[git.ID]git.ID) // by tree
	listOf := func(tree git.ID) (git.ID, error) {
		id, ok := lists[tree]
		if ok {
			return id, nil
		}
		id, err := d.list(tree)
		if err == nil {
			lists[tree] = id
		}
		return id, err
	}
	if old(out.New) {
		return nil
	}
	seen := map[git.ID]bool{out.New: true}
	for todo := []git.ID{out.New}; len(todo) > 0; out.Commits++ {
		if err := d.ctx.Err(); err != nil {
			return err
		}
		if out.Commits == maxDiffCommits {
			return trust.Refuse(CodeMalformed, "commit "+out.New.String(), "more than %d commits", maxDiffCommits)
		}
		id := todo[0]
		todo = todo[1:]
		c, err := d.commit(id)
		if err != nil {
			return err
		}
		key := d.signer(c)
		if key != nil {
			count[key.Fingerprint]++
		}
		mine, err := listOf(c.Tree)
		if err != nil {
			return err
		}
		changed, first := true, git.ID{} // a commit that has the list of one of its parents has merged it, no more
		for i, p := range c.Parents {
			if !seen[p] && !old(p) {
				seen[p] = true
				todo = append(todo, p)
			}
			parent, err := d.commit(p)
			if err != nil {
				return err
			}
			theirs, err := listOf(parent.Tree)
			if err != nil {
				return err
			}
			if i == 0 {
				first = theirs
			}
			changed = changed && theirs != mine
		}
		if changed && (mine != git.ID{} || first != git.ID{}) {
			keys, err := d.keys(first, mine)
			if err != nil {
				return err
			}
			name, email := git.Person(c.Author)
			l := ListChange{Commit: id.String(), Author: channel.Escape(name + " <" + email + ">"), Subject: channel.Escape(subject(c)), Keys: keys}
			if key != nil {
				l.Key = key.Fingerprint.String()
			}
			out.Listings = append(out.Listings, l)
		}
	}
	all := make(map[openpgp.Fingerprint]int)
	for _, s := range d.report.Signers {
		all[s.Key] = s.Commits
	}
	for _, print := range slices.SortedFunc(maps.Keys(count), func(a, b openpgp.Fingerprint) int { return cmp.Or(count[b]-count[a], bytes.Compare(a[:], b[:])) }) {
		s := DiffSigner{Key: print.String(), Commits: count[print], New: all[print] <= count[print] && print != d.report.Signer}
		if k := d.report.Keyring.ByFingerprint(print); k != nil {
			s.User = channel.Escape(k.User())
		}
		out.Signers = append(out.Signers, s)
	}
	return nil
}

// commit reads one that can be kept.
func (d *differ) commit(id git.ID) (*git.Commit, error) {
	raw, err := d.r.Read(id, git.KindCommit)
	if err != nil {
		return nil, bytesAtFault(err, "commit "+id.String())
	}
	c, err := git.ParseCommit(bytes.Clone(raw))
	if err != nil {
		return nil, bytesAtFault(err, "commit "+id.String())
	}
	return c, nil
}

// signer returns the key that a commit names as its own, which was found to have signed it.
func (d *differ) signer(c *git.Commit) *openpgp.Key {
	sig, err := openpgp.ParseArmoredSignature(c.Signature)
	if err != nil {
		return nil // of a history that is not authentic
	}
	return d.report.Keyring.Issuer(sig)
}

// subject is the first line of a commit's message.
func subject(c *git.Commit) string {
	_, message, _ := bytes.Cut(bytes.Join(c.Signed, nil), []byte("\n\n"))
	line, _, _ := bytes.Cut(bytes.TrimLeft(message, "\n"), []byte("\n"))
	return string(line)
}

// keys compares two lists of keys by the ids of their files, zero for none.
func (d *differ) keys(was, is git.ID) (k DiffKeys, err error) {
	if was == is {
		return k, nil
	}
	k.Changed = true
	read := func(id git.ID) (map[string]string, error) {
		all := make(map[string]string)
		if id.IsZero() {
			return all, nil
		}
		raw, err := d.r.Read(id, git.KindBlob)
		if err != nil {
			if err = bytesAtFault(err, ".guix-authorizations"); isRefusal(err) {
				k.Fault = channel.Escape(err.Error())
				err = nil
			}
			return all, err
		}
		list, err := scheme.ParseAuthorizations(bytes.Clone(raw))
		if err != nil {
			k.Fault = channel.Escape(err.Error())
			return all, nil
		}
		for _, a := range list {
			s := a.Key.String()
			if a.Name != "" {
				s += " (" + channel.Escape(a.Name) + ")"
			}
			all[a.Key.Hex()] = s
		}
		return all, nil
	}
	before, err := read(was)
	if err != nil {
		return k, err
	}
	after, err := read(is)
	if err != nil {
		return k, err
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[key]; !ok {
			k.Added = append(k.Added, after[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[key]; !ok {
			k.Removed = append(k.Removed, before[key])
		}
	}
	return k, nil
}

func isRefusal(err error) bool { _, ok := trust.AsRefusals(err); return ok }

// entries reads a tree, none for the zero id.
func (d *differ) entries(tree git.ID, dir string) (map[string]git.TreeEntry, error) {
	all := make(map[string]git.TreeEntry)
	if tree.IsZero() {
		return all, nil
	}
	raw, err := d.r.Read(tree, git.KindTree)
	if err != nil {
		return nil, bytesAtFault(err, dir)
	}
	if err := d.room.take(dir, 0, int64(len(raw))); err != nil {
		return nil, err
	}
	for e, err := range git.Entries(bytes.Clone(raw)) {
		if err != nil {
			return nil, bytesAtFault(err, dir)
		}
		if err := d.room.take(dir, 1, 0); err != nil {
			return nil, err
		}
		all[string(e.Name)] = e
	}
	return all, nil
}

// trees compares two trees, of which one may be none.
func (d *differ) trees(was, is git.ID, dir string, depth int) error {
	if was == is {
		return nil
	}
	if depth > MaxTreeDepth {
		return trust.Refuse(CodeMalformed, dir, "trees nested deeper than %d", MaxTreeDepth)
	}
	if err := d.ctx.Err(); err != nil {
		return err
	}
	before, err := d.entries(was, dir)
	if err != nil {
		return err
	}
	after, err := d.entries(is, dir)
	if err != nil {
		return err
	}
	both := maps.Clone(before)
	maps.Copy(both, after)
	for _, name := range slices.Sorted(maps.Keys(both)) {
		a, b := before[name], after[name]
		if a.ID == b.ID && a.Mode == b.Mode {
			continue
		}
		// What is below a directory that came or went is told file by file; so is what took its place.
		full := path.Join(dir, name)
		if a.IsTree() || b.IsTree() {
			var x, y git.ID
			if a.IsTree() {
				x = a.ID
			}
			if b.IsTree() {
				y = b.ID
			}
			if err := d.trees(x, y, full, depth+1); err != nil {
				return err
			}
		}
		how := ""
		switch isA, isB := a.Mode != 0 && !a.IsTree(), b.Mode != 0 && !b.IsTree(); {
		case isA && isB:
			how = "changed"
		case isA:
			how = "removed"
		case isB:
			how = "added"
		default:
			continue
		}
		if err := d.file(full, how, a, b); err != nil {
			return err
		}
	}
	return nil
}

// file notes one that came, went or changed.
func (d *differ) file(name, how string, a, b git.TreeEntry) error {
	out := d.out
	if out.Changed++; len(out.Files) < MaxDiffFiles {
		out.Files = append(out.Files, FileChange{channel.Escape(name), how})
	}
	switch name {
	case ".guix-channel":
		out.Channel = true
	case "build-aux/build-self.scm":
		out.Self = true
	}
	if !strings.HasSuffix(name, ".scm") {
		return nil
	}
	before, err := d.definitions(a)
	if err != nil {
		return err
	}
	after, err := d.definitions(b)
	if err != nil {
		return err
	}
	m := ModuleChange{Path: channel.Escape(name)}
	for _, def := range slices.Sorted(maps.Keys(after)) {
		if text, ok := before[def]; !ok {
			m.Added = append(m.Added, channel.Escape(def))
		} else if text != after[def] {
			m.Changed = append(m.Changed, channel.Escape(def))
		}
	}
	for _, def := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[def]; !ok {
			m.Removed = append(m.Removed, channel.Escape(def))
		}
	}
	n := len(m.Added) + len(m.Changed) + len(m.Removed)
	if n > 0 && out.Renamed+n <= MaxDiffPackages {
		out.Packages = append(out.Packages, m)
	}
	out.Renamed += n
	return nil
}

var definition = regexp.MustCompile(`(?m)^\(define-public[ \t]+([^\s()";]+)`)

// definitions finds what a module defines and exports, each with its text up to the next form that begins in the first column. It is a look at text: what is built in
// another way is not seen.
func (d *differ) definitions(e git.TreeEntry) (map[string]string, error) {
	if e.Mode&0o170000 != 0o100000 {
		return nil, nil
	}
	raw, err := d.r.Read(e.ID, git.KindBlob)
	if err != nil {
		return nil, bytesAtFault(err, "file "+e.ID.String())
	}
	if err := d.room.take("file "+e.ID.String(), 0, int64(len(raw))); err != nil {
		return nil, err
	}
	if len(raw) > maxModule {
		return nil, nil
	}
	all := make(map[string]string)
	again := make(map[string][]string) // of what is defined more than once, which may be many times
	text := string(raw)
	for _, at := range definition.FindAllStringSubmatchIndex(text, -1) {
		body := text[at[0]:]
		if end := strings.Index(body[1:], "\n("); end >= 0 {
			body = body[:end+1]
		}
		name, body := text[at[2]:at[3]], strings.TrimSpace(body)
		if first, ok := all[name]; !ok {
			all[name] = body
		} else {
			if again[name] == nil {
				again[name] = []string{first}
			}
			again[name] = append(again[name], body)
		}
	}
	for name, bodies := range again {
		all[name] = strings.Join(bodies, "")
	}
	return all, nil
}

// Text prints the difference for people. What matters most stands first, and in capitals.
func (d *Difference) Text() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "from %s\nto   %s\n", d.Old, d.New)
	if !d.Forward {
		fmt.Fprintf(&b, "NOT FORWARD: the new commit does not descend from the old one\n")
	} else {
		fmt.Fprintf(&b, "%s\n", trust.Count(d.Commits, "commit"))
	}
	printKeys := func(k DiffKeys, indent string) {
		for _, s := range k.Added {
			fmt.Fprintf(&b, "%s+ %s\n", indent, s)
		}
		for _, s := range k.Removed {
			fmt.Fprintf(&b, "%s- %s\n", indent, s)
		}
		if k.Fault != "" {
			fmt.Fprintf(&b, "%s? it cannot be read: %s\n", indent, k.Fault)
		}
	}
	if d.Keys.Changed || len(d.Listings) > 0 {
		fmt.Fprintf(&b, "AUTHORIZATIONS CHANGED: who may sign is not who might\n")
		printKeys(d.Keys, "  ")
		for _, l := range d.Listings {
			fmt.Fprintf(&b, "  by commit %s of %s, signed by %s: %s\n", l.Commit, l.Author, cmp.Or(l.Key, "nobody"), l.Subject)
			printKeys(l.Keys, "    ")
		}
	}
	if d.Channel {
		fmt.Fprintf(&b, "CHANNEL FILE CHANGED: .guix-channel says where the modules are, what else the channel needs, where its keys are\n")
	}
	if d.Self {
		fmt.Fprintf(&b, "BUILD-SELF CHANGED: guix pull runs build-aux/build-self.scm\n")
	}
	for _, s := range d.Signers {
		mark := ""
		if s.New {
			mark = "NEW SIGNER: "
		}
		fmt.Fprintf(&b, "%ssigned by %s: %s", mark, s.Key, trust.Count(s.Commits, "commit"))
		if s.User != "" {
			fmt.Fprintf(&b, ", %s", s.User)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%s changed, %s\n", trust.Count(d.Changed, "file"), trust.Count(d.Renamed, "package"))
	for _, m := range d.Packages {
		fmt.Fprintf(&b, "  %s:", m.Path)
		for _, l := range []struct {
			mark  string
			names []string
		}{{"+", m.Added}, {"-", m.Removed}, {"", m.Changed}} {
			for _, n := range l.names {
				fmt.Fprintf(&b, " %s%s", l.mark, n)
			}
		}
		b.WriteByte('\n')
	}
	listed := make(map[string]bool)
	for _, m := range d.Packages {
		listed[m.Path] = true
	}
	for _, f := range d.Files {
		if !listed[f.Path] {
			fmt.Fprintf(&b, "  %s: %s\n", f.Path, f.How)
		}
	}
	if n := d.Changed - len(d.Files); n > 0 && len(d.Files) > 0 {
		fmt.Fprintf(&b, "  and %d more files\n", n)
	}
	return b.Bytes()
}
