package channelhost

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/serve"
	"sallyport/internal/store/durable"
)

const service = "git-upload-pack"

// protocolOf reads the header Git-Protocol: key=value pairs with colons between, of which the version counts.
func protocolOf(r *http.Request) (int, error) {
	header := r.Header.Get("Git-Protocol")
	if len(header) > 256 {
		return 0, serve.Errorf(http.StatusBadRequest, "", "the header Git-Protocol is too long")
	}
	version := 0
	for pair := range strings.SplitSeq(header, ":") {
		switch pair {
		case "version=1":
			version = max(version, 1)
		case "version=2":
			version = max(version, 2)
		}
	}
	return version, nil
}

// refs answers the first request of a client.
func (h *Host) refs(w http.ResponseWriter, r *http.Request, s *state, path string) error {
	if r.Method == http.MethodPost {
		w.Header().Set("Allow", "GET, HEAD")
		return serve.Errorf(http.StatusMethodNotAllowed, "", "only GET and HEAD")
	}
	if _, err := h.repository(r, s, path); err != nil {
		return err
	}
	if r.URL.Query().Get("service") != service {
		return serve.NotFound("only git's smart protocol is spoken here: git 1.6.6 or later")
	}
	protocol, err := protocolOf(r)
	if err != nil {
		return err
	}
	var prefix []byte
	if protocol < 2 {
		prefix = []byte("001e# service=git-upload-pack\n0000")
	}
	return h.answer(w, r, s, path, request{protocol, []string{"--advertise-refs"}, nil}, "advertisement", prefix)
}

// upload answers what a client asks for.
func (h *Host) upload(w http.ResponseWriter, r *http.Request, s *state, path string) error {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		return serve.Errorf(http.StatusMethodNotAllowed, "", "only POST")
	}
	if _, err := h.repository(r, s, path); err != nil {
		return err
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-"+service+"-request" {
		return serve.Errorf(http.StatusUnsupportedMediaType, "", "the Content-Type has to be application/x-%s-request", service)
	}
	protocol, err := protocolOf(r)
	if err != nil {
		return err
	}
	body, err := h.body(r)
	if err != nil {
		return err
	}
	return h.answer(w, r, s, path, request{protocol, nil, body}, "result", nil)
}

// body reads a request whole. One that is larger than most waits for a place before it is read on.
func (h *Host) body(r *http.Request) ([]byte, error) {
	in := io.Reader(http.MaxBytesReader(nil, r.Body, MaxRequest))
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, badBody(err)
		}
		in = z
	default:
		return nil, serve.Errorf(http.StatusUnsupportedMediaType, "", "the Content-Encoding %.20q is not known here", encoding)
	}
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(in, smallRequest))
	if err == nil && n == smallRequest {
		select {
		case h.large <- struct{}{}:
			defer func() { <-h.large }()
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
		n, err = io.Copy(&b, io.LimitReader(in, MaxRequest-smallRequest+1))
		if n > MaxRequest-smallRequest {
			err = &http.MaxBytesError{Limit: MaxRequest}
		}
	}
	if err != nil {
		return nil, badBody(err)
	}
	return b.Bytes(), nil
}

func badBody(err error) error {
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return serve.Errorf(http.StatusRequestEntityTooLarge, "", "a request has at most %d bytes", MaxRequest)
	}
	return serve.Errorf(http.StatusBadRequest, "", "the request cannot be read: %v", err)
}

// A request is what git is asked.
type request struct {
	protocol int
	args     []string
	body     []byte
}

// answer sends what git answers.
func (h *Host) answer(w http.ResponseWriter, r *http.Request, s *state, path string, q request, kind string, prefix []byte) error {
	var g *generation
	var a *answer
	for {
		var err error
		// Found when it is asked: while the request was read, another may have taken its place.
		if g, err = h.repository(r, s, path); err != nil {
			return err
		}
		if a, err = h.ask(g, q); err == nil {
			break
		}
		if errors.Is(err, errBusy) {
			return serve.Errorf(http.StatusServiceUnavailable, "busy", "too many clients are waiting: come again")
		}
		if !errors.Is(err, errGone) {
			return err
		}
		// What takes its place is there before it goes.
	}
	defer h.leave(g, a)
	control := http.NewResponseController(w)
	wait := func() error { return control.SetWriteDeadline(time.Now().Add(serve.StallTime)) }
	buf := make([]byte, serve.Piece)
	at := int64(0)
	for {
		n, err := a.next(r.Context(), buf, at)
		var exit *gitrun.ExitError
		switch {
		case at == 0 && errors.As(err, &exit) && exit.Status > 0:
			return serve.Errorf(http.StatusBadRequest, "", "git does not understand the request: %.300q", exit.Stderr)
		case err != nil && !errors.Is(err, io.EOF):
			if at == 0 && errors.Is(err, errCut) {
				return notYet("the repository has just been withdrawn or replaced: come again")
			}
			return err
		}
		if err := wait(); err != nil {
			return err
		}
		if at == 0 {
			serve.Head(w, "application/x-"+service+"-"+kind, "no-cache", -1) // how long it gets is not known yet
			if r.Method == http.MethodHead {
				return nil
			}
			if _, err := w.Write(prefix); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if at += int64(n); n < len(buf) {
			if err := control.Flush(); err != nil {
				return err
			}
		}
	}
}

// run runs git for one answer, when its turn has come.
func (h *Host) run(ctx context.Context, g *generation, a *answer, q request) (err error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	// A directory of its own for each run: git may write there, and leaves nothing to the next.
	dir, err := os.MkdirTemp(h.tmp(), "run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, durable.RemoveAll(dir)) }()
	view, err := h.Git.View(filepath.Join(dir, "git"), g.repository())
	if err != nil {
		return err
	}
	return h.Git.Run(ctx, view, gitrun.Command{
		Args: slices.Concat([]string{"upload-pack", "--stateless-rpc", "--strict"}, q.args, []string{view.Dir}), Stdin: bytes.NewReader(q.body), Stdout: a, Output: MaxAnswer, Time: childTime,
		Protocol: q.protocol,
	})
}
