// Package depot serves one track to unmodified Guix clients and to the enclave's builders. It holds no key: it can withhold, and cannot forge.
//
// # Routes
//
//	GET /nix-cache-info              what a substitute server says of itself
//	GET /HASHPART.narinfo            the signed narinfo of an item (32 characters of Guix base32)
//	GET /nar/BASE                    its nar, uncompressed, with Content-Length
//	GET /signing-key.pub             the track's public key, as Guix prints it
//	GET /sallyport/root/N            the signed root, version N
//	GET /sallyport/orders/N          the officers' signed orders, version N
//	GET /sallyport/allowlist/N       the track's signed allowlist, version N
//	GET /sallyport/head              JSON: newest versions of these; orders 0: none yet
//	GET /sallyport/evidence/BASE     JSON: builders' statements about a derivation, base64 each
//	GET /sallyport/blob/BASE         the file of a derivation
//	GET /sallyport/ledger/...        the published ledger
//
// HEAD is answered as GET is, without a body. Everything else is 404, 405 or 503, with a text that says why; where it was refused the header
// Sallyport-Reason has the code. A segment of a path may be percent-encoded; ? in a name has to be, + stands for itself.
//
// # What is checked before a byte is sent
//
// The depot reads the whole ledger at its start, under its signed checkpoint ([admit.Record]), and reads on when it has grown. Where that brings a root, an allowlist or
// a builder's statement, the documents are opened anew, and the depot's own floor is raised first: a list older than one that was served is refused. A
// narinfo is sent only if the track's key signed it, and it says of an item that is admitted what is admitted; one that was found good is kept until the documents
// change. A nar is sent only for such a narinfo; its content is hashed while it is sent, and a blob that has changed on disk ends the connection before its
// last bytes. What a row of the catalog says is never enough.
//
// # Recalls, and what is in for a while
//
// What officers have recalled, and whatever the recall of a derivation takes along, is 404 with the code recalled and the reason, from the first request after the checkpoint
// that has the orders. A client may have believed a narinfo for [MaxAge] before that. What officers let in without its reviewers is served until its time is over; the log
// names it whenever the documents change.
//
// If a document does not verify any more, or the ledger is not the one that is signed, the depot says so in its log, once, and answers 503 to all that depends on
// it until that is mended: it never goes on with what it believed before.
//
// # Bounds
//
// A client has 10 s for the head of a request and a minute for each piece of an answer (256 KiB); an idle connection is closed after two minutes, and there are at
// most [MaxConnections] at a time, where its listener keeps to that.
package depot

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// ReasonHeader carries the reason code of a refusal.
const ReasonHeader = "Sallyport-Reason"

const (
	// MaxConnections is how many clients are connected at a time; more wait.
	MaxConnections = 4096
	// stallTimeout is how long a client may take for a piece of an answer.
	stallTimeout = time.Minute
	// piece is how much is read ahead and sent at once.
	piece = 256 << 10
)

// A Depot serves one track of one zone.
type Depot struct {
	Zone  *store.Zone
	Track string
	Log   *slog.Logger

	state atomic.Pointer[state]

	renewing  sync.Mutex // for what follows
	record    admit.Record
	last      *state // the newest that could be made
	documents bool   // roots or allowlists came since
	spoken    []string
	failed    *failure
}

// Server returns the HTTP server of the depot, with its time limits. The caller listens and serves.
func (d *Depot) Server() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(d.serve),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      stallTimeout, // of a whole answer; what is longer is given more piece by piece
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.Log.Handler(), slog.LevelWarn),
	}
}

// Check makes the depot's first view of its track, so that one which cannot serve says so at its start.
func (d *Depot) Check(ctx context.Context) error {
	_, err := d.now(ctx)
	return err
}

// httpError is an answer that is not the thing asked for.
type httpError struct {
	code   int
	reason string // a refusal's code, or ""
	text   string
}

func (e *httpError) Error() string { return e.text }

func notFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, "", fmt.Sprintf(format, args...)}
}

