// Package serve is how the servers of an enclave answer over HTTP: with what was asked for, or with one reason why not.
//
// # Refusals
//
// A route writes its answer or returns an error, and a [Handler] makes the answer of that:
//
//	what [Errorf] and [NotFound] made   the status, reason and text that it names
//	a refusal of package trust          404, the first reason's code, all that is wrong
//	anything else                       500, and no word of it but in the log
//
// The text is plain and one line ends it; the header [ReasonHeader] has the reason's code, if there is one; nobody on the way may keep it. Once the head of an answer is
// written no status can say that the rest is missing: then the connection is cut, and the client sees that the answer is not whole. To a client that has left nothing
// is said.
//
// # Bounds
//
// A client has [HeadTime] for the head of a request, which has at most [MaxHead] bytes, and [StallTime] for each [Piece] of an answer that [Stream] sends; an
// idle connection is closed after [IdleTime]. How long the whole of a request and a short answer may take, each server says itself. How many clients are
// connected at a time is up to the listener.
package serve

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"sallyport/internal/trust"
)

// ReasonHeader carries the reason code of a refusal.
const ReasonHeader = "Sallyport-Reason"

const (
	// HeadTime is how long a client may take for the head of a request.
	HeadTime = 30 * time.Second
	// StallTime is how long a client may take for a piece of an answer.
	StallTime = time.Minute
	// IdleTime is how long a connection may be idle between two requests.
	IdleTime = 2 * time.Minute
	// MaxHead bounds the head of a request; net/http adds some kilobytes.
	MaxHead = 16 << 10
	// Piece is how much is read ahead and sent at once.
	Piece = 256 << 10
)

// A Handler answers with what a route finds, or says why not.
type Handler struct {
	Name       string // what answers, in what is said of a failure: "the depot"
	Log        *slog.Logger
	RetryAfter time.Duration // named in answers with the status 503; 0: none is
	Route      func(w http.ResponseWriter, r *http.Request) error
}

// Server returns a server with its time limits: read for a whole request, write for a whole answer that is not given more piece by piece. The caller listens and serves.
func (h *Handler) Server(read, write time.Duration) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: HeadTime,
		ReadTimeout:       read,
		WriteTimeout:      write,
		IdleTimeout:       IdleTime,
		MaxHeaderBytes:    MaxHead,
		ErrorLog:          slog.NewLogLogger(h.Log.Handler(), slog.LevelWarn),
	}
}

// failure is an answer that is not the thing asked for.
type failure struct {
	status int
	reason string // a refusal's code, or ""
	text   string
}

func (f *failure) Error() string { return f.text }

// Errorf makes the error of a route that is answered with this status, reason code ("" for none) and text.
func Errorf(status int, reason, format string, args ...any) error {
	return &failure{status, reason, fmt.Sprintf(format, args...)}
}

// NotFound makes the error for what is not there: 404 without a reason.
func NotFound(format string, args ...any) error {
	return Errorf(http.StatusNotFound, "", format, args...)
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := &headWatch{ResponseWriter: w}
	err := h.Route(started, r)
	if err == nil {
		return
	}
	gone := r.Context().Err() != nil
	if started.done {
		// Too late for a status. Cutting the connection is the one way to say that what was sent is not whole.
		if !gone {
			h.Log.Error("answer cut", "path", r.URL.Path, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
	answer := &failure{status: http.StatusInternalServerError, text: h.Name + " could not answer; its log says why"}
	rs, refused := trust.AsRefusals(err)
	switch {
	case errors.As(err, &answer):
	case refused:
		answer = &failure{http.StatusNotFound, rs[0].Code, rs.Error()}
		h.Log.Warn("refused", "path", r.URL.Path, "reason", rs[0].Code, "detail", rs[0].Error())
	case gone:
		panic(http.ErrAbortHandler) // nobody is there to be told
	default:
		h.Log.Error("failed", "path", r.URL.Path, "error", err)
	}
	body := answer.text + "\n"
	head := w.Header()
	if answer.reason != "" {
		head.Set(ReasonHeader, answer.reason)
	}
	if answer.status == http.StatusServiceUnavailable && h.RetryAfter > 0 {
		head.Set("Retry-After", strconv.Itoa(int(h.RetryAfter.Seconds())))
	}
	writeHead(w, answer.status, "text/plain; charset=utf-8", "no-store", int64(len(body)))
	if r.Method != http.MethodHead {
		io.WriteString(w, body)
	}
}

// headWatch notices when it is too late for another status.
type headWatch struct {
	http.ResponseWriter
	done bool
}

func (h *headWatch) WriteHeader(status int) { h.done = true; h.ResponseWriter.WriteHeader(status) }
func (h *headWatch) Write(p []byte) (int, error) {
	h.done = true
	return h.ResponseWriter.Write(p)
}
func (h *headWatch) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// Head begins an answer: its type, its Cache-Control, its size, which is negative if it is not known.
func Head(w http.ResponseWriter, kind, cache string, size int64) {
	writeHead(w, http.StatusOK, kind, cache, size)
}

func writeHead(w http.ResponseWriter, status int, kind, cache string, size int64) {
	h := w.Header()
	h.Set("Content-Type", kind)
	if size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(size, 10))
	}
	h.Set("Cache-Control", cache)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
}

// Send answers with a body that is at hand.
func Send(w http.ResponseWriter, r *http.Request, kind, cache string, body []byte) error {
	Head(w, kind, cache, int64(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}

// Stream sends a blob one piece behind what it has read: the store's reader says at the end whether the content is what it should be, and before that the
// last piece does not go out. Each piece has its own time to go out.
func Stream(w http.ResponseWriter, blob io.Reader) error {
	control := http.NewResponseController(w)
	ready, next := make([]byte, 0, Piece), make([]byte, Piece)
	for {
		n, err := io.ReadFull(blob, next)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		if err := control.SetWriteDeadline(time.Now().Add(StallTime)); err != nil {
			return err
		}
		if _, err := w.Write(ready); err != nil {
			return err
		}
		if ready, next = next[:n], ready[:Piece]; end {
			_, err := w.Write(ready)
			return err
		}
	}
}
