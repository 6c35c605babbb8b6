package verbs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/keep/backup"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

func backupNoun(env *frame.Env) *cobra.Command {
	return noun("backup", "copies of a zone: make, check, put back", backupCreate(env), backupVerify(env), backupRestore(env), backupResume(env))
}

func backupCreate(env *frame.Env) *cobra.Command {
	var keys bool
	c := &cobra.Command{
		Use:   "create DIR|FILE.tar",
		Short: "copy a zone while it is in use",
		Long: "Copy a zone while it is in use: catalog, ledger, documents, blobs and configuration, as they are at one moment, with a manifest of their digests. A name that\n" +
			"ends in .tar makes one file, any other a directory, in which blobs are hard links if it lies on the zone's file system. The copy appears\n" +
			"whole or not at all, and is never written over. The zone's secret keys are not in it without --with-keys: keep them elsewhere.",
		Example: "  sallyport-station backup create --zone /srv/sallyport/inside /mnt/backup/inside-2026-03-01\n" +
			"  sallyport-station backup create --zone inside --with-keys inside.tar",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			p := env.Progress("backup", 0)
			m, err := backup.Create(cmd.Context(), z, args[0], backup.Options{WithKeys: keys, Progress: func(n int64, name string) { p.Add(n) }})
			p.Done()
			if err != nil {
				return err
			}
			if keys {
				env.Say("the backup has the secret keys of ledger and station: who has them signs for the zone")
			}
			return printBackup(env, "backup", args[0], m, nil)
		},
	}
	c.Flags().BoolVar(&keys, "with-keys", false, "also the secret keys of the ledger and the station")
	return c
}

func printBackup(env *frame.Env, kind, path string, m *backup.Manifest, lost []trust.Digest) error {
	missing := make([]string, len(lost))
	for i, d := range lost {
		missing[i] = d.String()
	}
	v := map[string]any{"type": kind, "path": path, "origin": m.Checkpoint.Origin, "date": trust.FormatDate(m.Date), "size": m.Checkpoint.Size, "root": m.Checkpoint.RootText(),
		"files": len(m.Files), "bytes": m.Bytes(), "keys": m.Keys, "lost": missing}
	return env.Result(v, func(w io.Writer) {
		fmt.Fprintf(w, "origin   %s\ndate     %s\nledger   %s, root %s\nfiles    %d, %s\nkeys     %s\n", m.Checkpoint.Origin, trust.FormatDate(m.Date), trust.Count(m.Checkpoint.Size, "entry"),
			m.Checkpoint.RootText(), len(m.Files), frame.Bytes(m.Bytes()), map[bool]string{true: "with", false: "without"}[m.Keys])
		if len(lost) > 0 {
			fmt.Fprintf(w, "lost     %d blobs that the catalog names were missing already, the first %s\n", len(lost), lost[0])
		}
	})
}

// ledgerFlag is the ledger's key from paper.
func ledgerFlag(text string) (trust.VKey, error) {
	if text == "" {
		return trust.VKey{}, nil
	}
	key, err := trust.ParseVKey(text)
	if err != nil {
		return key, frame.Usage("--log: %v", err)
	}
	return key, nil
}

func backupVerify(env *frame.Env) *cobra.Command {
	var log string
	c := &cobra.Command{
		Use:   "verify DIR|FILE.tar",
		Short: "read a whole backup and check it",
		Long: "Read a whole backup and check it: every digest, the ledger under its signed checkpoint, the catalog against the ledger. All that is wrong is listed at\n" +
			"once. The ledger's key is the one in the backup, or, better, the one from paper that --log gives.",
		Example: "  sallyport backup verify /mnt/backup/inside-2026-03-01\n  sallyport backup verify --log VKEY inside.tar",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := ledgerFlag(log)
			if err != nil {
				return err
			}
			p := env.Progress("verify", 0)
			c, err := backup.Verify(cmd.Context(), args[0], backup.VerifyOptions{Ledger: key, Progress: func(n int64, _ string) { p.Add(n) }})
			p.Done()
			if err != nil {
				return err
			}
			return printBackup(env, "verified", args[0], c.Manifest, c.Lost)
		},
	}
	c.Flags().StringVar(&log, "log", "", "the ledger's checkpoint key (vkey), from paper")
	return c
}

// readNotes reads signed documents.
func readNotes(names []string) ([][]byte, error) {
	var notes [][]byte
	for _, name := range names {
		note, err := frame.ReadBounded(name, store.MaxPublic)
		if err != nil {
			return nil, err
		}
		notes = append(notes, note)
	}
	return notes, nil
}

