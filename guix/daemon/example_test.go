package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"sallyport/guix/archive"
	"sallyport/guix/daemon"
	"sallyport/guix/derivation"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// Add a file and one that refers to it, and ask about them. A stand-in for guix-daemon is at the other end; usually the connection is
// net.Dial("unix", "/var/guix/daemon-socket/socket").
func Example() {
	ctx := context.Background()
	c, err := daemon.Connect(ctx, daemon.StandIn())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	low, err := c.AddFile(ctx, "greeting", "sha256", 6, strings.NewReader("hello\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	high, err := c.AddText(ctx, "note", []byte("see "+low.String()), []storepath.Path{low})
	if err != nil {
		fmt.Println(err)
		return
	}
	info, err := c.Info(ctx, high)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(high)
	fmt.Println(info.NarSize, info.References)
	// Output:
	// /gnu/store/7jkn2w0xfncgy8a82gwv0hhmpm6q59ac-note
	// 168 [/gnu/store/mm2kk6lb9qlhz3k5l4c8j2shnxiraq6i-greeting]
}

// What the store does not have.
func ExampleClient_Info() {
	ctx := context.Background()
	c, err := daemon.Connect(ctx, daemon.StandIn())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	path, err := storepath.Parse("/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = c.Info(ctx, path)
	var said *daemon.Error
	fmt.Println(errors.Is(err, daemon.ErrNotValid), errors.As(err, &said))
	valid, err := c.IsValid(ctx, path) // the connection goes on
	fmt.Println(valid, err)
	// Output:
	// true true
	// false <nil>
}

// Build a derivation and watch.
func ExampleClient_Build() {
	ctx := context.Background()
	c, err := daemon.Connect(ctx, daemon.StandIn())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	c.Log = func(e daemon.Event) {
		switch e.Trace {
		case "":
			fmt.Printf("[%d] %s", e.PID, e.Text)
		case "build-started", "build-succeeded":
			fmt.Println(e.Trace, e.Item.Name())
		}
	}
	d := &derivation.Derivation{Outputs: []derivation.Output{{ID: "out"}}, System: "x86_64-linux", Builder: "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-sh/bin/sh"}
	if err := derivation.NewHasher(nil).Fill("hello", d); err != nil {
		fmt.Println(err)
		return
	}
	drv, err := c.AddText(ctx, "hello.drv", d.Bytes(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := c.SetOptions(ctx, daemon.Options{KeepGoing: true, Cores: 4}); err != nil {
		fmt.Println(err)
		return
	}
	err = c.Build(ctx, daemon.Normal, daemon.Target{Path: drv})
	var said *daemon.Error
	if errors.As(err, &said) && said.Status == daemon.StatusBuildFailed {
		fmt.Println("the builder failed:", said.Message)
	}
	fmt.Println(err)
	// Output:
	// build-started hello.drv
	// [4711] hello, world.
	// build-succeeded hello.drv
	// <nil>
}

// Import only what one of the keys of a list has signed, checked before the daemon sees the end of each item.
func ExampleClient_Import() {
	ctx := context.Background()
	from, err := daemon.Connect(ctx, daemon.StandIn())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer from.Close()
	path, err := from.AddFile(ctx, "greeting", "sha256", 6, strings.NewReader("hello\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	var stream bytes.Buffer
	if _, err := from.Export(ctx, &stream, path); err != nil {
		fmt.Println(err)
		return
	}

	for _, acl := range []signature.ACL{{}, signature.NewACL(daemon.StandInKey())} {
		to, err := daemon.Connect(ctx, daemon.StandIn())
		if err != nil {
			fmt.Println(err)
			return
		}
		paths, err := to.Import(ctx, bytes.NewReader(stream.Bytes()), func(item *archive.Item) error {
			_, err := item.Verify(acl)
			return err
		})
		var refused *signature.Error
		fmt.Println(paths, errors.As(err, &refused))
		to.Close()
	}
	// Output:
	// [] true
	// [/gnu/store/mm2kk6lb9qlhz3k5l4c8j2shnxiraq6i-greeting] false
}

func ExampleEvent() {
	fmt.Print(daemon.Event{Trace: "build-succeeded", Args: []string{"/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a.drv", "-"}})
	fmt.Fprint(os.Stdout, daemon.Event{PID: 4711, Text: []byte("checking for gcc... gcc\n")})
	// Output:
	// @ build-succeeded /gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a.drv -
	// checking for gcc... gcc
}
