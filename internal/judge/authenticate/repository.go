package authenticate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"sallyport/guix/channel/git"
	"sallyport/internal/trust"
)

// A Repository is an open one. Nothing of it is ever written, run or obeyed: its configuration and its hooks are not even opened.
type Repository struct {
	Dir string

	// What lies about that git would mind and this package does not. They are told where an object is missing.
	Alternates bool // objects/info/alternates: more objects lie in another place
	Shallow    bool // the history is cut
	Promisor   bool // a partial clone: git would fetch what is missing
	Grafts     bool // info/grafts: other parents than the commits say
	Replace    bool // refs/replace: other objects than the ids say

	root  *os.Root // of the git directory
	files []io.Closer
	db    *git.Database
	loose []*os.Root // directories of objects
	refs  map[string]git.ID
}

// Options say what of a repository's surroundings may be used.
type Options struct {
	// Alternates are directories of objects beside the repository's own, as an operator names them. What the repository names is not followed.
	Alternates []string
}

// Codes of refusals of a repository as a whole.
const (
	CodeNoRepository = "repository-none"        // there is no repository, or one that lies elsewhere
	CodeRepository   = "repository-unsupported" // one of a kind that is not read
	CodeReference    = "repository-reference"   // a reference that is not well formed
	CodeMalformed    = "repository-malformed"
)

// Open opens a repository: a bare one, or the one in DIR/.git. A .git that is no directory is refused: a symbolic link or a file in a clone can lead
// anywhere.
func Open(dir string, o Options) (_ *Repository, err error) {
	r := &Repository{Dir: dir, db: &git.Database{Collides: git.Collides}}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	top, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r.root = top
	const hint = "name the directory that holds objects, refs and HEAD"
	if st, err := top.Lstat(".git"); err == nil {
		if !st.IsDir() {
			return nil, trust.Refuse(CodeNoRepository, dir, ".git is no directory, and where it leads is not followed").WithHint(hint + " (git rev-parse --git-common-dir prints it)")
		}
		if r.root, err = top.OpenRoot(".git"); err != nil {
			return nil, err
		}
		top.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range []string{"objects", "refs"} {
		switch st, err := r.root.Lstat(name); {
		case errors.Is(err, fs.ErrNotExist):
			return nil, trust.Refuse(CodeNoRepository, dir, "there is no git repository: it has no %s", name).WithHint(hint)
		case err != nil:
			return nil, err
		case !st.IsDir():
			return nil, trust.Refuse(CodeNoRepository, dir, "%s is no directory, and where it leads is not followed", name).WithHint(hint)
		}
	}
	if r.exists("reftable") {
		return nil, trust.Refuse(CodeRepository, dir, "its references are in a reftable").WithHint("git clone --ref-format=files --mirror it, and name the clone")
	}
	if r.exists("commondir") {
		return nil, trust.Refuse(CodeRepository, dir, "it is a linked working tree").WithHint("name the repository that it belongs to")
	}
	r.Alternates, r.Shallow, r.Grafts = r.exists("objects/info/alternates"), r.exists("shallow"), r.exists("info/grafts")
	objects, err := r.root.OpenRoot("objects")
	if err != nil {
		return nil, err
	}
	if err := r.addObjects(objects); err != nil {
		return nil, err
	}
	for _, a := range o.Alternates {
		objects, err := os.OpenRoot(a)
		if err != nil {
			return nil, err
		}
		if err := r.addObjects(objects); err != nil {
			return nil, err
		}
	}
	r.db.Loose = r.readLoose
	return r, r.readPackedRefs()
}

// Close closes the files.
func (r *Repository) Close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	for _, l := range r.loose {
		errs = append(errs, l.Close())
	}
	if r.root != nil {
		errs = append(errs, r.root.Close())
	}
	return errors.Join(errs...)
}

// Database gives the objects.
func (r *Repository) Database() *git.Database { return r.db }

func (r *Repository) exists(name string) bool {
	_, err := r.root.Lstat(name)
	return err == nil
}

// maxListings is how often a directory of packs is listed while they change.
const maxListings = 100

