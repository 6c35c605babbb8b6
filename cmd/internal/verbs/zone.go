package verbs

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/keep/rebuild"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
)

func initZone(env *frame.Env) *cobra.Command {
	var kind, enclave string
	c := &cobra.Command{
		Use:   "init --kind outside|staging|inside --enclave NAME DIR",
		Short: "make a zone: one directory of state with a ledger of its own",
		Example: "  sallyport init --kind outside --enclave demo /srv/sallyport/outside\n" +
			"  sallyport-station init --kind inside --enclave demo /srv/sallyport/inside",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if kind == "" || enclave == "" {
				return frame.Usage("--kind and --enclave are needed")
			}
			// With every default: a field that is left alone would be written down as zero, and no space be kept free.
			cfg, err := store.NewConfig(kind, enclave)
			if err != nil {
				return frame.Usage("%v", err)
			}
			if err := store.Init(args[0], cfg, env.Clock, env.Rand); err != nil {
				return err
			}
			env.ZoneDir = args[0]
			z, err := env.Zone(cmd.Context())
			if err != nil {
				return err
			}
			defer z.Close()
			return env.Result(map[string]string{"zone": args[0], "origin": z.Origin(), "checkpoint": z.LedgerVKey().String(), "station": z.StationVKey().String()}, func(w io.Writer) {
				fmt.Fprintf(w, "zone        %s\norigin      %s\ncheckpoint  %s\nstation     %s\n", args[0], z.Origin(), z.LedgerVKey(), z.StationVKey())
			})
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "outside, staging or inside")
	c.Flags().StringVar(&enclave, "enclave", "", "name of the enclave: [a-z0-9][a-z0-9-]{0,31}")
	return c
}

func config(env *frame.Env) *cobra.Command {
	return noun("config", "zone.toml", &cobra.Command{
		Use:     "explain",
		Short:   "print every key that zone.toml may have",
		Example: "  sallyport config explain",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if !env.JSON {
				_, err := io.WriteString(env.Stdout, store.ExplainConfig())
				return err
			}
			for _, k := range store.ConfigKeys() {
				if err := env.Result(map[string]any{"type": "key", "name": k.Name, "value": k.Type, "default": k.Default, "kinds": k.Kinds, "doc": k.Doc}, nil); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// zoneDir is the directory of the zone for verbs that do not open it in the ordinary way.
func zoneDir(env *frame.Env) (string, error) {
	dir := env.ZoneDir
	if dir == "" {
		dir = env.Getenv("SALLYPORT_ZONE")
	}
	if dir == "" {
		return "", frame.Usage("no zone: give --zone DIR or set SALLYPORT_ZONE; '%s init' makes one", env.Program)
	}
	return dir, nil
}

func zoneOptions(env *frame.Env) store.Options {
	return store.Options{Clock: env.Clock, Rand: env.Rand, Log: env.Log()}
}

func catalogNoun(env *frame.Env) *cobra.Command {
	return noun("catalog", "the index of a zone, which can be made again", catalogRebuild(env), catalogUpgrade(env))
}

// inUse adds the remedy where somebody has the zone open.
func inUse(err error) error {
	var locked *store.LockedError
	if errors.As(err, &locked) {
		return frame.WithHint(err, "stop whoever has the zone open (depot, builder, another command), and run this again")
	}
	return err
}

func catalogRebuild(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "rebuild",
		Short: "make the catalog again from the published ledger and the blobs",
		Long: "Make the catalog of a zone again: from the published ledger, verified as a whole, the documents published beside it, and the blobs. For a catalog that is\n" +
			"lost, broken or not to be trusted. Nobody may have the zone open. The former catalog is kept as catalog.sqlite.N. What was committed and\n" +
			"not published yet is published first, if the former catalog still works; it had no effect, and is lost if not. The rebuild is an entry of the ledger.",
		Example: "  sallyport-station catalog rebuild --zone /srv/sallyport/inside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := zoneDir(env)
			if err != nil {
				return err
			}
			p := env.Progress("rebuild", 0)
			p.Unit("entries")
			var last int64
			r, err := rebuild.Run(cmd.Context(), dir, store.ReplaceOptions{Options: zoneOptions(env), Progress: func(done, total int64) {
				p.Total(total)
				p.Add(done - last)
				last = done
			}})
			p.Done()
			if err != nil {
				return inUse(err)
			}
			fault := ""
			if r.Fault != nil {
				fault = r.Fault.Error()
			}
			return env.Result(map[string]any{"origin": r.From.Origin, "size": r.From.Size, "root": r.From.RootText(), "aside": r.Aside, "fault": fault}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: the catalog was made again from %d published entries\n", r.From.Origin, r.From.Size)
				if r.Aside != "" {
					fmt.Fprintf(w, "former catalog  %s\n", r.Aside)
				}
				if fault != "" {
					fmt.Fprintf(w, "its fault       %s\n", fault)
				}
			})
		},
	}
}

func catalogUpgrade(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "upgrade",
		Short:   "bring a catalog that an earlier version has made up to date",
		Long:    "Bring a catalog that an earlier version of this program has made up to date. Nobody may have the zone open. The former catalog is kept as catalog.sqlite.N.",
		Example: "  sallyport catalog upgrade --zone /srv/sallyport/outside",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := zoneDir(env)
			if err != nil {
				return err
			}
			u, err := store.Upgrade(cmd.Context(), dir, zoneOptions(env))
			if err != nil {
				return inUse(err)
			}
			return env.Result(map[string]any{"from": u.From, "to": u.To, "aside": u.Aside}, func(w io.Writer) {
				if u.Aside == "" {
					fmt.Fprintf(w, "version %d, up to date\n", u.To)
					return
				}
				fmt.Fprintf(w, "from version %d to %d\nformer catalog  %s\n", u.From, u.To, u.Aside)
			})
		},
	}
}

