package verbs

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/evidence/siem"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// defaultInterval is how often a follower looks for new entries.
const defaultInterval = time.Second

// An export is one run of the verb.
type export struct {
	env                                           *frame.Env
	src                                           paper
	format, cursor, out, send, hostname, facility string
	from, to                                      int64 // to: the last entry; -1: the newest
	enterprise                                    int
	follow                                        bool
	interval                                      time.Duration

	addr   siem.Address
	syslog siem.Syslog
}

func ledgerExport(env *frame.Env) *cobra.Command {
	x := &export{env: env}
	c := &cobra.Command{
		Use:   "export [--format jsonl|syslog] [--follow --cursor FILE] [--out FILE | --send ADDRESS]",
		Short: "tell a ledger to a log file or a SIEM: once, or for as long as it grows",
		Long: `Tell the entries of a ledger, each on a line: as JSON, or as syslog messages (RFC 5424). Each was proven to be in the ledger before it is printed.

Lines go to standard output, to a file (--out), or to a socket (--send): unix:/dev/log, another local socket, or tcp:HOST:PORT, where syslog messages have
their length before them (RFC 6587, octet counting) and JSON its line feed. With --follow it goes on as the ledger grows. With --cursor it goes on where it
ended last, also after a crash: into a file each line comes once; into a socket or a pipe at least once, and what comes twice is the same, with the same index.

If the ledger does not go on from what was told (a fork, or a rollback), that is an alarm: a line of its own, and exit code 3.
docs/operate/siem.md has the fields, the severities and what to alert on.`,
		Example: "  sallyport ledger export --zone inside > ledger.jsonl\n" +
			"  sallyport ledger export --zone inside --from 100 --to 199 --format syslog\n" +
			"  sallyport ledger export --zone inside --follow --cursor /var/lib/sallyport/siem --out /var/log/sallyport/ledger.jsonl\n" +
			"  sallyport ledger export --zone inside --follow --cursor /var/lib/sallyport/siem --format syslog --send tcp:siem.enclave:601\n" +
			"  sallyport ledger export --public ./public --root FINGERPRINT | jq 'select(.kind == \"refused\")'",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return x.run(cmd) },
	}
	f := c.Flags()
	f.StringVar(&x.format, "format", "jsonl", "jsonl or syslog")
	f.Int64Var(&x.from, "from", 0, "index of the first entry")
	f.Int64Var(&x.to, "to", -1, "index of the last entry; -1 is the newest")
	f.BoolVar(&x.follow, "follow", false, "go on as the ledger grows, until stopped")
	f.DurationVar(&x.interval, "interval", defaultInterval, "with --follow: how often to look for new entries")
	f.StringVar(&x.cursor, "cursor", "", "file that remembers how far the ledger was told; go on from there")
	f.StringVarP(&x.out, "out", "o", "", "append to this file")
	f.StringVar(&x.send, "send", "", "send to unix:/PATH or tcp:HOST:PORT")
	f.StringVar(&x.hostname, "hostname", "", "syslog: the host's name (default this machine's)")
	f.StringVar(&x.facility, "facility", "audit", "syslog: auth, authpriv, audit, daemon, or local0 to local7")
	f.IntVar(&x.enterprise, "enterprise", siem.DocumentationNumber, "syslog: private enterprise number in the name of the structured data")
	x.src.flags(c)
	return c
}