func backupRestore(env *frame.Env) *cobra.Command {
	var log, keys, public, blobs, fingerprint string
	var newest, roots, orders []string
	c := &cobra.Command{
		Use:   "restore DIR|FILE.tar NEWDIR",
		Short: "put a backup back into a new directory",
		Long: "Put a backup back into a new directory. It is verified on the way. What is known of the ledger's newest state decides what happens next; --newest names it:\n" +
			"the old zone or its public directory, a witness's state, a checkpoint that was copied elsewhere. (What --zone names is asked, too.)\n" +
			"  the backup has all of it         the zone goes on: nothing was lost\n" +
			"  it has not, or nothing is known  the zone is put back and waits for two officers' orders (exit code 4); until then it takes in roots and\n" +
			"                                   orders, and nothing else\n" +
			"  it is another ledger             refused, and nothing is put back\n" +
			"Where the published directory survived, --public names it: the zone then has all that was published, and its catalog is made again. --blobs\n" +
			"names a zone's cas that survived: blobs that are not in the backup are taken from there, each by its digest.",
		Example: "  sallyport-station backup restore --fingerprint FINGERPRINT --newest /srv/sallyport/inside --keys /media/safe/keys /mnt/backup/inside-2026-03-01 /srv/sallyport/new\n" +
			"  sallyport-station backup restore --newest wilma.state inside.tar /srv/sallyport/new\n" +
			"  sallyport-station backup restore --public /srv/sallyport/inside/public --blobs /srv/sallyport/inside/cas inside.tar /srv/sallyport/new",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts := backup.RestoreOptions{Options: zoneOptions(env), Keys: keys, Public: public, Blobs: blobs, Newest: slices.Clone(newest)}
			var err error
			if opts.Ledger, err = ledgerFlag(log); err != nil {
				return err
			}
			if fingerprint != "" {
				if opts.Root, err = trust.ParsePin(fingerprint); err != nil {
					return frame.Usage("--fingerprint: %v", err)
				}
			}
			if opts.Roots, err = readNotes(roots); err != nil {
				return err
			}
			if opts.Orders, err = readNotes(orders); err != nil {
				return err
			}
			if old, err := zoneDir(env); err == nil {
				if _, err := os.Stat(filepath.Join(old, "public", "ledger", "checkpoint")); err == nil {
					opts.Newest = append(opts.Newest, old)
				}
			}
			p := env.Progress("restore", 0)
			opts.Progress = func(n int64, _ string) { p.Add(n) }
			r, err := backup.Restore(cmd.Context(), args[0], args[1], opts)
			p.Done()
			if err != nil {
				return err
			}
			if fingerprint == "" {
				env.Say("NOT CHECKED: the first root; --fingerprint compares it with the fingerprint that officers have on paper")
			}
			if r.Former {
				env.Say("the ledger ends with a checkpoint by a key that the newest root at hand does not name: it is older than that root, or made by who stole the key; officers decide")
			}
			env.ZoneDir = args[1]
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			_, at, err := z.Checkpoint()
			if err != nil {
				return err
			}
			missing := make([]string, len(r.Lost))
			for i, d := range r.Lost {
				missing[i] = d.String()
			}
			err = env.Result(map[string]any{"type": "restored", "zone": args[1], "origin": at.Origin, "size": at.Size, "root": at.RootText(), "known": r.Evidence,
				"rebuilt": r.Rebuilt, "waits": r.Waits, "former": r.Former, "lost": missing}, func(w io.Writer) {
				fmt.Fprintf(w, "zone     %s\norigin   %s\nledger   %s, root %s\n", args[1], at.Origin, trust.Count(at.Size, "entry"), at.RootText())
				switch {
				case r.Waits && r.Evidence > r.End.Size:
					fmt.Fprintf(w, "lost     %s that others have seen\n", trust.Count(r.Evidence-r.End.Size, "entry"))
				case r.Waits:
					fmt.Fprintln(w, "lost     nobody knows: nothing of the ledger's newest state was at hand")
				}
				if len(r.Lost) > 0 {
					fmt.Fprintf(w, "blobs    %d that the catalog names are missing, the first %s\n", len(r.Lost), r.Lost[0])
				}
			})
			return errors.Join(err, waitsForOrders(z))
		},
	}
	f := c.Flags()
	f.StringVar(&log, "log", "", "the ledger's checkpoint key (vkey), from paper")
	f.StringVar(&fingerprint, "fingerprint", "", "of the first root, from officers' paper")
	f.StringVar(&keys, "keys", "", "directory with ledger.key and station.key, if the backup has them not, or the zone got others since")
	f.StringVar(&public, "public", "", "the published directory, if it survived")
	f.StringVar(&blobs, "blobs", "", "the directory of blobs, if it survived")
	f.StringArrayVar(&newest, "newest", nil, "what is at hand of the ledger's newest state: a zone, a published directory, a checkpoint's file; may be given several times")
	f.StringArrayVar(&roots, "root", nil, "a root that came into force after the backup; may be given several times, in their order")
	f.StringArrayVar(&orders, "orders", nil, "orders that came into force after the backup; may be given several times, in their order")
	return c
}

func backupResume(env *frame.Env) *cobra.Command {
	var roots, orders []string
	c := &cobra.Command{
		Use:   "resume --orders FILE",
		Short: "let a zone that was put back go on, by officers' orders",
		Long: "Let a zone that was put back, and waits, go on: by orders of two officers that name the size and the tree at which its ledger ends. Inside, 'order accept' does\n" +
			"the same; this verb takes orders that are in force inside into another zone. Roots and orders that the zone has not yet are given in their order.",
		Example: "  sallyport backup resume --zone outside --root root/3 --orders orders/1 --orders orders/2",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(orders) == 0 {
				return frame.Usage("--orders is needed")
			}
			rootNotes, err := readNotes(roots)
			if err != nil {
				return err
			}
			orderNotes, err := readNotes(orders)
			if err != nil {
				return err
			}
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			for _, note := range rootNotes {
				if _, err := z.SetRoot(cmd.Context(), note, nil); err != nil {
					return err
				}
			}
			for _, note := range orderNotes {
				if _, err := z.SetOrders(cmd.Context(), note); err != nil {
					return err
				}
			}
			if err := waitsForOrders(z); err != nil {
				return err
			}
			_, at, err := z.Checkpoint()
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"type": "resumed", "origin": at.Origin, "size": at.Size}, func(w io.Writer) {
				fmt.Fprintf(w, "%s goes on with %s\n", at.Origin, trust.Count(at.Size, "entry"))
			})
		},
	}
	c.Flags().StringArrayVar(&roots, "root", nil, "a root that the zone has not yet; may be given several times, in their order")
	c.Flags().StringArrayVar(&orders, "orders", nil, "orders that the zone has not yet; may be given several times, in their order")
	return c
}