// ledgerRepublish belongs to the noun ledger.
func ledgerRepublish(env *frame.Env) *cobra.Command {
	var newest []string
	c := &cobra.Command{
		Use:   "republish [--newest FILE]...",
		Short: "publish a ledger anew of which the published files are lost",
		Long: "Publish a ledger anew, from the catalog, after the published directory was lost ('ledger-missing'). Whoever lost it may have put back an old\n" +
			"catalog, too, and only what others have seen can tell: --newest names a checkpoint that a witness cosigned or keeps, or that was copied\n" +
			"elsewhere. If the catalog has all of that, it is published; else it is refused, and a backup is put back instead. Without --newest it is\n" +
			"published, and the zone waits for officers' orders that let the ledger go on from there.",
		Example: "  sallyport-station ledger republish --zone inside --newest wilma.state\n" +
			"  sallyport-station ledger republish --zone inside --newest /mnt/copy/public/ledger/checkpoint",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := zoneDir(env)
			if err != nil {
				return err
			}
			notes := [][]byte{}
			for _, name := range newest {
				note, err := frame.ReadBounded(name, ledger.MaxCheckpoint)
				if err != nil {
					return err
				}
				notes = append(notes, note)
			}
			opts := zoneOptions(env)
			opts.Republish = notes
			z, err := store.Open(cmd.Context(), dir, opts)
			if err != nil {
				return err
			}
			defer z.Close()
			_, at, err := z.Checkpoint()
			if err != nil {
				return err
			}
			return errors.Join(env.Result(map[string]any{"origin": at.Origin, "size": at.Size, "root": at.RootText()}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d entries are published\n", at.Origin, at.Size)
			}), waitsForOrders(z))
		},
	}
	c.Flags().StringArrayVar(&newest, "newest", nil, "a checkpoint that others have seen; may be given several times")
	return c
}

// waitsForOrders says that a zone waits for officers' orders; nil if it does not.
func waitsForOrders(z *store.Zone) error {
	c, waits := z.Restored()
	if !waits {
		return nil
	}
	return &frame.WaitingError{
		Text: fmt.Sprintf("the zone waits: two officers have to order that its ledger goes on from size %d", c.Size),
		Hint: fmt.Sprintf("'order restored %d %s' drafts the order where the officers are; 'order accept' takes it in, or 'backup resume --orders FILE'", c.Size, c.RootText()),
	}
}
