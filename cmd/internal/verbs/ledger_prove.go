package verbs

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/evidence/siem"
	"sallyport/internal/store"
	"sallyport/internal/store/durable"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

func ledgerProve(env *frame.Env) *cobra.Command {
	var src paper
	var digest, checkpoint, out string
	var kinds []string
	var consistency int64
	c := &cobra.Command{
		Use:   "prove INDEX | --digest HEX | --consistency OLD-SIZE",
		Short: "write a file that shows one entry to be in the ledger, or that the ledger has only grown",
		Long: `Write a file that a person can carry to whoever has nothing but the ledger's key or the root's fingerprint on paper: one entry with the proof that
it is in the ledger (C2SP tlog-proof; the entry itself is its 'extra' line), or the proof that the ledger has only grown since it had OLD-SIZE entries (the
form that C2SP tlog-witness takes). 'ledger verify --proof' checks both; docs/operate/audit.md does it by hand.

The checkpoint in the file is the present one, with what witnesses have cosigned of it; with --checkpoint another one, such as public/witness/NAME.
--digest finds the entry by its leaf hash or by the SHA-256 of what it is about.`,
		Example: "  sallyport ledger prove --zone inside 3 --out entry-3.tlog-proof\n" +
			"  sallyport ledger prove --zone inside --kind allowed --digest 5f3c... --checkpoint inside/public/witness/wilma --out allowed.tlog-proof\n" +
			"  sallyport ledger prove --zone inside --consistency 120 --out growth",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ways := len(args)
			if digest != "" {
				ways++
			}
			if cmd.Flags().Changed("consistency") {
				ways++
			}
			if ways != 1 {
				return frame.Usage("give one of INDEX, --digest and --consistency")
			}
			l, err := src.open(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer l.close()
			note, log, err := l.at(cmd.Context(), checkpoint)
			if err != nil {
				return err
			}
			c := log.Checkpoint()
			if cmd.Flags().Changed("consistency") {
				if consistency < 0 || consistency > c.Size {
					return frame.Usage("--consistency %d: the ledger has %s", consistency, trust.Count(c.Size, "entry"))
				}
				g, err := log.ProveGrowth(consistency, note)
				if err != nil {
					return err
				}
				return writeProof(env, out, g.Marshal(), map[string]any{"origin": c.Origin, "old": consistency, "size": c.Size, "hashes": len(g.Path)},
					fmt.Sprintf("%s has only grown from %s to %d: %s", c.Origin, trust.Count(consistency, "entry"), c.Size, trust.Count(len(g.Path), "hash")))
			}
			var index int64
			if digest != "" {
				index, err = find(cmd.Context(), log, digest, kinds)
			} else {
				index, err = indexOf(args[0], c)
			}
			if err != nil {
				return err
			}
			p, err := log.ProveEntry(index, note)
			if err != nil {
				return err
			}
			return writeProof(env, out, p.Marshal(), map[string]any{"origin": c.Origin, "index": index, "size": c.Size, "hashes": len(p.Path)},
				fmt.Sprintf("entry %d is in %s, which has %s: %s", index, c.Origin, trust.Count(c.Size, "entry"), trust.Count(len(p.Path), "hash")))
		},
	}
	f := c.Flags()
	f.StringVar(&digest, "digest", "", "the entry with this leaf hash, or about what has this SHA-256")
	f.StringSliceVar(&kinds, "kind", nil, "with --digest: only entries of these kinds")
	f.Int64Var(&consistency, "consistency", 0, "prove that the ledger has only grown since it had so many entries")
	f.StringVar(&checkpoint, "checkpoint", "", "file with another checkpoint of this ledger than the present one")
	f.StringVarP(&out, "out", "o", "", "where to write the file; without it, standard output")
	src.flags(c)
	return c
}

// writeProof writes a file or prints it, and says what it shows.
func writeProof(env *frame.Env, out string, data []byte, result map[string]any, text string) error {
	if out == "" && !env.JSON {
		_, err := env.Stdout.Write(data)
		return err
	}
	result["type"], result["bytes"] = "proof", len(data)
	if out == "" {
		result["proof"] = string(data)
	} else {
		if err := writeFile(out, data); err != nil {
			return err
		}
		result["file"] = out
	}
	return env.Result(result, func(w io.Writer) { fmt.Fprintf(w, "%s: %s, %d bytes\n", out, text, len(data)) })
}

