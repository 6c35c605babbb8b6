package trust

import (
	"crypto/ed25519"
	"slices"
	"syscall"
	"testing"
	"time"
)

// benchItems is the size that a list is to be fast with.
const benchItems = 100_000

// cpu reports, beside the time on the wall, which a busy machine makes longer, the time that the processors worked.
func cpu(b *testing.B) func() {
	now := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	start := now()
	return func() { b.ReportMetric(float64(now()-start)/float64(b.N)/1e6, "cpu-ms/op") }
}

func BenchmarkAllowlist(b *testing.B) {
	e := newEnclave(b)
	root := e.open(e.root())
	list := testAllowlist(benchItems)
	text := list.Text()
	msg := e.sign(text, "rada/allowlist", "remy/allowlist")
	opened, _, err := OpenAllowlist(msg, root, nil)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, size int, f func() error) {
		b.Run(name, func(b *testing.B) {
			if size > 0 {
				b.SetBytes(int64(size))
			}
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("print", len(text), func() error { list.Text(); return nil })
	run("sign", len(text), func() error { _, err := SignNote(text, e.key("rada/allowlist"), e.key("remy/allowlist")); return err })
	run("parse", len(text), func() error { _, err := ParseAllowlist(text); return err })
	run("open", len(msg), func() error { _, _, err := OpenAllowlist(msg, root, nil); return err })
	run("sign-and-open", len(msg), func() error {
		msg, err := SignNote(list.Text(), e.key("rada/allowlist"), e.key("remy/allowlist"))
		if err != nil {
			return err
		}
		_, _, err = OpenAllowlist(msg, root, nil)
		return err
	})
	run("look-up", 0, func() error {
		it := opened.Items[benchItems/2]
		if have, ok := opened.ByName(it.Name); !ok || have != it {
			b.Fatal("not found")
		}
		return nil
	})
	// What a reviewer's machine does when one item comes to a hundred thousand: the next version, signed, verified and found to follow.
	one := Item{Sum([]byte("one more")), 1, KindSource, base("one", "more-1.0.tar.gz")}
	run("add-one", len(msg), func() error {
		at, _ := slices.BinarySearchFunc(opened.Items, one, Item.Compare)
		next := &Allowlist{Enclave: list.Enclave, Track: list.Track, Version: 2, Date: list.Date, Root: 1, Previous: opened.Digest(), Items: slices.Insert(slices.Clone(opened.Items), at, one)}
		msg, err := SignNote(next.Text(), e.key("rada/allowlist"), e.key("remy/allowlist"))
		if err != nil {
			return err
		}
		again, _, err := OpenAllowlist(msg, root, nil)
		if err != nil {
			return err
		}
		return again.CheckSuccessor(opened)
	})
	// What no reader can go below: the two signatures over the same bytes.
	run("signatures-alone", len(text), func() error {
		k := e.key("rada/allowlist")
		sig := signRaw(k, text)
		for range 2 {
			if !ed25519.Verify(k.VKey().Public, text, sig) {
				b.Fatal()
			}
		}
		return nil
	})
}

func BenchmarkOrders(b *testing.B) {
	e := newEnclave(b)
	root := e.open(e.root())
	o := &Orders{Enclave: "citadel", Version: 1, Date: epoch, Root: 1}
	for _, it := range testItems(MaxOrders) {
		o.Recalls = append(o.Recalls, Recall{it.SHA256, it.Name, epoch, "a back door"})
	}
	text := o.Text()
	msg := e.sign(text, "olga/order", "omar/order")
	opened, _, err := OpenOrders(msg, root)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		b.SetBytes(int64(len(msg)))
		b.ReportAllocs()
		defer cpu(b)()
		for b.Loop() {
			if _, _, err := OpenOrders(msg, root); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("look-up", func(b *testing.B) {
		r := o.Recalls[MaxOrders/2]
		for b.Loop() {
			if _, ok := opened.Recalled(Sum(nil), r.Name); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("kept", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			if err := opened.CheckKept(opened); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRoot(b *testing.B) {
	e := newEnclave(b)
	r := e.root()
	text := r.Text()
	msg := e.sign(text, "olga/root", "omar/root")
	pin := Sum(text)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := OpenRoot(msg, pin); err != nil {
			b.Fatal(err)
		}
	}
}
