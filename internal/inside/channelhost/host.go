package channelhost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/internal/crossing/pin"
	"sallyport/internal/judge/admit"
	"sallyport/internal/judge/authenticate/gitrun"
	"sallyport/internal/serve"
	"sallyport/internal/store"
	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// MaxAge is how long a client may believe a channels.scm.
const MaxAge = 5 * time.Minute

// Options say what is hosted, and how.
type Options struct {
	Zone     *store.Zone
	Track    string
	Git      *gitrun.Git
	Log      *slog.Logger
	Dir      string // where the repositories are kept; "" for one in the zone
	Children int    // git processes at a time; 0: one a processor
	Queue    int    // requests that wait for one; 0: DefaultQueue
}

// A Host serves the channels of one track.
type Host struct {
	Options

	lock     *os.File
	ctx      context.Context // of what is made in the background
	stop     context.CancelFunc
	done     sync.WaitGroup
	kick     chan struct{}
	slots    chan struct{}
	large    chan struct{}
	waiting  atomic.Int64
	state    atomic.Pointer[state]
	prepared atomic.Pointer[prepared]

	renewing  sync.Mutex // for what follows
	record    admit.Record
	last      *state
	documents bool
	failed    *failure
	lists     map[trust.Digest]*list // those that were read, by the digest of their text

	// Of the one goroutine that prepares.
	pins     map[trust.Digest]*pinned
	descents map[descent]bool
	gens     map[string]*generation
	said     string // what was last said of what cannot be served
}

// Open makes a host. The directory is its own until Close.
func Open(o Options) (_ *Host, err error) {
	if o.Children <= 0 {
		o.Children = runtime.GOMAXPROCS(0)
	}
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(o.Zone.Dir, "served")
	}
	if o.Dir, err = filepath.Abs(filepath.Join(o.Dir, o.Track)); err != nil {
		return nil, err
	}
	if err := durable.MkdirAll(durable.OS{}, o.Dir, 0o755); err != nil {
		return nil, err
	}
	h := &Host{Options: o, kick: make(chan struct{}, 1), slots: make(chan struct{}, o.Children), large: make(chan struct{}, largeRequests),
		lists: map[trust.Digest]*list{}, pins: map[trust.Digest]*pinned{}, descents: map[descent]bool{}, gens: map[string]*generation{}}
	if h.lock, err = os.OpenFile(filepath.Join(o.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return nil, err
	}
	if err := durable.Lock(h.lock, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		h.lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = fmt.Errorf("%s: another host serves track %s from it; stop that one, or name another directory", o.Dir, o.Track)
		}
		return nil, err
	}
	// What a host that was killed has left half-made.
	if err := errors.Join(durable.RemoveAll(h.tmp()), os.Mkdir(h.tmp(), 0o700)); err != nil {
		h.lock.Close()
		return nil, err
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.done.Go(h.prepareAll)
	return h, nil
}

func (h *Host) tmp() string { return filepath.Join(h.Dir, "tmp") }

// Close ends everything that runs. Nobody may ask any more.
func (h *Host) Close() error {
	h.stop()
	h.done.Wait()
	// Unlocked by itself: a process that is just being started may have the file for a moment, too.
	return errors.Join(durable.RemoveAll(h.tmp()), durable.Lock(h.lock, syscall.LOCK_UN), h.lock.Close())
}

// Check makes the host's first view of its track, so that one which cannot serve says so at its start.
func (h *Host) Check(ctx context.Context) error {
	_, err := h.now(ctx)
	return err
}

