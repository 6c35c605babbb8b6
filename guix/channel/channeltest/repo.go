package channeltest

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"sallyport/guix/channel/git"
)

// A Repo is a repository in memory, of loose objects alone.
type Repo struct {
	Objects map[git.ID][]byte // compressed, as in their files
	Refs    map[string]git.ID
	Files   map[string][]byte // more files of a bare repository, by name
	Other   *Repo             // whose objects lie beside, as alternates; nil for none
}

// NewRepo makes an empty repository.
func NewRepo() *Repo {
	return &Repo{Objects: make(map[git.ID][]byte), Refs: make(map[string]git.ID), Files: make(map[string][]byte)}
}

// Put stores an object of any content.
func (r *Repo) Put(kind git.Kind, content []byte) git.ID {
	id := git.Hash(kind, content)
	r.PutAs(id, kind, content)
	return id
}

// PutAs stores an object under an id that need not be its own.
func (r *Repo) PutAs(id git.ID, kind git.Kind, content []byte) {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	fmt.Fprintf(w, "%s %d\x00", kind, len(content))
	w.Write(content)
	w.Close()
	r.Objects[id] = b.Bytes()
}

// An Entry is one of a tree.
type Entry struct {
	Mode uint32
	Name string
	ID   git.ID
}

// Tree stores a tree with its entries in git's order.
func (r *Repo) Tree(entries ...Entry) git.ID {
	key := func(e Entry) string {
		if e.Mode == git.ModeTree {
			return e.Name + "/"
		}
		return e.Name
	}
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b Entry) int { return bytes.Compare([]byte(key(a)), []byte(key(b))) })
	return r.RawTree(entries...)
}

// RawTree stores a tree with its entries as they come.
func (r *Repo) RawTree(entries ...Entry) git.ID {
	var b []byte
	for _, e := range entries {
		b = fmt.Appendf(b, "%o %s\x00", e.Mode, e.Name)
		b = append(b, e.ID[:]...)
	}
	return r.Put(git.KindTree, b)
}

// Database gives the objects.
func (r *Repo) Database() *git.Database {
	return &git.Database{Loose: func(id git.ID) ([]byte, error) {
		if data, ok := r.Objects[id]; ok {
			return data, nil
		}
		return nil, &git.Error{Code: git.CodeMissing, Detail: id.String()}
	}}
}

// Write writes the repository as a bare one into dir, which must not be there.
func (r *Repo) Write(dir string) error {
	files := map[string][]byte{"HEAD": []byte("ref: refs/heads/end\n"), "config": []byte("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n")}
	for name, id := range r.Refs {
		files[name] = []byte(id.String() + "\n")
	}
	for id, data := range r.Objects {
		hex := id.String()
		files["objects/"+hex[:2]+"/"+hex[2:]] = data
	}
	for name, data := range r.Files {
		files[name] = data
	}
	for _, d := range []string{"objects/pack", "objects/info", "refs/heads", "refs/tags"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	for name, data := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if filepath.Base(filepath.Dir(name)) == "hooks" {
			mode = 0o755
		}
		if err := os.WriteFile(name, data, mode); err != nil {
			return err
		}
	}
	return nil
}
