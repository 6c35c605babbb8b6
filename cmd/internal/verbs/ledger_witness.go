package verbs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/store/witness"
	"sallyport/internal/trust"
)

// ledgerWitness is a verb, for a witness who can read the published directory, and the noun of those by which a witness is asked by file.
func ledgerWitness(env *frame.Env) *cobra.Command {
	var keyFile, stateFile, out string
	var from witnessPaper
	c := &cobra.Command{
		Use:   "witness --key FILE --state FILE --log VKEY --out FILE LEDGER-DIR",
		Short: "as a witness: check that a ledger only grew, and cosign its checkpoint; below it: ask a witness by file",
		Long: `As a witness: check the published ledger in LEDGER-DIR (a copy will do) against what this witness cosigned last, demand that the one contains the
other, and cosign its checkpoint. The new state is durable before the cosignature is written to --out; 'ledger witness add' takes it in.

Where the ledger has got another key, --root and --roots say so in the place of --log: the fingerprint of the first root, from paper, and the directory with
the notes of all of them (public/root). The entries since the last time are read, all of them the first time: a key that the ledger itself gave up is refused
(key-replaced), on whatever paper it stands, and another key than last time is told of; --json has it as "log" and "changed".

A witness on another machine needs no copy: 'ledger witness export' writes checkpoint and proof into one file, 'ledger cosign' on the witness's machine
answers with another, and 'ledger witness add' takes that in.`,
		Example: "  sallyport-station ledger witness export --zone inside --for wilma --out for-wilma\n" +
			"  sallyport ledger cosign --key wilma.witness.key --state wilma/ --log VKEY --out from-wilma for-wilma\n" +
			"  sallyport-station ledger witness add --zone inside from-wilma\n" +
			"  sallyport-station ledger witness list --zone inside\n" +
			"  sallyport ledger witness --key wilma.witness.key --state wilma.state --log VKEY --out cosigned inside/public/ledger",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if stateFile == "" || out == "" || from.none() {
				return frame.Usage("--state, --out, and --log or --root with --roots are needed")
			}
			shown, err := ledger.ReadCheckpoint(os.DirFS(args[0]))
			if err != nil {
				return err
			}
			origin, _, _ := bytes.Cut(shown, []byte("\n"))
			keys, err := from.keys(string(origin))
			if err != nil {
				return err
			}
			if len(keys.Now) == 0 {
				return trust.Refuse("witness-log", trust.Printable(string(origin), 100), "the newest root names no key for it")
			}
			if from.root != "" {
				if err := newer(stateFile, keys); err != nil {
					return err
				}
			}
			// Where the root names two, the one that has signed.
			log := keys.Now[0]
			for _, v := range keys.Now[1:] {
				if _, err := ledger.OpenCheckpoint(shown, v.Name, v); err == nil {
					log = v
				}
			}
			k, err := env.Key(cmd.Context(), keyFile)
			if err != nil {
				return err
			}
			held, err := frame.ReadBounded(stateFile, ledger.MaxCheckpoint)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			var given []trust.VKey
			if from.root != "" {
				given = slices.Concat(keys.Now, keys.Former)
			}
			p := env.Progress("reading what is new", 0)
			p.Unit("entries")
			var told int64
			note, err := store.WitnessWith(cmd.Context(), stateFile, os.DirFS(args[0]), log, k, env.Clock(), store.WitnessOptions{Former: given, Progress: func(done, all int64) {
				p.Total(all)
				p.Add(done - told)
				told = done
			}})
			p.Done()
			if err != nil {
				return err
			}
			return cosigned(env, out, note, held, log, k)
		},
	}
	f := c.Flags()
	f.StringVar(&keyFile, "key", "", "the witness's key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	f.StringVar(&stateFile, "state", "", "file in which this witness remembers what it cosigned last of this ledger")
	from.flags(c, "")
	f.StringVarP(&out, "out", "o", "", "where to write the cosigned checkpoint")
	return with(c, witnessExport(env), witnessAdd(env), witnessList(env))
}

