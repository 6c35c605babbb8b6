package daemon_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"sallyport/guix/archive"
	"sallyport/guix/daemon"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

// Ask about an item. This needs a guix-daemon, so it is compiled and not run.
func ExampleClient_Info() {
	ctx := context.Background()
	conn, err := net.Dial("unix", "/var/guix/daemon-socket/socket")
	if err != nil {
		fmt.Println(err)
		return
	}
	c, err := daemon.Connect(ctx, conn)
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
	info, err := c.Info(ctx, path)
	switch {
	case errors.Is(err, daemon.ErrNotValid):
		fmt.Println("the store does not have it")
	case err != nil:
		fmt.Println(err)
	default:
		fmt.Println(hex.EncodeToString(info.NarHash[:]), info.NarSize, info.References)
	}
}

// Build a derivation and watch.
func ExampleClient_Build() {
	build := func(ctx context.Context, c *daemon.Client, drv storepath.Path) error {
		c.Log = func(e daemon.Event) {
			switch e.Trace {
			case "":
				fmt.Printf("[%d] %s", e.PID, e.Text)
			case "build-started":
				fmt.Println("building", e.Item)
			}
		}
		if err := c.SetOptions(ctx, daemon.Options{KeepGoing: true, Cores: 4}); err != nil {
			return err
		}
		err := c.Build(ctx, daemon.Normal, daemon.Target{Path: drv})
		var said *daemon.Error
		if errors.As(err, &said) && said.Status == daemon.StatusBuildFailed {
			fmt.Println("the builder failed:", said.Message)
		}
		return err
	}
	_ = build
}

// Import only what one of the keys of a list has signed, checked before the daemon sees the end of each item.
func ExampleClient_Import() {
	take := func(ctx context.Context, c *daemon.Client, acl signature.ACL, stream io.Reader) error {
		paths, err := c.Import(ctx, stream, func(item *archive.Item) error {
			_, err := item.Verify(acl)
			return err
		})
		for _, p := range paths {
			fmt.Println(p)
		}
		return err
	}
	_ = take
}

func ExampleEvent() {
	fmt.Print(daemon.Event{Trace: "build-succeeded", Args: []string{"/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a.drv", "-"}})
	fmt.Fprint(os.Stdout, daemon.Event{PID: 4711, Text: []byte("checking for gcc... gcc\n")})
	// Output:
	// @ build-succeeded /gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a.drv -
	// checking for gcc... gcc
}
