package inside

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"sallyport/cmd/internal/frame"
)

// grace is how long those who are being answered have when a server is told to stop.
const grace = 10 * time.Second

// serve listens at an address, with so many connections at a time, tells where, and serves until it is interrupted.
func serve(ctx context.Context, env *frame.Env, srv *http.Server, address string, connections int, track, what string) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	if err := env.Result(map[string]string{"type": "listening", "url": "http://" + l.Addr().String(), "track": track}, func(w io.Writer) {
		fmt.Fprintf(w, "http://%s serves %s\n", l.Addr(), what)
	}); err != nil {
		return errors.Join(err, l.Close())
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(netutil.LimitListener(l, connections)) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if srv.Shutdown(last) != nil {
		// Who has not got his answer by now will ask again.
		err = srv.Close()
	}
	if e := <-done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