func (x *export) check(cmd *cobra.Command) error {
	changed := cmd.Flags().Changed
	switch {
	case x.format != "jsonl" && x.format != "syslog":
		return frame.Usage("--format %q: want jsonl or syslog", x.format)
	case x.out != "" && x.send != "":
		return frame.Usage("give --out or --send, not both")
	case x.from < 0 || x.to < -1 || x.to >= 0 && x.to < x.from:
		return frame.Usage("--from %d --to %d: want indexes from 0 up, the last not below the first", x.from, x.to)
	case x.follow && x.to >= 0:
		return frame.Usage("--follow has no end, and --to is one")
	case x.interval < 10*time.Millisecond || x.interval > time.Hour:
		return frame.Usage("--interval %v: want 10ms to 1h", x.interval)
	case x.format == "jsonl" && (changed("hostname") || changed("facility") || changed("enterprise")):
		return frame.Usage("--hostname, --facility and --enterprise go with --format syslog")
	case x.enterprise < 0:
		return frame.Usage("--enterprise %d: want a number", x.enterprise)
	}
	if x.send != "" {
		var err error
		if x.addr, err = siem.ParseAddress(x.send); err != nil {
			return frame.Usage("--send %v", err)
		}
	}
	facility, ok := siem.Facilities[x.facility]
	if !ok {
		return frame.Usage("--facility %q: want auth, authpriv, audit, daemon, or local0 to local7", x.facility)
	}
	if x.hostname == "" {
		// A machine without a name has a dash there.
		x.hostname, _ = os.Hostname()
	}
	x.syslog = siem.Syslog{Facility: facility, Host: x.hostname, Enterprise: x.enterprise}
	return nil
}

func (x *export) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	if err := x.check(cmd); err != nil {
		return err
	}
	l, err := x.src.open(ctx, x.env)
	if err != nil {
		return err
	}
	// What is published is all that it reads: nobody has to wait for a follower to let go of the zone.
	if err := l.close(); err != nil {
		return err
	}
	f := siem.Follower{Next: x.from, To: x.to, Follow: x.follow, Interval: x.interval, Retry: x.send != "", Say: x.env.Say, Connect: x.connect}
	f.Log = func() (*ledger.Log, error) {
		_, log, err := l.now(ctx)
		return log, err
	}
	if x.cursor != "" {
		cursor, at, ok, err := siem.OpenCursor(x.cursor)
		if err != nil {
			return err
		}
		defer cursor.Close()
		if ok {
			if cmd.Flags().Changed("from") {
				return frame.Usage("--from: the cursor %s says already that %d is next", x.cursor, at.Told.Size)
			}
			f.At, f.Next = at, at.Told.Size
		}
		f.Told = cursor.Save
	}
	if l.keys != nil {
		f.Keys = func(again bool) (siem.Keys, error) {
			if again && l.pin != nil {
				if err := l.read(); err != nil {
					return nil, err
				}
			}
			return l.keys, nil
		}
	}
	f.Format = (*siem.Record).JSON
	f.Alarm = func(r *trust.Refusal) ([]byte, error) { return siem.AlarmJSON(x.env.Clock(), l.log[0].Name, r) }
	if x.format == "syslog" {
		f.Format = func(r *siem.Record) ([]byte, error) { return x.syslog.Message(r), nil }
		f.Alarm = func(r *trust.Refusal) ([]byte, error) { return x.syslog.Alarm(x.env.Clock(), l.log[0].Name, r), nil }
	}
	told := 0
	f.Progress = func(n int, _ int64) { told += n }
	if !x.follow {
		// A follower is as far as the ledger is; it says only what changes.
		p := x.env.Progress("exporting", 0)
		defer p.Done()
		f.Progress = func(n int, bytes int64) {
			told += n
			p.Note(trust.Count(told, "entry"))
			p.Add(bytes)
		}
	}
	err = f.Run(ctx)
	if errors.Is(err, siem.ErrBeyond) {
		return frame.Usage("%v", err)
	}
	if err == nil && (x.out != "" || x.send != "") {
		x.env.Say("%s told, up to and without %d", trust.Count(told, "entry"), f.Next)
	}
	return err
}

// connect opens where the lines go.
func (x *export) connect(ctx context.Context, last *siem.FileMark) (siem.Sink, error) {
	switch {
	case x.out != "":
		return siem.ToFile(x.out, last)
	case x.send == "":
		return siem.ToWriter(x.env.Stdout), nil
	}
	framing := siem.Lines
	if x.format == "syslog" {
		framing = siem.Octets
	}
	return siem.Dial(ctx, x.addr, framing)
}
