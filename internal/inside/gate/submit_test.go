package gate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/store/pending"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

func (g *Gate) submit(t *testing.T, c *enclavetest.Channel, commit git.ID) (*Submitted, error) {
	t.Helper()
	dir, _ := c.Repository()
	return g.Submit(t.Context(), Submission{Channel: c.Name, Repository: dir, Commit: commit.String()})
}

// TestSubmit: a commit comes in from a repository inside, in quarantine, under a number of its own.
func TestSubmit(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 12)
	e.Ordered(c)
	g := newGate(t, e, "dave/statement")
	one, err := g.submit(t, c, c.Ends[3])
	if err != nil {
		t.Fatal(err)
	}
	if one.Name() != "own-1" || one.State != "quarantined" || one.Before || one.Basis != "-" || one.Commit != c.Ends[3].String() || one.Files < 2 || one.Confined["seccomp"] == "" {
		t.Errorf("%+v", one)
	}
	if k := e.Kinds(); k["inspected"] != 1 || k["submitted"] != 1 || k["imported"] != 0 {
		t.Error(k)
	}
	if n := e.Notes(); n != nil {
		t.Errorf("notes stay: %v", n)
	}
	// The hint leads to the submitter's own statement, and that says all.
	var index int64
	fmt.Sscan(e.Row(`SELECT value FROM setting WHERE name = 'imported/-1'`), &index)
	leaf, err := e.Zone.Entry(t.Context(), index)
	if err != nil {
		t.Fatal(err)
	}
	env, err := statement.ParseEnvelope(leaf)
	if err != nil {
		t.Fatal(err)
	}
	s, person, err := env.Verify(e.Root, e.Zone.Origin())
	if err != nil || person != "dave" {
		t.Fatalf("%s, %v", person, err)
	}
	said, err := s.Submission()
	if err != nil || said.Number != 1 || said.Item.Name != one.Item || said.Item.Size != one.Bytes || said.Commit != one.Commit {
		t.Errorf("%+v, %v", said, err)
	}
	if err := e.Zone.CAS.Check(said.Item.SHA256); err != nil {
		t.Error(err)
	}
	// Again it is an answer, and changes nothing: no entry either.
	before, kinds := e.State(), fmt.Sprint(e.Kinds())
	again, err := g.submit(t, c, c.Ends[3])
	if err != nil || !again.Before || again.Name() != "own-1" || again.State != "quarantined" {
		t.Errorf("%+v, %v", again, err)
	}
	if e.State() != before || fmt.Sprint(e.Kinds()) != kinds {
		t.Error("something changed")
	}
	// What only lies in quarantine is no basis. What a track has is one.
	two, err := g.submit(t, c, c.Ends[4])
	if err != nil || two.Name() != "own-2" || two.Basis != "-" {
		t.Fatalf("%+v, %v", two, err)
	}
	data, err := e.Zone.CAS.ReadAll(said.Item.SHA256, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	e.Allow("dev", enclavetest.Content{Item: said.Item, Data: data})
	three, err := g.submit(t, c, c.Ends[5])
	if err != nil || three.Name() != "own-3" || three.Basis != c.Ends[3].String() || three.Bytes >= two.Bytes {
		t.Fatalf("%+v, %v", three, err)
	}
	whole := Submission{Channel: c.Name, Commit: c.Ends[5].String(), Complete: true}
	whole.Repository, _ = c.Repository()
	if four, err := g.Submit(t.Context(), whole); err != nil || four.Name() != "own-4" || four.Basis != "-" {
		t.Fatalf("%+v, %v", four, err)
	}
	if left, err := filepath.Glob(filepath.Join(e.Zone.Dir, "tmp", "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestSubmitBesideShipments: neither series disturbs the other, and each is a basis for the other.
func TestSubmitBesideShipments(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 12)
	e.Ordered(c)
	g := newGate(t, e, "dave/statement")
	first := c.At(c.Ends[3], git.ID{})
	if q, err := g.take(t, e.Volume(first)); err != nil || q.Number != 1 {
		t.Fatalf("%+v, %v", q, err)
	}
	// What a shipment brought is not submitted again.
	if s, err := g.submit(t, c, c.Ends[3]); err != nil || !s.Before || s.Shipment != 1 || s.Submission != 0 || s.Name() != "shipment 1" {
		t.Errorf("%+v, %v", s, err)
	}
	e.Allow("dev", first)
	own, err := g.submit(t, c, c.Ends[4])
	if err != nil || own.Name() != "own-1" || own.Basis != c.Ends[3].String() {
		t.Fatalf("%+v, %v", own, err)
	}
	// A shipment that stands on what was submitted.
	q, err := g.take(t, e.Volume(c.At(c.Ends[5], c.Ends[4])))
	if err != nil || q.Number != 2 || len(q.Missing) != 0 {
		t.Fatalf("%+v, %v", q, err)
	}
	list, alarms, err := Series(t.Context(), e.Zone, e.Root, e.Clock())
	if err != nil || len(alarms) != 0 || len(list) != 2 || list[0].Number != 1 || list[1].Number != 2 {
		t.Errorf("%+v, %v, %v", list, alarms, err)
	}
}

// TestSubmitRefusals: each is refused with all that is wrong, is an entry, and leaves nothing.
func TestSubmitRefusals(t *testing.T) {
	t.Parallel()
	at := func(commit func(c *enclavetest.Channel) git.ID) func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
		return func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			e.Ordered(c)
			s.Commit = commit(c).String()
			s.Repository, _ = c.Repository()
		}
	}
	file := func(name, text string) func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
		return func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			at(func(c *enclavetest.Channel) git.ID { return c.Ends[3] })(t, e, c, s)
			path := filepath.Join(s.Repository, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	stranger := func(c *enclavetest.Channel) git.ID {
		return c.Commit(channeltest.Spec{Same: "stranger", Parents: []git.ID{c.Ends[3]}, Signer: c.C, At: 1700000002})
	}
	for _, tt := range []struct {
		name  string
		codes []string
		make  func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission)
	}{
		{"not ordered", []string{"channel-unknown"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			s.Repository, _ = c.Repository()
		}},
		{"another introduction was ordered", []string{"introduction-signer"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			e.Order(func(o *trust.Orders) {
				order := c.Order(o.Date)
				order.Commit = c.Ends[1].String()
				o.Channels = append(o.Channels, order)
			})
			s.Commit = c.Ends[3].String()
			s.Repository, _ = c.Repository()
		}},
		{"one that nobody let sign", []string{"key-unauthorized"}, at(stranger)},
		{"unsigned", []string{"commit-unsigned"}, at(func(c *enclavetest.Channel) git.ID {
			return c.Commit(channeltest.Spec{Same: "unsigned", Parents: []git.ID{c.Ends[3]}, At: 1700000001})
		})},
		{"text that shows something else", []string{"inspection-block"}, at(func(c *enclavetest.Channel) git.ID {
			return c.Add(map[string]string{"login.scm": "(define-module (login)) ; \u202e check\n"}, c.Ends[3])
		})},
		{"unsigned, and text that shows something else", []string{"commit-unsigned", "inspection-block"}, at(func(c *enclavetest.Channel) git.ID {
			return c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.B, c.R), "x.scm": "; \u202e x\n"})...), Parents: []git.ID{c.Ends[3]}, At: 1700000001})
		})},
		{"attributes that change a checkout, unsigned", []string{"channel-attributes", "commit-unsigned"}, at(func(c *enclavetest.Channel) git.ID {
			return c.Commit(channeltest.Spec{Tree: c.Tree(c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.B, c.R), ".gitattributes": "*.scm eol=crlf\n", "a.scm": "1\n"})...), Parents: []git.ID{c.Ends[3]}, At: 1700000001})
		})},
		{"neither commit nor keys", []string{"end-missing", "keyring-missing"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			e.Ordered(c)
			s.Commit, s.Keyring = "v1", "keys"
			s.Repository, _ = c.Repository()
		}},
		{"no branch", []string{"end-missing"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			e.Ordered(c)
			s.Repository, _ = c.Repository()
		}},
		{"a commit of nobody", []string{"channel-repository"}, at(func(c *enclavetest.Channel) git.ID { return git.ID{7} })},
		{"no repository", []string{"repository-none"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			e.Ordered(c)
			s.Repository = t.TempDir()
		}},
		{"a .git that leads elsewhere", []string{"repository-none"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			e.Ordered(c)
			dir, _ := c.Repository()
			s.Repository = t.TempDir()
			if err := os.Symlink(dir, filepath.Join(s.Repository, ".git")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a reftable", []string{"repository-unsupported"}, file("reftable/tables.list", "x\n")},
		{"objects that lie elsewhere", []string{"channel-repository", "not-descendant", "object-missing"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			file("objects/info/alternates", "")(t, e, c, s)
			// All but the newest commit, and the tree that it has, lie where the file points.
			id := c.Ends[2].String()
			elsewhere := filepath.Join(t.TempDir(), "objects", id[:2])
			if err := os.MkdirAll(elsewhere, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(s.Repository, "objects", id[:2], id[2:]), filepath.Join(elsewhere, id[2:])); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(s.Repository, "objects/info/alternates"), []byte(filepath.Dir(elsewhere)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"a huge object", []string{"repository-malformed"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			at(func(c *enclavetest.Channel) git.ID { return c.Ends[3] })(t, e, c, s)
			id := c.Ends[3].String()
			if err := os.Truncate(filepath.Join(s.Repository, "objects", id[:2], id[2:]), authenticate.MaxLoose+1); err != nil {
				t.Fatal(err)
			}
		}},
		{"more packs than are opened", []string{"repository-malformed"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			at(func(c *enclavetest.Channel) git.ID { return c.Ends[3] })(t, e, c, s)
			for i := range 8 * authenticate.MaxPacks {
				if err := os.WriteFile(filepath.Join(s.Repository, "objects", "pack", fmt.Sprintf("pack-%d.idx", i)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"back behind a track", []string{"channel-not-forward"}, func(t *testing.T, e *enclavetest.Enclave, c *enclavetest.Channel, s *Submission) {
			at(func(c *enclavetest.Channel) git.ID { return c.Ends[2] })(t, e, c, s)
			item := c.At(c.Ends[4], git.ID{})
			if _, err := newGate(t, e, "eve/statement").take(t, e.Volume(item)); err != nil {
				t.Fatal(err)
			}
			e.Allow("dev", item)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 8)
			s := Submission{Channel: c.Name}
			tt.make(t, e, c, &s)
			before, kinds, files := e.State(), e.Kinds(), tree(t, s.Repository)
			_, err := newGate(t, e, "dave/statement").Submit(t.Context(), s)
			suite.Want(t, err, tt.codes...)
			if after := e.State(); after != before {
				t.Errorf("something changed:\n%v\n%v", before, after)
			}
			kinds[statement.KindRefused]++
			if after := e.Kinds(); fmt.Sprint(after) != fmt.Sprint(kinds) {
				t.Errorf("entries %v, want %v", after, kinds)
			}
			if now := tree(t, s.Repository); !slices.Equal(now, files) {
				t.Errorf("the repository was written to: %v, before %v", now, files)
			}
			if left, err := filepath.Glob(filepath.Join(e.Zone.Dir, "tmp", "*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func tree(t *testing.T, dir string) (names []string) {
	t.Helper()
	if err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			names = append(names, fmt.Sprint(path, info.Mode(), info.Size(), info.ModTime()))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return names
}

// TestSubmitHostileRepository: hooks, configuration, grafts and replacements of a repository do nothing, and it is said that they are there.
func TestSubmitHostileRepository(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 8)
	e.Ordered(c)
	touched := filepath.Join(t.TempDir(), "touched")
	dir, _ := c.Repository()
	for name, text := range map[string]string{
		"config":                             "[core]\n\tfsmonitor = \"touch " + touched + "\"\n\tsshCommand = touch " + touched + "\n[core]\n\thooksPath = hooks\n[uploadpack]\n\tpackObjectsHook = touch " + touched + "\n",
		"hooks/pre-commit":                   "#!/bin/sh\ntouch " + touched + "\n",
		"hooks/post-index-change":            "#!/bin/sh\ntouch " + touched + "\n",
		"info/grafts":                        c.Ends[3].String() + "\n",
		"refs/replace/" + c.Ends[3].String(): c.Ends[1].String() + "\n",
		"objects/info/alternates":            "/etc\n",
		"refs/heads/master":                  c.Ends[3].String() + "\n",
		"refs/remotes/origin/master":         c.Ends[5].String() + "\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	out, err := newGate(t, e, "dave/statement").Submit(t.Context(), Submission{Channel: c.Name, Repository: dir})
	if err != nil {
		t.Fatal(err)
	}
	if out.Commit != c.Ends[3].String() || len(out.Ignored) != 3 {
		t.Errorf("%+v", out)
	}
	// A submodule is an empty directory, as in git's own checkout: where it lies is not asked for.
	entries := append(c.Entries(map[string]string{".guix-authorizations": c.List(c.A, c.B, c.R), ".gitmodules": "[submodule \"sub\"]\n\tpath = sub\n\turl = ext::touch " + touched + "\n"}),
		channeltest.Entry{Mode: git.ModeSubmodule, Name: "sub", ID: c.Ends[0]})
	if _, err := newGate(t, e, "dave/statement").submit(t, c, c.Commit(channeltest.Spec{Tree: c.Tree(entries...), Parents: []git.ID{c.Ends[3]}, Signer: c.A, At: 1700000001})); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(touched); err == nil {
		t.Error("something of the repository was run")
	}
}

// TestSubmitters: who may, and in what order.
func TestSubmitters(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 8)
	e.Ordered(c)
	for key, code := range map[string]string{"alice/allowlist": "key-context", "mallory/statement": "not-importer", "erin/statement": "not-importer"} {
		_, err := newGate(t, e, key).submit(t, c, c.Ends[3])
		suite.Want(t, err, code)
	}
	// By order a channel goes back.
	item := c.At(c.Ends[5], git.ID{})
	e.Allow("dev", item)
	e.Quarantine("eve", item)
	e.Order(func(o *trust.Orders) {
		o.Downgrades = append(o.Downgrades, trust.Downgrade{Channel: c.Name, Commit: c.Ends[3].String(), Date: o.Date, Reason: "x"})
	})
	if s, err := newGate(t, e, "dave/statement").submit(t, c, c.Ends[3]); err != nil || s.Basis != "-" {
		t.Errorf("%+v, %v", s, err)
	}
	// More findings than a person reads are refused.
	g := newGate(t, e, "dave/statement")
	g.MaxFindings = 1
	many := map[string]string{}
	for i := range 8 {
		many[fmt.Sprintf("d%d/f", i)] = strings.Repeat("x", 1<<12) + "\x00\x01"
	}
	commit := c.Add(many, c.Ends[5])
	_, err := g.submit(t, c, commit)
	if rs, _ := trust.AsRefusals(err); !rs.Has("inspection-findings") {
		t.Errorf("%v", err)
	}
}

// TestSubmitAfterKill: what a run that was killed has noted and stored is settled by the next.
func TestSubmitAfterKill(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 8)
	e.Ordered(c)
	item := c.At(c.Ends[4], git.ID{})
	if _, err := pending.Begin(t.Context(), e.Zone, stage, []trust.Digest{item.SHA256}); err != nil {
		t.Fatal(err)
	}
	e.Put(item.Data)
	if _, err := newGate(t, e, "dave/statement").submit(t, c, c.Ends[2]); err != nil {
		t.Fatal(err)
	}
	if _, ok := e.Zone.CAS.Has(item.SHA256); ok || e.Notes() != nil {
		t.Error("what the killed run left is still there")
	}
}

// TestSubmitTogether: of several who submit one commit at once, one does.
func TestSubmitTogether(t *testing.T) {
	t.Parallel()
	e, c := enclavetest.New(t), enclavetest.NewChannel(t, "ours", 8)
	e.Ordered(c)
	dir, _ := c.Repository()
	results := make(chan *Submitted)
	for _, who := range []string{"dave/statement", "eve/statement", "dave/statement"} {
		g := newGate(t, e, who)
		go func() {
			s, err := g.Submit(t.Context(), Submission{Channel: c.Name, Repository: dir, Commit: c.Ends[3].String()})
			if err != nil {
				t.Error(err)
			}
			results <- s
		}()
	}
	done := 0
	for range 3 {
		if s := <-results; s != nil && !s.Before {
			done++
		} else if s != nil && s.Name() != "own-1" {
			t.Errorf("%+v", s)
		}
	}
	if k := e.Kinds(); done != 1 || k["submitted"] != 1 {
		t.Errorf("%d submitted, entries %v", done, k)
	}
}