func (d *Depot) serve(w http.ResponseWriter, r *http.Request) {
	started := &headerWatch{ResponseWriter: w}
	err := d.route(started, r)
	if err == nil {
		return
	}
	if started.done {
		// Too late for a code. Cutting the connection is the one way to say that what was sent is not whole.
		if r.Context().Err() == nil {
			d.Log.Error("answer cut", "path", r.URL.Path, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
	answer := &httpError{code: http.StatusInternalServerError, text: "the depot could not answer; its log says why"}
	rs, refused := trust.AsRefusals(err)
	switch {
	case errors.As(err, &answer):
	case refused:
		answer = &httpError{http.StatusNotFound, rs[0].Code, rs.Error()}
		d.Log.Warn("refused", "path", r.URL.Path, "reason", rs[0].Code, "detail", rs[0].Error())
	default:
		d.Log.Error("failed", "path", r.URL.Path, "error", err)
	}
	body := answer.text + "\n"
	h := w.Header()
	if answer.reason != "" {
		h.Set(ReasonHeader, answer.reason)
	}
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(answer.code)
	if r.Method != http.MethodHead {
		io.WriteString(w, body)
	}
}

// headerWatch notices when it is too late for an error code.
type headerWatch struct {
	http.ResponseWriter
	done bool
}

func (h *headerWatch) WriteHeader(code int) { h.done = true; h.ResponseWriter.WriteHeader(code) }
func (h *headerWatch) Write(p []byte) (int, error) {
	h.done = true
	return h.ResponseWriter.Write(p)
}
func (h *headerWatch) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (d *Depot) route(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &httpError{http.StatusMethodNotAllowed, "", fmt.Sprintf("method %.20q: only GET and HEAD", r.Method)}
	}
	// The escaped path is split first and each part decoded then, as Guix clients and guix publish do: a ? in a name is %3F.
	var parts []string
	for _, p := range strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/") {
		u, err := url.PathUnescape(p)
		if err != nil || u == "" || u == "." || u == ".." || strings.ContainsAny(u, "/\x00") {
			return notFound("no such page")
		}
		parts = append(parts, u)
	}
	if len(parts) == 1 && parts[0] == "nix-cache-info" {
		return send(w, r, "text/plain", "max-age=3600", []byte("StoreDir: "+storepath.Dir+"\nWantMassQuery: 0\nPriority: 100\n"))
	}
	s, err := d.now(r.Context())
	if rs, refused := trust.AsRefusals(err); refused {
		return &httpError{http.StatusServiceUnavailable, rs[0].Code, "the depot serves nothing until this is mended: " + rs.Error()}
	}
	if err != nil {
		return &httpError{http.StatusServiceUnavailable, "", "the depot serves nothing until this is mended; its log says what"}
	}
	switch {
	case len(parts) == 1 && parts[0] == "signing-key.pub":
		return send(w, r, "text/plain", noCache, []byte(s.key.String()))
	case len(parts) == 1 && strings.HasSuffix(parts[0], ".narinfo"):
		n, err := d.narinfo(r.Context(), s, strings.TrimSuffix(parts[0], ".narinfo"))
		if err != nil {
			return err
		}
		return send(w, r, "application/x-nix-narinfo;charset=utf-8", whileAllowed, n.body)
	case len(parts) == 2 && parts[0] == "nar":
		return d.nar(w, r, s, parts[1])
	case len(parts) >= 2 && parts[0] == "sallyport":
		return d.document(w, r, s, parts[1:])
	}
	return notFound("no such page; see the depot's manual for its routes")
}

// Cache-Control of answers that do not depend on what is allowed.
const (
	noCache = "no-cache"
	forever = "max-age=31536000, immutable"
)

// MaxAge is how long a client may believe that something is allowed: a recall is in force everywhere no later than this.
const MaxAge = 5 * time.Minute

var whileAllowed = "max-age=" + strconv.Itoa(int(MaxAge.Seconds()))

func head(w http.ResponseWriter, kind, cache string, size int64) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.FormatInt(size, 10))
	h.Set("Cache-Control", cache)
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
}

func send(w http.ResponseWriter, r *http.Request, kind, cache string, body []byte) error {
	head(w, kind, cache, int64(len(body)))
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}

// nar streams an item.
func (d *Depot) nar(w http.ResponseWriter, r *http.Request, s *state, base string) error {
	p, err := storepath.ParseBase(base)
	if err != nil {
		return notFound("%.300q is not the base name of a store path", base)
	}
	n, err := d.narinfo(r.Context(), s, p.Hash())
	if err != nil {
		return err
	}
	it := n.item
	if it.Path != p {
		return notFound("no item of this name is served on track %s", d.Track)
	}
	if it.Flat() {
		data, err := d.content(it)
		if err != nil {
			return err
		}
		head(w, "application/x-nix-archive", whileAllowed, it.NarSize)
		if r.Method == http.MethodHead {
			return nil
		}
		return nar.WriteFile(w, int64(len(data)), false, bytes.NewReader(data))
	}
	blob, err := d.Zone.CAS.Open(it.Content)
	if err != nil || blob.Size() != it.Size {
		if err == nil {
			err = fmt.Errorf("it has %d bytes, not %d", blob.Size(), it.Size)
			blob.Close()
		}
		return trust.Refuse("item-lost", base, "its content is not in the store: %v", err)
	}
	defer blob.Close()
	head(w, "application/x-nix-archive", whileAllowed, it.NarSize)
	if r.Method == http.MethodHead {
		return nil
	}
	return stream(w, blob)
}