// writeFile writes a file durably, over a former one.
func writeFile(path string, data []byte) error {
	return durable.WriteAll(durable.OS{}, filepath.Dir(path), durable.File{Path: path, Data: data, Perm: 0o644})
}

// find finds the one entry with a digest.
func find(ctx context.Context, log *ledger.Log, digest string, kinds []string) (int64, error) {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != tlog.HashSize {
		return 0, frame.Usage("--digest %.80q: want 64 hexadecimal digits", digest)
	}
	digest = strings.ToLower(digest)
	c := log.Checkpoint()
	var found []*siem.Record
	err := log.Range(ctx, 0, c.Size, func(index int64, leaf []byte, hash tlog.Hash) error {
		r := siem.NewRecord(c.Origin, index, leaf, hash, nil)
		if len(kinds) > 0 && !slices.Contains(kinds, r.Kind) {
			return nil
		}
		if r.Leaf == digest || slices.ContainsFunc(r.Subjects, func(s siem.Subject) bool { return s.SHA256 == digest }) {
			found = append(found, r)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("no entry with the digest %s", digest)
	case 1:
		return found[0].Index, nil
	}
	var list []string
	for _, r := range found[:min(len(found), 10)] {
		list = append(list, fmt.Sprintf("%d (%s)", r.Index, r.Kind))
	}
	return 0, frame.Usage("%d entries are about %s: %s; say which by its index or with --kind", len(found), digest, strings.Join(list, ", "))
}

// proofFlags are those of 'ledger verify' that judge a proof.
type proofFlags struct {
	file, old, roots, entry string
	witnesses               int
}

func (p *proofFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.file, "proof", "", "check this file, which 'ledger prove' made, and not a ledger")
	f.StringVar(&p.old, "old", "", "with --proof of growth: the former checkpoint")
	f.StringVar(&p.roots, "roots", "", "with --proof and --root: directory with the notes of the roots (public/root), or the first root's")
	f.StringVar(&p.entry, "entry", "", "with --proof of a file that has not the entry in it: the entry")
	f.IntVar(&p.witnesses, "witnesses", 0, "with --proof and --root: demand that so many witnesses cosigned the checkpoint")
}

// verify judges a proof by what stands on paper.
func (p *proofFlags) verify(ctx context.Context, env *frame.Env, from *paper) error {
	l, err := p.trusted(ctx, env, from)
	if err != nil {
		return err
	}
	defer l.close()
	if p.witnesses > 0 && l.root == nil {
		return frame.Usage("--witnesses: who is a witness stands in the root; give --root and --roots")
	}
	data, err := frame.ReadBounded(p.file, ledger.MaxProof)
	if err != nil {
		return err
	}
	if ledger.IsGrowth(data) {
		return p.verifyGrowth(env, l, data)
	}
	if p.old != "" {
		return frame.Usage("--old goes with a proof of growth; %s is one of an entry", p.file)
	}
	proof, err := ledger.ParseProof(data)
	if err != nil {
		return err
	}
	if p.entry != "" {
		leaf, err := frame.ReadBounded(p.entry, ledger.MaxLeaf)
		if err != nil {
			return err
		}
		if proof.Leaf != nil && string(proof.Leaf) != string(leaf) {
			return trust.Refuse("proof-entry", p.file, "it is about another entry than %s", p.entry)
		}
		proof.Leaf = leaf
	}
	if proof.Leaf == nil {
		return frame.Usage("%s has not the entry in it: give it with --entry", p.file)
	}
	c, key, err := l.opensBy(proof.Checkpoint)
	if err != nil {
		return err
	}
	if err := proof.Check(c); err != nil {
		return err
	}
	// The entry is all that is at hand of the ledger; it may be the very one that says so.
	if err := store.NotGivenUp(c.Origin, key)(proof.Index, proof.Leaf); err != nil {
		return err
	}
	var keys siem.Keys
	if l.root != nil {
		keys = l.keys
	}
	r := siem.NewRecord(c.Origin, proof.Index, proof.Leaf, tlog.RecordHash(proof.Leaf), keys)
	if r.Signature == siem.Bad || r.Signature == siem.Unknown {
		return trust.Refuse("statement-signature", fmt.Sprintf("entry %d", proof.Index), "it is in the ledger, but its own signature, by %s, is %s", r.Key, r.Signature)
	}
	names, err := p.cosigners(l, proof.Checkpoint)
	if err != nil {
		return err
	}
	return env.Result(struct {
		*siem.Record
		Size      int64    `json:"size"`
		Witnesses []string `json:"witnesses"`
	}{r, c.Size, names}, func(w io.Writer) {
		fmt.Fprintf(w, "entry %d is in %s, which has %s: good\n", proof.Index, c.Origin, trust.Count(c.Size, "entry"))
		fmt.Fprintf(w, "%s  %s, signed by %s (signature: %s)\n%s\n", r.Time, r.Kind, r.Signer, r.Signature, r.Sentence())
		printWitnesses(w, l, names)
	})
}

func printWitnesses(w io.Writer, l *published, names []string) {
	switch {
	case l.root == nil:
		fmt.Fprintln(w, "NOT CHECKED: who signed the statement and which witnesses cosigned; that needs the root (--root and --roots)")
	case len(names) == 0:
		fmt.Fprintln(w, "no witness has cosigned this checkpoint")
	default:
		fmt.Fprintf(w, "cosigned by %s\n", strings.Join(names, ", "))
	}
}

func (p *proofFlags) verifyGrowth(env *frame.Env, l *published, data []byte) error {
	if p.entry != "" {
		return frame.Usage("--entry goes with a proof of an entry; %s is one of growth", p.file)
	}
	g, err := ledger.ParseGrowth(data)
	if err != nil {
		return err
	}
	c, err := l.opens(g.Checkpoint)
	if err != nil {
		return err
	}
	// Of nothing there is no checkpoint: everything has grown from it.
	old := ledger.Checkpoint{Origin: c.Origin, Root: ledger.EmptyRoot()}
	if p.old == "" && g.Old > 0 {
		return frame.Usage("the proof begins at size %d: give the checkpoint of that size with --old", g.Old)
	}
	if p.old != "" {
		note, err := frame.ReadBounded(p.old, ledger.MaxCheckpoint)
		if err != nil {
			return err
		}
		if old, err = l.opensKept(note); err != nil {
			return err
		}
	}
	if err := g.Check(old, c); err != nil {
		return err
	}
	names, err := p.cosigners(l, g.Checkpoint)
	if err != nil {
		return err
	}
	return env.Result(map[string]any{"type": "growth", "origin": c.Origin, "old": old.Size, "size": c.Size, "root": hex.EncodeToString(c.Root[:]), "witnesses": names}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has only grown, from %s to %d: good\n", c.Origin, trust.Count(old.Size, "entry"), c.Size)
		printWitnesses(w, l, names)
	})
}