// newer refuses roots that do not name the key by which the ledger had signed what this witness cosigned last: they are older than those that it was shown then, and the
// key that they name may be one that was given up since.
func newer(state string, keys witness.Keys) error {
	held, err := frame.ReadBounded(state, ledger.MaxCheckpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, v := range slices.Concat(keys.Now, keys.Former) {
		if _, err := ledger.OpenCheckpoint(held, v.Name, v); err == nil {
			return nil
		}
	}
	return trust.Refuse("witness-log", keys.Now[0].Name, "none of the roots names the key that had signed what this witness cosigned last").
		WithHint("roots may be missing at the end: ask others for the newest one; somebody may want a key to be believed that was given up")
}

// A witnessPaper is what a witness has on paper of a ledger's key.
type witnessPaper struct{ log, root, roots string }

func (p *witnessPaper) flags(c *cobra.Command, when string) {
	f := c.Flags()
	f.StringVar(&p.log, "log", "", "the ledger's checkpoint key (vkey), from paper"+when)
	f.StringVar(&p.root, "root", "", "instead of --log: fingerprint of the first root, from paper; with --roots")
	f.StringVar(&p.roots, "roots", "", "with --root: directory with the notes of the roots (public/root)")
}

func (p *witnessPaper) none() bool { return p.log == "" && p.root == "" }

// keys are the ledger's, as the paper gives them.
func (p *witnessPaper) keys(origin string) (witness.Keys, error) {
	if p.log != "" && p.root != "" || (p.root == "") != (p.roots == "") {
		return witness.Keys{}, frame.Usage("give --log, or --root with --roots")
	}
	if p.log != "" {
		v, err := trust.ParseVKey(p.log)
		if err != nil {
			return witness.Keys{}, frame.Usage("--log: %v", err)
		}
		return witness.Keys{Now: []trust.VKey{v}}, nil
	}
	if p.root == "" {
		return witness.Keys{}, nil
	}
	pin, err := trust.ParsePin(p.root)
	if err != nil {
		return witness.Keys{}, frame.Usage("--root: %v", err)
	}
	chain, err := rootChain(p.roots, pin)
	if err != nil {
		return witness.Keys{}, err
	}
	return witness.FromRoots(chain, origin), nil
}

// cosigned writes what a witness hands out, and says whether the ledger has got another key since held, which the witness had cosigned before; nil: nothing.
func cosigned(env *frame.Env, out string, note, held []byte, log trust.VKey, k trust.Signer) error {
	c, err := ledger.OpenCheckpoint(note, log.Name, log)
	if err != nil {
		return err
	}
	if err := writeFile(out, note); err != nil {
		return err
	}
	changed := false
	if held != nil {
		_, err := ledger.OpenCheckpoint(held, log.Name, log)
		changed = err != nil
	}
	if changed {
		env.Say("the ledger has CHANGED ITS KEY since this witness cosigned it last: from now on it is %s; compare that with what officers say", log)
	}
	return env.Result(map[string]any{"origin": c.Origin, "size": c.Size, "witness": k.Name(), "file": out, "log": log.String(), "changed": changed}, func(w io.Writer) {
		fmt.Fprintf(w, "%s cosigned %s at size %d\n", k.Name(), c.Origin, c.Size)
	})
}

func witnessExport(env *frame.Env) *cobra.Command {
	var name, out string
	var from int64
	c := &cobra.Command{
		Use:   "export --for WITNESS --out FILE",
		Short: "write checkpoint and proof for a witness into one file",
		Long: `Write the present checkpoint, and the proof that the ledger has only grown since this witness cosigned it last, into one file (the request of
C2SP tlog-witness). It is carried to the witness, who answers with 'ledger cosign'. A witness who remembers another size than the zone says so; --from is
that size.`,
		Example: "  sallyport-station ledger witness export --zone inside --for wilma --out for-wilma",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" || out == "" {
				return frame.Usage("--for and --out are needed")
			}
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			root, err := z.Root()
			if err != nil {
				return err
			}
			if err := isWitness(root, name); err != nil {
				return err
			}
			note, now, err := z.Checkpoint()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("from") {
				if from, err = cosignedSize(z, name); err != nil {
					return err
				}
			}
			if from < 0 || from > now.Size {
				return frame.Usage("--from %d: the ledger has %s", from, trust.Count(now.Size, "entry"))
			}
			g, err := ledger.NewLog(z.LedgerFS(), now).ProveGrowth(from, note)
			if err != nil {
				return err
			}
			data := g.Marshal()
			if err := writeFile(out, data); err != nil {
				return err
			}
			return env.Result(map[string]any{"witness": name, "origin": now.Origin, "old": from, "size": now.Size, "bytes": len(data), "file": out}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: for %s, %s from %s to %d, %s\n", out, name, now.Origin, trust.Count(from, "entry"), now.Size, trust.Count(len(data), "byte"))
			})
		},
	}
	f := c.Flags()
	f.StringVar(&name, "for", "", "the witness")
	f.StringVarP(&out, "out", "o", "", "where to write the file")
	f.Int64Var(&from, "from", 0, "the size that the witness remembers, if it is another than the zone knows of")
	return c
}

