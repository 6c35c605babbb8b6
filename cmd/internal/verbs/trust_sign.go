package verbs

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/ceremony"
)

// A signing is what `trust sign` and `order sign` have in common.
type signing struct {
	word          string // the document that this noun signs
	example, long string

	// Of a root: what is said of the difference to the one in force.
	describe func(w io.Writer, in *trust.Root, d *ceremony.Draft) error
	// Of orders: those before, and what is said of the difference.
	before         func(cmd *cobra.Command, d *ceremony.Draft) (*trust.Orders, error)
	describeOrders func(w io.Writer, last *trust.Orders, d *ceremony.Draft)

	key, ssh, public  string
	fingerprint       string
	roots, rootsPrint string
	out               string
}

func trustSign(env *frame.Env) *cobra.Command {
	return signVerb(env, &signing{
		word: ceremony.Root,
		long: `Read what a draft of a root changes, and sign it.

Shown is who gains and who loses what against the root in force; dangerous changes come first. Then the draft's
fingerprint is to be typed as it came from whoever made the draft, over the telephone or on paper: two officers who sign
what they see sign the same. The signature is written to DRAFT.PERSON.sig, which goes back to whoever collects them.

The root in force comes from a zone, or where there is none from a copy of its public/root directory (--roots), with the
fingerprint of version 1 from paper. Version 1 needs neither; but a draft of another enclave than that of a zone or of
roots that are named is not signed.

An OpenSSH key, on a security key too, signs with ssh-keygen alone: 'ssh-keygen -Y sign -n sallyport-root -f KEY DRAFT',
after which --ssh-signature DRAFT.sig --public PERSON.pub makes the signature file of it.`,
		example: "  sallyport trust sign --key olga.root.key root-1.draft\n  sallyport trust sign --roots public/root --roots-fingerprint mfrg-... --key agent:oscar.root.pub root-2.draft\n" +
			"  sallyport trust sign --ssh-signature root-2.draft.sig --public otto.root.pub root-2.draft",
		describe: func(w io.Writer, in *trust.Root, d *ceremony.Draft) error {
			if in != nil && d.Root.Enclave != in.Enclave {
				return otherEnclave(d, in.Enclave)
			}
			if in != nil && in.Version == 1 && d.Digest() == in.Digest() {
				in = nil // it is in force already; whoever was interrupted signs it again
			}
			if in != nil && (d.Root.Version != in.Version+1 || d.Root.Previous != in.Digest()) {
				return trust.Refuse("root-previous", d.Subject(), "it does not follow the root in force, version %d", in.Version).WithHint("make the draft anew from the root in force")
			}
			fmt.Fprintf(w, "root version %d of enclave %s, dated %s\n", d.Root.Version, d.Root.Enclave, trust.FormatDate(d.Root.Date))
			printChanges(w, ceremony.Changes(in, d.Root))
			return nil
		},
	})
}

// maxAhead is how far ahead of this machine's clock a draft may be dated without a remark.
const maxAhead = time.Hour

func printChanges(w io.Writer, list []ceremony.Change) {
	for _, c := range list {
		fmt.Fprintf(w, "  %s\n", c)
	}
	if len(list) == 0 {
		fmt.Fprintln(w, "  nothing")
	}
}

func signVerb(env *frame.Env, s *signing) *cobra.Command {
	c := &cobra.Command{
		Use:     "sign --key FILE|agent:PUBFILE DRAFT",
		Short:   "read what a draft changes, and sign it",
		Long:    s.long,
		Example: s.example,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := readDraft(args[0])
			if err != nil {
				return err
			}
			if d.Word != s.word {
				return frame.Usage("%s is %s: 'sign' of the other noun signs it", args[0], d.Subject())
			}
			var in *trust.Root
			if d.Root != nil && (d.Root.Version > 1 || s.roots != "" || zoneNamed(env)) {
				if in, err = s.rootInForce(cmd, env, d); err != nil {
					return err
				}
			}
			if d.Orders != nil {
				last, err := s.before(cmd, d)
				if err != nil {
					return err
				}
				s.describeOrders(env.Stderr, last, d)
			} else if err := s.describe(env.Stderr, in, d); err != nil {
				return err
			}
			if limit := env.Clock().Add(maxAhead); d.Date().After(limit) {
				env.Say("WARNING: it is dated %s; this machine's clock says %s: no later document may be dated before it", trust.FormatDate(d.Date()), trust.FormatDate(env.Clock()))
			}
			file, person, err := s.sign(cmd.Context(), env, d)
			if err != nil {
				return err
			}
			out := s.out
			if out == "" {
				out = args[0] + "." + person + ".sig"
			}
			if err := writeSame(out, "--output", file); err != nil {
				return err
			}
			v := map[string]any{"signature": out, "document": d.Subject(), "fingerprint": trust.Fingerprint(d.Digest()), "person": person}
			return env.Result(v, func(w io.Writer) { fmt.Fprintf(w, "%s: %s signed by %s\n", out, d.Subject(), person) })
		},
	}
	f := c.Flags()
	f.StringVar(&s.key, "key", "", "the officer's key: a file, or agent:PUBFILE for one that an ssh-agent holds")
	f.StringVar(&s.ssh, "ssh-signature", "", "take the signature that ssh-keygen made")
	f.StringVar(&s.public, "public", "", "the .pub file of the key that ssh-keygen signed with")
	f.StringVar(&s.fingerprint, "fingerprint", "", "the draft's fingerprint, instead of being asked for it")
	f.StringVar(&s.roots, "roots", "", "directory with the roots 1, 2, ... where there is no zone")
	f.StringVar(&s.rootsPrint, "roots-fingerprint", "", "fingerprint of root version 1, from paper")
	f.StringVarP(&s.out, "output", "o", "", "the signature file (default DRAFT.PERSON.sig)")
	return c
}

