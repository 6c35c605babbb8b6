package verbs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/tlog"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/evidence/siem"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// A filter says which entries are wanted; all that it asks for must hold.
type filter struct {
	kinds        []string
	person, item string
	shipment     int64
	submission   int64
	since, until string
}

func (f *filter) flags(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.kinds, "kind", nil, "only entries of these kinds, such as imported,allowed")
	c.Flags().StringVar(&f.person, "person", "", "only entries that this person signed, or that name the person")
	c.Flags().StringVar(&f.item, "item", "", "only entries about what is named so: the whole name, what stands behind a hash, a part of it, or a SHA-256")
	c.Flags().Int64Var(&f.shipment, "shipment", 0, "only entries about this shipment")
	c.Flags().Int64Var(&f.submission, "submission", 0, "only entries about this submission: 3 for own-3")
	c.Flags().StringVar(&f.since, "since", "", "only entries from this time on: 2026-03-01, 2026-03-01T09:00:00Z, or 36h or 7d ago")
	c.Flags().StringVar(&f.until, "until", "", "only entries before this time")
}

// isEmpty says that every entry is wanted.
func (f *filter) isEmpty() bool {
	return len(f.kinds) == 0 && f.person == "" && f.item == "" && f.shipment == 0 && f.submission == 0 && f.since == "" && f.until == ""
}

// compile checks the flags and makes one question of them.
func (f *filter) compile(now time.Time) (func(*siem.Record) bool, error) {
	since, err := moment("--since", f.since, now)
	if err != nil {
		return nil, err
	}
	until, err := moment("--until", f.until, now)
	if err != nil {
		return nil, err
	}
	if f.shipment < 0 {
		return nil, frame.Usage("--shipment %d: shipments are numbered from 1 up", f.shipment)
	}
	if f.submission < 0 {
		return nil, frame.Usage("--submission %d: submissions are numbered from 1 up", f.submission)
	}
	return func(r *siem.Record) bool {
		switch {
		case len(f.kinds) > 0 && !slices.Contains(f.kinds, r.Kind),
			// Dates have one spelling, whose order is that of time.
			since != "" && r.Time < since,
			until != "" && r.Time >= until,
			f.person != "" && !slices.Contains(r.Persons(), f.person),
			f.shipment != 0 && !r.IsAbout("shipment "+strconv.FormatInt(f.shipment, 10)) && r.Predicate["shipment"] != f.shipment,
			f.submission != 0 && !r.IsAbout("own-"+strconv.FormatInt(f.submission, 10)) && r.Predicate["submission"] != f.submission,
			f.item != "" && !r.IsAbout(f.item):
			return false
		}
		return true
	}, nil
}

// moment reads a time: a date, a date with a time, or how long ago. It returns the one spelling that entries have.
func moment(flag, s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if t, err := trust.ParseDate(s); err == nil {
		return trust.FormatDate(t), nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return trust.FormatDate(t), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 36500 {
			return trust.FormatDate(now.AddDate(0, 0, -n)), nil
		}
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return trust.FormatDate(now.Add(-d)), nil
	}
	return "", frame.Usage("%s %q: want a date (2026-03-01), a time (2026-03-01T09:00:00Z), or how long ago (36h, 7d)", flag, s)
}

