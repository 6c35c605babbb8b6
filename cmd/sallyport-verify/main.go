// Sallyport-verify re-checks what a zone published, or what lies on a shipment's volume, trusting nobody: not the station, not
// its database, not the program that wrote the bytes. It is the second implementation of docs/spec/{trust,ledger,shipment}.md,
// written from those pages alone. It imports nothing but the standard library, and has no code that could open a network
// connection or start a program; a test keeps it so.
//
// What is trusted: the digest of the first root document, handed over on paper. Everything else is proved, one step on the one before,
// so the files are best read in this order, with the page of docs/spec that each follows beside it. There are about so many lines:
//
//	                   lines  what it shows
//	main.go        200  what can be asked for, and what is taken on trust
//	report.go      230  that hostile files are read within bounds, and that all that is wrong comes out, with its code
//	text.go        390  that every value has one spelling, and every document the lines it must have
//	note.go        110  that a text was signed: by which keys, and by none of them wrongly
//	key.go         310  that a key is sound, and a signature that of its kind (keys.md)
//	root.go        330  who holds which role and key: the chain of roots from the paper on, thresholds, seats, policies
//	                    (trust.md, also for what follows)
//	orders.go      190  what officers ordered, and that they could
//	items.go       200  what a manifest offers, and an allowlist allows
//	statement.go   440  that an entry is canonical, has the members its kind asks for, and is signed
//	ledger.go      470  that the entries make the signed tree, every published tile, and every tree that a witness cosigned
//	                    (ledger.md); the command "ledger" ends here
//	enclave.go     440  that the entries tell one history: roots and orders come in force in turn, recalls are obeyed, nothing is
//	                    published that no entry tells of
//	renewal.go     140  that the zone changed its own keys with leave
//	approval.go    285  that each allowlist was approved by enough persons, who did not bring the items in themselves
//	quorum.go      150  that enough builders said the same of what tracks sign
//	volume.go      350  that a shipment's volume is what collectors signed (shipment.md)
//	blake2b.go     100  the hash of its signatures, which the standard library lacks
//
// The directory that is checked should lie still: a copy, not the one that a station is writing.
//
// Everything wrong is listed at once, each with a reason code. Exit codes: 0 good, 1 failed (a disk, not a judgement), 2 usage,
// 3 refused. Treat any other as failed.
//
// The line below is how the project's demonstration builds this program as a derivation whose builder is the Go toolchain
// itself, without a shell: in the sandbox the builder is `go`, its arguments are `generate` and this folder, and `go generate`
// replaces $out by the derivation's output path, which the sandbox sets. The flags leave no path or revision in the file, so
// every builder gets the same bytes; -mod=vendor, because a sandbox has no network. Elsewhere use `go build` as usual.
package main

//go:generate go build -trimpath -buildvcs=false -mod=vendor -o $out/bin/sallyport-verify .

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

const usage = `Examples:

  sallyport-verify enclave --root jdtp-lzno-fleu-q2nc-ecpl-jjwz-66go-ac5o public/
  sallyport-verify enclave --root FINGERPRINT --require approved,built,agreed --witness wendy --manifests manifests/ public/
  sallyport-verify ledger --key VKEY public/ledger
  sallyport-verify volume --root FINGERPRINT --roots public/root --slip slip.txt /media/disc

enclave: the whole public directory of a zone.
  --root FINGERPRINT     of root document 1, as handed over on paper: 8 groups of 4 characters, or the SHA-256 of its text
  --require KIND,KIND    refuse unless the ledger holds statements of these kinds
  --witness PERSON       refuse unless this witness cosigned (may be repeated)
  --manifests DIR        manifest files; they show which shipment brought an item, so who must not approve it
  --signatures persons   leave out the signatures of the station, which give no authority; those of persons are always checked

ledger: the tree of a zone without a root. Signatures of statements are checked only by the keys given.
  --key VKEY             the checkpoint key, or a statement key NAME/statement (may be repeated)

volume: one disc, stick or directory of a shipment.
  --root FINGERPRINT     as above
  --roots DIR            the root documents 1, 2, 3 ...
  --slip FILE            the printed slip that came by another way
  --mldsa-checked        "sallyport shipment verify" has checked the ML-DSA-87 signatures; this program cannot, and refuses
                         without this flag what must have them

--json prints one object. What was not checked is always said. Exit codes: 0 good, 1 failed, 2 usage, 3 refused.
`

const (
	exitGood    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitRefused = 3
)

// repeated is a flag that may be given more than once.
type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, " ") }
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

// options holds the flags of all three commands; a command defines only its own.
type options struct {
	root, roots, slip, manifests, require, signatures string
	pin                                               pin // of root
	witnesses, keys                                   repeated
	json, mldsaChecked                                bool
}

// usageError is a value of a flag that no command could use.
type usageError string

func (e usageError) Error() string { return string(e) }

func main() {
	// The strings of one bundle after the other pass through a heap of a few megabytes: let it grow to some tens, and be collected less often.
	debug.SetGCPercent(400)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	wrong := func(format string, a ...any) int {
		fmt.Fprintf(stderr, "sallyport-verify: "+format+"\nhint: sallyport-verify --help\n", a...)
		return exitUsage
	}
	if len(args) == 0 {
		return wrong("which command: enclave, ledger or volume?")
	}
	command, o := args[0], options{}
	set := flag.NewFlagSet(command, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.BoolVar(&o.json, "json", false, "")
	var verify func(string, options, *report) error
	switch command {
	case "enclave":
		verify = verifyEnclave
		set.StringVar(&o.root, "root", "", "")
		set.StringVar(&o.require, "require", "", "")
		set.StringVar(&o.manifests, "manifests", "", "")
		set.StringVar(&o.signatures, "signatures", "all", "")
		set.Var(&o.witnesses, "witness", "")
	case "ledger":
		verify = verifyLedger
		set.Var(&o.keys, "key", "")
	case "volume":
		verify = verifyVolume
		set.StringVar(&o.root, "root", "", "")
		set.StringVar(&o.roots, "roots", "", "")
		set.StringVar(&o.slip, "slip", "", "")
		set.BoolVar(&o.mldsaChecked, "mldsa-checked", false, "")
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return exitGood
	default:
		return wrong("%q is no command", command)
	}
	var places []string // flags may stand before and after the place
	for rest := args[1:]; ; {
		if err := set.Parse(rest); errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			return exitGood
		} else if err != nil {
			return wrong("%v", err)
		}
		if rest = set.Args(); len(rest) == 0 {
			break
		}
		places, rest = append(places, rest[0]), rest[1:]
	}
	var pinned bool
	o.pin, pinned = parsePin(o.root)
	switch {
	case len(places) != 1:
		return wrong("%s takes one place, not %d", command, len(places))
	case command != "ledger" && !pinned:
		return wrong("--root takes the fingerprint of the first root: 8 groups of 4 characters, or the 64 hexadecimal digits of its SHA-256")
	case command == "enclave" && o.signatures != "all" && o.signatures != "persons":
		return wrong("--signatures is all or persons")
	case command == "volume" && o.roots == "":
		return wrong("--roots DIR is needed: the root documents name the collectors' keys")
	}
	rep := &report{Type: "verification", Command: command}
	err := verify(places[0], o, rep)
	var bad usageError
	if errors.As(err, &bad) {
		return wrong("%v", err)
	}
	if err = errors.Join(err, rep.print(stdout, err, o.json)); err != nil {
		fmt.Fprintf(stderr, "sallyport-verify: %v\n", err)
		return exitFailed
	}
	if rep.RefusedTotal > 0 {
		return exitRefused
	}
	return exitGood
}