// zoneNamed reports whether a zone was named, by flag or in the environment.
func zoneNamed(env *frame.Env) bool { return env.ZoneDir != "" || env.Getenv("SALLYPORT_ZONE") != "" }

func otherEnclave(d *ceremony.Draft, here string) error {
	return trust.Refuse("root-enclave", d.Subject(), "the draft is of enclave %s, here is %s", d.Root.Enclave, here).
		WithHint("nothing was signed; if the draft is meant, read it where nothing of the other enclave is named")
}

// rootInForce opens the root against which a draft is read; nil if the zone has none yet and the draft is of the first.
func (s *signing) rootInForce(cmd *cobra.Command, env *frame.Env, d *ceremony.Draft) (*trust.Root, error) {
	if s.roots != "" {
		return OpenRoots(s.roots, s.rootsPrint)
	}
	if !zoneNamed(env) {
		return nil, frame.Usage("nothing to compare the draft with: give --zone DIR, or --roots DIR and --roots-fingerprint")
	}
	z, err := env.Zone(cmd.Context())
	if err != nil {
		return nil, err
	}
	r, err := z.Root()
	if errors.Is(err, store.ErrNoRoot) && d.Root.Version == 1 {
		if err = nil; z.Config.Enclave != d.Root.Enclave {
			err = otherEnclave(d, z.Config.Enclave)
		}
	}
	return r, errors.Join(err, z.Close())
}

// sign makes the signature file, after the fingerprint was typed.
func (s *signing) sign(ctx context.Context, env *frame.Env, d *ceremony.Draft) (file []byte, person string, err error) {
	if (s.key == "") == (s.ssh == "") {
		return nil, "", frame.Usage("give --key FILE, or --ssh-signature FILE with --public FILE")
	}
	if s.ssh != "" {
		// Who signed with ssh-keygen has confirmed it there.
		public, err := readPublic(s.public)
		if err != nil {
			return nil, "", err
		}
		k, err := public.VKey()
		if err != nil {
			return nil, "", err
		}
		data, err := frame.ReadBounded(s.ssh, ceremony.MaxSignatureFile)
		if err != nil {
			return nil, "", err
		}
		line, err := trust.FromSSHKeygen(d.Text, k, data)
		if err != nil {
			return nil, "", err
		}
		return d.File(line), k.Person, nil
	}
	if err := s.confirm(env, d); err != nil {
		return nil, "", err
	}
	k, err := env.Key(ctx, s.key)
	if err != nil {
		return nil, "", err
	}
	file, err = d.Sign(k)
	return file, k.Person(), err
}

// confirm demands the draft's fingerprint.
func (s *signing) confirm(env *frame.Env, d *ceremony.Draft) error {
	typed := s.fingerprint
	if typed == "" {
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return frame.Usage("the draft's fingerprint is asked for at a terminal, and there is none: give --fingerprint")
		}
		defer tty.Close()
		fmt.Fprint(tty, "\ntype the draft's fingerprint as it was given to you: ")
		if typed, err = bufio.NewReader(io.LimitReader(tty, 1<<10)).ReadString('\n'); err != nil {
			return err
		}
	}
	pin, err := trust.ParsePin(strings.TrimSpace(typed))
	if err != nil {
		return frame.Usage("%v", err)
	}
	if !pin.Matches(d.Digest()) {
		return trust.Refuse("draft-fingerprint", d.Subject(), "its fingerprint is %s, typed was %s; nothing was signed", trust.Fingerprint(d.Digest()), pin).
			WithHint("the draft in your hands is not the one that you were told of: find out why before anything is signed")
	}
	return nil
}

// writeSame writes a file that is not there, or is there with the same bytes: whoever was interrupted signs again.
func writeSame(name, flag string, data []byte) error {
	err := frame.WriteNew(name, data, 0o644)
	if err != nil && errors.Is(err, os.ErrExist) {
		have, readErr := frame.ReadBounded(name, int64(len(data)))
		if readErr == nil && string(have) == string(data) {
			return nil
		}
		return frame.WithHint(err, "it holds something else; name another file with %s", flag)
	}
	return err
}

// beside returns the signature files that lie beside a draft.
func beside(draft string) ([]string, error) {
	dir, base := filepath.Split(draft)
	entries, err := os.ReadDir(filepath.Join(dir, "."))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+".") && strings.HasSuffix(e.Name(), ".sig") && e.Name() != base+".sig" {
			files = append(files, dir+e.Name())
		}
	}
	slices.Sort(files)
	return files, nil
}

// isNoRows reports whether a query found nothing.
func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// enclaveZone opens the enclave's zone and its root.
func enclaveZone(cmd *cobra.Command, env *frame.Env) (*store.Zone, *trust.Root, error) {
	z, err := env.Zone(cmd.Context(), store.Inside)
	if err != nil {
		return nil, nil, err
	}
	r, err := z.Root()
	if err != nil {
		return nil, nil, errors.Join(err, z.Close())
	}
	return z, r, nil
}