func ledgerShow(env *frame.Env) *cobra.Command {
	var from int64
	var last int
	var src paper
	var f filter
	c := &cobra.Command{
		Use:   "show [INDEX]",
		Short: "list the entries of a ledger, or print one",
		Long: `List the entries of a ledger, or print one of them in full. What is shown was proven to be in the ledger; whether a statement's own signature
verifies stands in the JSON as "signature", and is said aloud where it does not.`,
		Example: "  sallyport ledger show --zone inside\n" +
			"  sallyport ledger show --zone inside --kind refused,rejected --since 7d\n" +
			"  sallyport ledger show --zone inside --person alice -n 20\n" +
			"  sallyport ledger show --zone inside --item hello-2.12\n" +
			"  sallyport ledger show --zone inside 3\n" +
			"  sallyport ledger show --zone inside --json | jq -r .kind",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from < 0 {
				return frame.Usage("--from %d: want an index from 0 up", from)
			}
			if last < 0 {
				return frame.Usage("-n %d: want a number from 1 up", last)
			}
			wanted, err := f.compile(env.Clock())
			if err != nil {
				return err
			}
			l, err := src.open(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer l.close()
			_, log, err := l.now(cmd.Context())
			if err != nil {
				return err
			}
			c := log.Checkpoint()
			if len(args) == 1 {
				index, err := indexOf(args[0], c)
				if err != nil {
					return err
				}
				return showOne(env, l, log, index)
			}
			if from > c.Size {
				return frame.Usage("--from %d: the ledger has %s", from, trust.Count(c.Size, "entry"))
			}
			if last > 0 && f.isEmpty() {
				from = max(from, c.Size-int64(last))
			}
			show := func(e shown) error {
				return printRecord(env, siem.NewRecord(c.Origin, e.index, e.leaf, e.hash, l.keys))
			}
			var kept []shown
			p := env.Progress("reading "+c.Origin, 0)
			defer p.Done()
			err = log.Range(cmd.Context(), from, c.Size, func(index int64, leaf []byte, hash tlog.Hash) error {
				p.Add(int64(len(leaf)))
				// Most entries may not be wanted: the signature, which takes longest, is looked at afterwards.
				if !f.isEmpty() && !wanted(siem.NewRecord(c.Origin, index, leaf, hash, nil)) {
					return nil
				}
				e := shown{index, leaf, hash}
				if last == 0 {
					return show(e)
				}
				// A leaf shares the memory of its bundle, which is not to be held for it.
				e.leaf = bytes.Clone(leaf)
				if kept = append(kept, e); len(kept) > 2*last {
					kept = append(kept[:0], kept[len(kept)-last:]...)
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, e := range kept[max(0, len(kept)-last):] {
				if err := show(e); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().Int64Var(&from, "from", 0, "index of the first entry to list")
	c.Flags().IntVarP(&last, "last", "n", 0, "only the last so many of them")
	f.flags(c)
	src.flags(c)
	return c
}

// A shown is an entry that was proven to be in the ledger.
type shown struct {
	index int64
	leaf  []byte
	hash  tlog.Hash
}

func printRecord(env *frame.Env, r *siem.Record) error {
	return env.Result(r, func(w io.Writer) {
		fmt.Fprintf(w, "%6d  %-20s  %-11s %-10s %s\n", r.Index, r.Time, r.Kind, r.Signer, r.Sentence())
	})
}

// showOne prints one entry in full.
func showOne(env *frame.Env, l *published, log *ledger.Log, index int64) error {
	leaf, err := log.Leaf(index)
	if err != nil {
		return err
	}
	r := siem.NewRecord(log.Checkpoint().Origin, index, leaf, tlog.RecordHash(leaf), l.keys)
	// Indented JSON escapes whatever could steer a terminal.
	predicate, err := json.MarshalIndent(r.Predicate, "", "  ")
	if err != nil {
		return err
	}
	return env.Result(r, func(w io.Writer) {
		fmt.Fprintf(w, "entry      %d of %d in %s\nkind       %s\ntime       %s\nsigned by  %s (signature: %s)\nleaf hash  %s\n", index, log.Checkpoint().Size, r.Origin, r.Kind, r.Time, r.Key, r.Signature, r.Leaf)
		for _, s := range r.Subjects {
			fmt.Fprintf(w, "subject    %s  %s\n", s.SHA256, trust.Printable(s.Name, 1000))
		}
		fmt.Fprintf(w, "%s\n%s\n", r.Sentence(), predicate)
	})
}

// indexOf reads the index of an entry.
func indexOf(s string, c ledger.Checkpoint) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, frame.Usage("%.60q: want the index of an entry", s)
	}
	if n < 0 || n >= c.Size {
		return 0, frame.Usage("there is no entry %d: the ledger has %d, from 0 up", n, c.Size)
	}
	return n, nil
}