// isWitness refuses whom the root does not name a witness.
func isWitness(root *trust.Root, name string) error {
	var all []string
	for _, k := range root.WitnessKeys() {
		if k.Person == name {
			return nil
		}
		all = append(all, k.Person)
	}
	return trust.Refuse("witness-unknown", name, "the root names no such witness; it names %q", all)
}

// cosignedSize is the size that a witness cosigned last, as far as the zone knows; 0 if it has not yet.
func cosignedSize(z *store.Zone, name string) (int64, error) {
	note, err := z.ReadPublic("witness/" + name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := z.OpenCheckpoint(note)
	return c.Size, err
}

func witnessAdd(env *frame.Env) *cobra.Command {
	var request string
	c := &cobra.Command{
		Use:   "add FILE",
		Short: "take in what a witness cosigned, and publish it",
		Long: `Take in what a witness cosigned, and publish it as public/witness/NAME. FILE is what 'ledger cosign' or 'ledger witness' wrote. A witness with other
software may answer with its signature line alone (C2SP tlog-witness); then --request is the file that it was asked with.`,
		Example: "  sallyport-station ledger witness add --zone inside from-wilma\n" +
			"  sallyport-station ledger witness add --zone inside --request for-wilma response",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return takeIn(cmd, env, args[0], request) },
	}
	c.Flags().StringVar(&request, "request", "", "the file that the witness was asked with, if it answered with its line alone")
	return c
}

// takeIn takes in what a witness cosigned.
func takeIn(cmd *cobra.Command, env *frame.Env, file, request string) error {
	note, err := frame.ReadBounded(file, ledger.MaxCheckpoint)
	if err != nil {
		return err
	}
	if request != "" {
		data, err := frame.ReadBounded(request, ledger.MaxProof)
		if err != nil {
			return err
		}
		g, err := ledger.ParseGrowth(data)
		if err != nil {
			return err
		}
		note = append(bytes.Clone(g.Checkpoint), note...)
	}
	z, err := env.Zone(cmd.Context())
	if err != nil {
		return err
	}
	defer z.Close()
	name, c, err := z.AddCosigned(cmd.Context(), note)
	if err != nil {
		return err
	}
	return env.Result(map[string]any{"witness": name, "size": c.Size, "file": filepath.Join(z.Dir, "public", "witness", name)}, func(w io.Writer) {
		fmt.Fprintf(w, "%s has cosigned the ledger at size %d\n", name, c.Size)
	})
}