// content reads a derivation's file whole. What the store returns has the digest that it was asked for.
func (d *Depot) content(it admit.Item) ([]byte, error) {
	data, err := d.Zone.CAS.ReadAll(it.Content, admit.MaxDerivation)
	if err != nil {
		return nil, trust.Refuse("item-lost", it.Path.Base(), "its content is not in the store: %v", err)
	}
	return data, nil
}

// stream sends a blob one piece behind what it has read: the store's reader says at the end whether the content is what it should be, and before that the
// last piece does not go out. Each piece has its own time to go out.
func stream(w http.ResponseWriter, blob io.Reader) error {
	control := http.NewResponseController(w)
	ready, next := make([]byte, 0, piece), make([]byte, piece)
	for {
		n, err := io.ReadFull(blob, next)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return err
		}
		if err := control.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(ready); err != nil {
			return err
		}
		if ready, next = next[:n], ready[:piece]; end {
			_, err := w.Write(ready)
			return err
		}
	}
}

// A Head names the newest signed documents of a depot.
type Head struct {
	Enclave   string `json:"enclave"`
	Track     string `json:"track"`
	Root      int64  `json:"root"`
	Orders    int64  `json:"orders"` // 0: none yet
	Allowlist int64  `json:"allowlist"`
}

// Evidence is what builders said of one derivation.
type Evidence struct {
	Derivation string   `json:"derivation"`
	Statements []string `json:"statements"` // DSSE envelopes, base64
}

func (d *Depot) document(w http.ResponseWriter, r *http.Request, s *state, parts []string) error {
	number := func(text string) (int64, error) {
		n, err := trust.ParseNumber(text, 1<<53)
		if err != nil || n < 1 {
			return 0, notFound("%q is not a version", text)
		}
		return n, nil
	}
	switch {
	case len(parts) == 1 && parts[0] == "head":
		body, err := json.Marshal(Head{s.view.Root.Enclave, d.Track, s.view.Root.Version, s.view.Orders.Number(), s.view.List.Version})
		if err != nil {
			return err
		}
		return send(w, r, "application/json", noCache, append(body, '\n'))
	case len(parts) == 2 && (parts[0] == "root" || parts[0] == "orders"):
		n, err := number(parts[1])
		if err != nil {
			return err
		}
		return d.public(w, r, forever, parts[0], strconv.FormatInt(n, 10))
	case len(parts) == 2 && parts[0] == "allowlist":
		n, err := number(parts[1])
		if err != nil {
			return err
		}
		return d.public(w, r, forever, "allowlist", d.Track, strconv.FormatInt(n, 10))
	case len(parts) == 2 && parts[0] == "evidence":
		return d.evidence(w, r, s, parts[1])
	case len(parts) == 2 && parts[0] == "blob":
		it, err := s.view.Item(parts[1])
		if err != nil {
			return err
		}
		if !it.Flat() {
			return notFound("only derivations are served as files; the nar is at /nar/%s", parts[1])
		}
		data, err := d.content(it)
		if err != nil {
			return err
		}
		return send(w, r, "text/plain; charset=utf-8", whileAllowed, data)
	case len(parts) >= 2 && parts[0] == "ledger":
		return d.public(w, r, noCache, parts...)
	}
	return notFound("no such page")
}

// public sends a published file.
func (d *Depot) public(w http.ResponseWriter, r *http.Request, cache string, parts ...string) error {
	root, err := os.OpenRoot(filepath.Join(d.Zone.Dir, "public"))
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.OpenFile(filepath.Join(parts...), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return notFound("no such document")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return notFound("no such document")
	}
	head(w, "application/octet-stream", cache, st.Size())
	if r.Method == http.MethodHead {
		return nil
	}
	return stream(w, io.LimitReader(f, st.Size()))
}

// MaxEvidence bounds the statements sent about one derivation. With more of them there is no answer: a part of what builders say could be the wrong part.
const MaxEvidence = 64

// evidence sends what builders said of an allowed derivation, as the ledger has it.
func (d *Depot) evidence(w http.ResponseWriter, r *http.Request, s *state, name string) error {
	it, err := s.view.Listed(name)
	if rs, _ := trust.AsRefusals(err); rs.Has("recalled") {
		return err
	}
	if err != nil || it.Kind != trust.KindDerivation {
		return &httpError{http.StatusNotFound, "not-allowed", fmt.Sprintf("the allowlist of track %s names no derivation %.300q", d.Track, name)}
	}
	votes := s.votes[name]
	if len(votes) > MaxEvidence {
		return trust.Refuse("quorum-size", name, "%d statements, more than %d", len(votes), MaxEvidence)
	}
	e := Evidence{Derivation: name, Statements: []string{}}
	for _, envelope := range votes {
		e.Statements = append(e.Statements, base64.StdEncoding.EncodeToString(envelope))
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return send(w, r, "application/json", noCache, append(body, '\n'))
}