// trusted collects what a proof is judged by.
func (p *proofFlags) trusted(ctx context.Context, env *frame.Env, from *paper) (*published, error) {
	if p.roots == "" && (from.public != "" || from.log == "" && from.root == "") {
		return from.open(ctx, env)
	}
	l := &published{}
	if p.roots == "" {
		if from.log == "" {
			return nil, frame.Usage("--root: the roots themselves are needed, too: give --roots public/root")
		}
		return l, l.believe("", from.log)
	}
	if from.root == "" {
		return nil, frame.Usage("--roots goes with --root FINGERPRINT")
	}
	l.roots = p.roots
	return l, l.believe(from.root, "")
}

// cosigners are the witnesses whose cosignatures stand under a checkpoint that was opened; each must be right.
func (p *proofFlags) cosigners(l *published, note []byte) ([]string, error) {
	names := []string{}
	if l.root == nil {
		return names, nil
	}
	for _, k := range l.root.WitnessKeys() {
		n, err := trust.OpenNote("cosignature", note, ledger.MaxCheckpoint, []trust.VKey{k})
		if rs, ok := trust.AsRefusals(err); ok && rs.Has("cosignature-unsigned") {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range n.Signers {
			if !slices.Contains(names, s.Person) {
				names = append(names, s.Person)
			}
		}
	}
	if len(names) < p.witnesses {
		return nil, trust.Refuse("witness-missing", "checkpoint", "cosigned by %d of %d witnesses", len(names), p.witnesses)
	}
	return names, nil
}