// addObjects opens the packs of a directory of objects. While it does, others may put several packs into a new one and remove them: if one that was listed is gone, all is
// listed again, and what was opened meanwhile is closed.
func (r *Repository) addObjects(objects *os.Root) error {
	r.loose = append(r.loose, objects)
	files, packs := len(r.files), len(r.db.Packs)
	var before []string
	for range maxListings {
		names, err := listPacks(objects)
		if err != nil {
			return err
		}
		gone, err := r.addPacks(objects, names)
		if err != nil {
			return err
		}
		// The same names again: it is an index alone, left over from a repacking.
		if !gone || slices.Equal(names, before) {
			return nil
		}
		for _, f := range r.files[files:] {
			if err := f.Close(); err != nil {
				return err
			}
		}
		r.files, r.db.Packs, before = r.files[:files], r.db.Packs[:packs], names
	}
	return fmt.Errorf("%s: its packs change while they are opened", r.Dir)
}

// listPacks lists a directory of packs, in the same order every time.
func listPacks(objects *os.Root) ([]string, error) {
	pack, err := objects.Open("pack")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer pack.Close()
	names, err := pack.Readdirnames(8 * MaxPacks)
	if err != nil && err != io.EOF {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// addPacks opens the packs of these names. gone says that one of them is not there.
func (r *Repository) addPacks(objects *os.Root, names []string) (gone bool, err error) {
	for _, name := range names {
		base, ok := strings.CutSuffix(name, ".idx")
		if strings.HasSuffix(name, ".promisor") {
			r.Promisor = true
		}
		if !ok {
			continue
		}
		if len(r.db.Packs) == MaxPacks || len(names) == 8*MaxPacks {
			return gone, trust.Refuse(CodeMalformed, r.Dir, "more than %d packs", MaxPacks).WithHint("git repack -a -d in a clone of your own")
		}
		index, err := readFile(objects, "pack/"+name, git.MaxIndex)
		if errors.Is(err, fs.ErrNotExist) {
			gone = true
			continue
		}
		if err != nil {
			return gone, err
		}
		f, size, err := openFile(objects, "pack/"+base+".pack")
		if errors.Is(err, fs.ErrNotExist) {
			gone = true
			continue
		}
		if err != nil {
			return gone, err
		}
		r.files = append(r.files, f)
		p, err := git.OpenPack(index, f, size)
		if err != nil {
			return gone, bytesAtFault(err, "objects/pack/"+base)
		}
		r.db.Packs = append(r.db.Packs, p)
	}
	return gone, nil
}

// bytesAtFault makes a refusal of an error of package git.
func bytesAtFault(err error, subject string) error {
	var e *git.Error
	if errors.As(err, &e) {
		return trust.Refuse(CodeMalformed, subject, "%v", e)
	}
	return err
}

func (r *Repository) readLoose(id git.ID) ([]byte, error) {
	hex := id.String()
	for _, objects := range r.loose {
		data, err := readFile(objects, hex[:2]+"/"+hex[2:], MaxLoose)
		if !errors.Is(err, fs.ErrNotExist) {
			return data, err
		}
	}
	return nil, &git.Error{Code: git.CodeMissing, Detail: "there is no object " + hex}
}

// openFile opens a regular file. Neither a pipe nor a link that took its place meanwhile is waited for or followed out of the directory.
func openFile(root *os.Root, name string) (*os.File, int64, error) {
	st, err := root.Lstat(name)
	if err != nil {
		return nil, 0, err
	}
	if !st.Mode().IsRegular() {
		return nil, 0, trust.Refuse(CodeMalformed, name, "it is no regular file")
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	st, err = f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = trust.Refuse(CodeMalformed, name, "it is no regular file")
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size(), nil
}

func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, size, err := openFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, trust.Refuse(CodeMalformed, name, "it has %d bytes, at most %d are read", size, limit)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// readPackedRefs reads the file packed-refs: "ID NAME" lines, each perhaps followed by "^ID" of what a tag leads to.
func (r *Repository) readPackedRefs() error {
	r.refs = make(map[string]git.ID)
	r.Replace = r.exists("refs/replace")
	data, err := readFile(r.root, "packed-refs", MaxPackedRefs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for n := 1; len(data) > 0; n++ {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		peeled := line[0] == '^'
		if peeled {
			line = line[1:]
		}
		id, err := git.ParseID(line[:min(40, len(line))])
		if err != nil || !peeled && (len(line) < 42 || line[40] != ' ' || !validRef(string(line[41:]))) || peeled && len(line) != 40 {
			return trust.Refuse(CodeReference, "packed-refs", "line %d is no reference", n)
		}
		if !peeled {
			name := string(line[41:])
			r.refs[name] = id
			r.Replace = r.Replace || strings.HasPrefix(name, "refs/replace/")
		}
	}
	return nil
}

// validRef holds a name to git's rules, so that it is a path below the repository and nothing else.
func validRef(name string) bool {
	if len(name) > 1024 || name != "HEAD" && !strings.HasPrefix(name, "refs/") {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.HasSuffix(part, ".lock") || strings.HasSuffix(part, ".") || strings.Contains(part, "..") || strings.Contains(part, "@{") ||
			strings.ContainsAny(part, " ~^:?*[\\") || strings.ContainsFunc(part, func(c rune) bool { return c < ' ' || c == 0x7f }) {
			return false
		}
	}
	return true
}

// ref returns what a reference leads to; ok is false if there is none.
func (r *Repository) ref(name string) (id git.ID, ok bool, err error) {
	for range MaxRefDepth {
		if !validRef(name) {
			return git.ID{}, false, trust.Refuse(CodeReference, r.Dir, "%q is not the name of a reference", name)
		}
		data, err := readFile(r.root, name, MaxRefFile)
		var refusal *trust.Refusal
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR), errors.As(err, &refusal) && r.isDir(name):
			id, ok := r.refs[name]
			return id, ok, nil
		case err != nil:
			return git.ID{}, false, err
		}
		text := strings.TrimRight(string(data), " \t\r\n")
		if to, symbolic := strings.CutPrefix(text, "ref:"); symbolic {
			name = strings.TrimLeft(to, " \t")
			continue
		}
		if id, err = git.ParseID(text); err != nil {
			return git.ID{}, false, trust.Refuse(CodeReference, r.Dir, "the reference %q holds %.50q", name, text)
		}
		return id, true, nil
	}
	return git.ID{}, false, trust.Refuse(CodeReference, r.Dir, "more than %d references lead to one another", MaxRefDepth)
}

func (r *Repository) isDir(name string) bool {
	st, err := r.root.Lstat(name)
	return err == nil && st.IsDir()
}

// Object resolves what an operator calls an object: its id, or a reference: HEAD, a name in full, a tag, a branch, a remote-tracking branch, in this
// order. ref is the reference's full name, "" for an id. A tag is not followed.
func (r *Repository) Object(name string) (id git.ID, ref string, err error) {
	if id, err := git.ParseID(name); err == nil {
		return id, "", nil
	}
	for _, prefix := range []string{"", "refs/", "refs/tags/", "refs/heads/", "refs/remotes/"} {
		full := prefix + name
		if !validRef(full) {
			continue
		}
		id, found, err := r.ref(full)
		if err != nil {
			return git.ID{}, "", err
		}
		if found {
			return id, full, nil
		}
	}
	return git.ID{}, "", trust.Refuse("end-missing", r.Dir, "no commit or reference is called %q", name).WithHint("give all 40 digits of the commit's id")
}

// Commit resolves what an operator calls a commit, as Object does. A tag is followed to its commit.
func (r *Repository) Commit(name string) (git.ID, error) {
	id, _, err := r.Object(name)
	if err != nil {
		return git.ID{}, err
	}
	reader := r.db.NewReader()
	for range MaxRefDepth {
		kind, content, err := reader.ReadAny(id)
		if git.IsMissing(err) {
			return id, nil // the judgement says so
		}
		if err != nil {
			return git.ID{}, bytesAtFault(err, id.String())
		}
		if kind != git.KindTag {
			return id, nil
		}
		t, err := git.ParseTag(content)
		if err != nil {
			return git.ID{}, bytesAtFault(err, id.String())
		}
		id = t.Object
	}
	return git.ID{}, trust.Refuse(CodeReference, name, "more than %d tags lead to one another", MaxRefDepth)
}

// Branch resolves the branch of a keyring: a local branch, then a remote-tracking one, as `guix git authenticate` does; then one of the remote origin,
// where `guix pull` looks.
func (r *Repository) Branch(name string) (git.ID, error) {
	for _, prefix := range []string{"refs/heads/", "refs/remotes/", "refs/remotes/origin/"} {
		if !validRef(prefix + name) {
			return git.ID{}, trust.Refuse(CodeReference, r.Dir, "%q is not the name of a branch", name)
		}
		id, ok, err := r.ref(prefix + name)
		if err != nil || ok {
			return id, err
		}
	}
	return git.ID{}, trust.Refuse("keyring-missing", r.Dir, "there is no branch %q with the keys", name).WithHint("name the branch with --keyring")
}

// Missing explains why an object may be missing, or returns "".
func (r *Repository) Missing() string {
	var why []string
	for _, c := range []struct {
		is   bool
		what string
	}{
		{r.Shallow, "it is a shallow clone: git fetch --unshallow"},
		{r.Promisor, "it is a partial clone: clone it without --filter"},
		{r.Alternates, "it borrows objects from elsewhere, which is not followed: git repack -a -d, or name the other directory with --alternate"},
	} {
		if c.is {
			why = append(why, c.what)
		}
	}
	return strings.Join(why, "; ")
}

// Ignored says what in the repository git would obey and this package does not.
func (r *Repository) Ignored() []string {
	var all []string
	for _, c := range []struct {
		is   bool
		what string
	}{{r.Grafts, "grafts"}, {r.Replace, "replacements of objects"}, {r.Alternates, "alternates"}, {r.Shallow, "shallow boundary"}} {
		if c.is {
			all = append(all, c.what)
		}
	}
	return all
}

// Check reads everything that a checkout of a commit would hold, and checks it as fsck does: each object against its id, each tree's form. It
// calls each, which may be nil, for every file, with its content, which is not kept.
func (r *Repository) Check(commit git.ID, each func(name string, e git.TreeEntry, content []byte) error) error {
	reader := r.db.NewReader()
	raw, err := reader.Read(commit, git.KindCommit)
	if err != nil {
		return bytesAtFault(err, commit.String())
	}
	c, err := git.ParseCommit(raw)
	if err != nil {
		return bytesAtFault(err, commit.String())
	}
	left := room{MaxTreeFiles, MaxCheckout}
	var walk func(id git.ID, dir string, depth int) error
	walk = func(id git.ID, dir string, depth int) error {
		if depth > MaxTreeDepth {
			return trust.Refuse(CodeMalformed, dir, "trees nested deeper than %d", MaxTreeDepth)
		}
		raw, err := reader.Read(id, git.KindTree)
		if err != nil {
			return bytesAtFault(err, dir)
		}
		if err := left.take(dir, 0, int64(len(raw))); err != nil {
			return err
		}
		raw = bytes.Clone(raw)
		for e, err := range git.Entries(raw) {
			if err != nil {
				return bytesAtFault(err, dir)
			}
			name := path.Join(dir, string(e.Name))
			if err := left.take(name, 1, 0); err != nil {
				return err
			}
			switch e.Mode {
			case git.ModeTree:
				err = walk(e.ID, name, depth+1)
			case git.ModeSubmodule:
				if each != nil {
					err = each(name, e, nil)
				}
			default:
				var content []byte
				if content, err = reader.Read(e.ID, git.KindBlob); err != nil {
					err = bytesAtFault(err, name)
				} else if err = left.take(name, 0, int64(len(content))); err == nil && each != nil {
					err = each(name, e, content)
				}
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return walk(c.Tree, "", 0)
}