// Ready waits until what the documents say now is what is served.
func (h *Host) Ready(ctx context.Context) error {
	for {
		s, err := h.now(ctx)
		if err != nil {
			return err
		}
		if p := h.prepared.Load(); p != nil && p.state.view == s.view && p.whole {
			return nil
		}
		if s.held != nil {
			return s.held
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Server returns the HTTP server of the host, with its time limits. The caller listens and serves.
func (h *Host) Server() *http.Server {
	handler := &serve.Handler{Name: "the host", Log: h.Log, Route: h.route, RetryAfter: retryAfter}
	return handler.Server(readTime, answerTime)
}

// notYet says that the client is to come again.
func notYet(format string, args ...any) error {
	return serve.Errorf(http.StatusServiceUnavailable, "not-ready", format, args...)
}

func (h *Host) route(w http.ResponseWriter, r *http.Request) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		return serve.Errorf(http.StatusMethodNotAllowed, "", "method %.20q: only GET, HEAD and POST", r.Method)
	}
	// A push is refused for what it is, whatever is served.
	if r.URL.Query().Get("service") == "git-receive-pack" || strings.HasSuffix(r.URL.Path, "/git-receive-pack") {
		return serve.Errorf(http.StatusForbidden, "read-only", "nothing can be pushed here: what is served follows from the track's allowlist; a new commit of a channel is shipped and approved")
	}
	s, err := h.now(r.Context())
	if rs, refused := trust.AsRefusals(err); refused {
		return serve.Errorf(http.StatusServiceUnavailable, rs[0].Code, "nothing is served until this is mended: %v", rs)
	}
	if err != nil {
		return serve.Errorf(http.StatusServiceUnavailable, "", "nothing is served until this is mended; the host's log says what")
	}
	if repository, ok := strings.CutSuffix(r.URL.Path, "/info/refs"); ok {
		return h.refs(w, r, s, repository)
	}
	if repository, ok := strings.CutSuffix(r.URL.Path, "/git-upload-pack"); ok {
		return h.upload(w, r, s, repository)
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/"+h.Track+"/"); ok {
		if r.Method == http.MethodPost {
			w.Header().Set("Allow", "GET, HEAD")
			return serve.Errorf(http.StatusMethodNotAllowed, "", "only GET and HEAD")
		}
		return h.channels(w, r, s, rest)
	}
	return serve.NotFound("no such page; see the manual of 'channel serve' for its routes")
}

// channels sends a channels.scm.
func (h *Host) channels(w http.ResponseWriter, r *http.Request, s *state, rest string) error {
	p := h.prepared.Load()
	var text *text
	if rest == "channels.scm" {
		if p == nil {
			return h.preparing(s)
		}
		text = p.newest
	} else {
		number, found := strings.CutPrefix(rest, "releases/")
		number, ends := strings.CutSuffix(number, "/channels.scm")
		if !found || !ends {
			return serve.NotFound("no such page; see the manual of 'channel serve' for its routes")
		}
		n, err := trust.ParseNumber(number, 1<<53)
		if err != nil || n < 1 {
			return serve.NotFound("%.40q is not a release", number)
		}
		if n > s.view.List.Version {
			return serve.NotFound("track %s has no release %d; its newest is %d", h.Track, n, s.view.List.Version)
		}
		if p == nil || n > int64(len(p.releases)) {
			return h.preparing(s)
		}
		text = p.releases[n-1]
	}
	if text.err != nil {
		return text.err
	}
	for _, it := range text.items {
		if err := s.view.Recalled(it.SHA256, it.Name); err != nil {
			return err
		}
	}
	return serve.Send(w, r, "text/plain; charset=utf-8", "max-age="+strconv.Itoa(int(MaxAge.Seconds())), text.body)
}

// preparing says why something is not there yet.
func (h *Host) preparing(s *state) error {
	if rs, refused := trust.AsRefusals(s.held); refused {
		return serve.Errorf(http.StatusServiceUnavailable, rs[0].Code, "%v", rs)
	}
	return notYet("this is being prepared: come again")
}

// repository finds a channel's repository by the path, and, if it is the URL's own, by the host.
func (h *Host) repository(r *http.Request, s *state, path string) (*generation, error) {
	p := h.prepared.Load()
	if p == nil {
		return nil, h.preparing(s)
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	name, known := p.byURL[strings.ToLower(host)+path]
	if !known {
		if name, known = strings.CutPrefix(path, "/git/"); !known {
			return nil, serve.NotFound("no such repository")
		}
	}
	if g := p.served[name]; g != nil {
		for _, it := range g.chain {
			if err := s.judge(it); err != nil {
				return nil, err
			}
		}
		return g, nil
	}
	if err := p.missing[name]; err != nil {
		return nil, err
	}
	if s.has(name) {
		return nil, h.preparing(s)
	}
	return nil, serve.Errorf(http.StatusNotFound, "not-allowed", "no release of track %s has a channel %.100q", h.Track, name)
}

// A prepared is what is served: repositories, and texts that fit them.
type prepared struct {
	state    *state
	served   map[string]*generation // by the channel's name
	missing  map[string]error       // why a channel that the list has is not served
	byURL    map[string]string      // host and path of a channel's URL: its name
	releases []*text
	newest   *text
	whole    bool // nothing is left to be tried again
}

// A text is a channels.scm, or why there is none.
type text struct {
	body  []byte
	items []trust.Item // what it names
	err   error
}

// A pinned is an item whose pin was read.
type pinned struct {
	item trust.Item
	pin  *pin.Pin
}