func witnessList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "list the witnesses: what each cosigned last, and how far the ledger has grown since",
		Example: "  sallyport-station ledger witness list --zone inside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			root, err := z.Root()
			if err != nil {
				return err
			}
			_, now, err := z.Checkpoint()
			if err != nil {
				return err
			}
			var names []string
			for _, k := range root.WitnessKeys() {
				if !slices.Contains(names, k.Person) {
					names = append(names, k.Person)
				}
			}
			for _, name := range names {
				out := struct {
					Type    string `json:"type"`
					Witness string `json:"witness"`
					Size    int64  `json:"size"`
					Time    string `json:"time,omitempty"`
					Behind  int64  `json:"behind"`
				}{"witness", name, 0, "", now.Size}
				for _, k := range root.WitnessKeys() {
					if k.Person != name {
						continue
					}
					c, at, err := z.Cosigned(k)
					if errors.Is(err, fs.ErrNotExist) {
						continue
					}
					if rs, ok := trust.AsRefusals(err); ok && rs.Has("cosignature-unsigned") {
						continue // by another key of the same person
					}
					if err != nil {
						return err
					}
					out.Size, out.Time, out.Behind = c.Size, trust.FormatDate(at), now.Size-c.Size
				}
				err := env.Result(out, func(w io.Writer) {
					if out.Time == "" {
						fmt.Fprintf(w, "%-20s has not cosigned yet\n", name)
						return
					}
					fmt.Fprintf(w, "%-20s size %d on %s; %s since\n", name, out.Size, out.Time, trust.Count(out.Behind, "entry"))
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// ledgerCosign is what a witness does with a file that was brought; without a key it is 'witness add', as which it began.
func ledgerCosign(env *frame.Env) *cobra.Command {
	var keyFile, state, out string
	var from witnessPaper
	c := &cobra.Command{
		Use:   "cosign --key FILE --state DIR --out FILE REQUEST",
		Short: "as a witness: check a file that 'ledger witness export' wrote, and cosign",
		Long: `As a witness, on a machine of one's own and without the zone: check the file that 'ledger witness export' wrote, that the ledger has only grown since this
witness cosigned it last, and cosign. What was cosigned is remembered in the directory --state, durably, before the answer is written. The first time, --log
gives the ledger's key, from paper; from then on it is known. When the ledger gets another key, --root and --roots show the roots that say so; from then on
the old one is believed no more.

Refused are a smaller ledger (witness-rollback), one that does not contain what was cosigned (witness-fork), and a proof from another size than this witness
remembers (witness-stale). The first two are evidence: keep the file, and tell the security officer.

Without --key, FILE is what a witness cosigned, and is taken into the zone, as by 'ledger witness add'.`,
		Example: "  sallyport ledger cosign --key wilma.witness.key --state wilma/ --log VKEY --out from-wilma for-wilma\n" +
			"  sallyport-station ledger cosign --zone inside from-wilma",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "" {
				if state != "" || !from.none() || out != "" {
					return frame.Usage("a witness needs --key; without it the file is taken into a zone")
				}
				return takeIn(cmd, env, args[0], "")
			}
			if state == "" || out == "" {
				return frame.Usage("--state and --out are needed")
			}
			data, err := frame.ReadBounded(args[0], ledger.MaxProof)
			if err != nil {
				return err
			}
			g, err := ledger.ParseGrowth(data)
			if err != nil {
				return err
			}
			origin, err := witness.Origin(g)
			if err != nil {
				return err
			}
			keys, err := from.keys(origin)
			if err != nil {
				return err
			}
			k, err := env.Key(cmd.Context(), keyFile)
			if err != nil {
				return err
			}
			_, held, err := witness.Known(state, origin)
			if err != nil {
				return err
			}
			_, note, err := witness.Cosign(state, g, keys, k, env.Clock())
			if err != nil {
				return err
			}
			known, _, err := witness.Known(state, origin)
			if err != nil {
				return err
			}
			_, log, err := openCheckpoint(note, known)
			if err != nil {
				return err
			}
			return cosigned(env, out, note, held, log, k)
		},
	}
	f := c.Flags()
	f.StringVar(&keyFile, "key", "", "the witness's key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	f.StringVar(&state, "state", "", "directory in which this witness remembers what it cosigned last of each ledger")
	from.flags(c, "; needed the first time")
	f.StringVarP(&out, "out", "o", "", "where to write the cosigned checkpoint")
	return c
}
