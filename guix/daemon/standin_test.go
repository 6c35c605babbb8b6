package daemon

import (
	"fmt"
	"net"
	"testing"

	"sallyport/guix/signature"
)

// StandIn starts a daemon in memory for the examples, with an empty store, and returns the client's end. It builds whatever it is given, in words.
func StandIn() net.Conn {
	f := newFake(printer{})
	f.build = func(f *fake, things []string, _ uint64) error {
		f.next("@ build-started " + things[0] + " - x86_64-linux /var/log/guix/drvs/x 4711\n")
		f.next("@ build-log 4711 14\nhello, world.\n")
		f.next("@ build-succeeded " + things[0] + " -\n")
		return nil
	}
	return f.start(Version)
}

// StandInKey is the key with which every stand-in signs what it exports.
func StandInKey() signature.PublicKey { return newFake(printer{}).key.Public() }

// printer is what a fake reports to in an example.
type printer struct{ testing.TB }

func (printer) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (printer) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (printer) Cleanup(func())                    {}
func (printer) Helper()                           {}
