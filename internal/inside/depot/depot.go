// Package depot serves one track to unmodified Guix clients and to the enclave's builders. It holds no key: it can withhold, and cannot forge.
//
// # Routes
//
//	GET /nix-cache-info              what a substitute server says of itself
//	GET /HASHPART.narinfo            the signed narinfo of an item (32 characters of Guix base32)
//	GET /nar/BASE                    its nar, uncompressed, with Content-Length
//	GET /signing-key.pub             the track's public key, as Guix prints it
//	GET /sallyport/root/N            the signed root, version N
//	GET /sallyport/allowlist/N       the track's signed allowlist, version N
//	GET /sallyport/head              JSON: newest versions of both
//	GET /sallyport/evidence/BASE     JSON: builders' statements about a derivation, base64 each
//	GET /sallyport/blob/BASE         the file of a derivation
//	GET /sallyport/ledger/...        the published ledger
//
// HEAD is answered as GET is, without a body. Everything else is 404 or 405, with a text that says why and the header Sallyport-Reason: a refusal's code.
//
// # What is checked before a byte is sent
//
// Root, allowlist and builders' statements are opened anew whenever the ledger has grown, and the depot's own floor is raised first: a list older than one that was
// served is refused. A narinfo is sent only if the track's key signed it, and it is about an item that this view admits, with the very nar hash. A nar is sent
// only for such a narinfo; its content is hashed while it is sent, and a blob that has changed on disk ends the connection before its last
// byte. What a row of the catalog says is never enough.
package depot

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"sallyport/guix/nar"
	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

// MaxAge is how long a client may believe a narinfo: a recall is in force everywhere no later than this.
const MaxAge = 5 * time.Minute

// ReasonHeader carries the reason code of a refusal.
const ReasonHeader = "Sallyport-Reason"

// A Depot serves one track of one zone.
type Depot struct {
	Zone  *store.Zone
	Track string
	Log   *slog.Logger

	mu    sync.Mutex
	state *state
}

// a state is what the depot holds to be true, for one size of the ledger.
type state struct {
	size  int64
	view  *admit.View
	acl   signature.ACL
	key   signature.PublicKey
	chain int64
}

// Server returns the HTTP server of the depot, with its time limits. The caller listens and serves.
func (d *Depot) Server() *http.Server {
	return &http.Server{
		Handler:           http.HandlerFunc(d.serve),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
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

// now returns the state for the ledger as it is, made anew if the ledger has grown.
func (d *Depot) now(ctx context.Context) (*state, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, checkpoint, err := d.Zone.Checkpoint()
	if err != nil {
		return nil, err
	}
	size := checkpoint.Size
	if d.state != nil && d.state.size == size {
		return d.state, nil
	}
	root, err := d.Zone.Root()
	if err != nil {
		return nil, err
	}
	view, err := admit.Load(ctx, d.Zone, root, d.Track)
	if err != nil {
		return nil, err
	}
	if err := view.Entered(ctx, d.Zone); err != nil {
		return nil, err
	}
	floor, err := admit.OpenFloor(filepath.Join(d.Zone.Dir, "floor", "depot-"+d.Track+".json"))
	if err != nil {
		return nil, err
	}
	if err := floor.Accept(view); err != nil {
		return nil, err
	}
	q, ok := root.TrackKey(d.Track)
	if !ok {
		return nil, trust.Refuse("no-track", d.Track, "the root names no key for this track")
	}
	key, err := signature.ParsePublicKeyHex(q)
	if err != nil {
		return nil, err
	}
	d.state = &state{size: size, view: view, key: key, acl: signature.NewACL(key), chain: root.Version}
	return d.state, nil
}

// httpError is an answer that is not the thing asked for.
type httpError struct {
	code int
	err  error
}

func (e *httpError) Error() string { return e.err.Error() }
func (e *httpError) Unwrap() error { return e.err }

func notFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, fmt.Errorf(format, args...)}
}

func (d *Depot) serve(w http.ResponseWriter, r *http.Request) {
	started := &headerWatch{ResponseWriter: w}
	err := d.route(started, r)
	if err == nil {
		return
	}
	if started.done {
		// Too late for a code. Cutting the connection is the one way to say that what was sent is not whole.
		d.Log.Error("answer cut", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler)
	}
	code := http.StatusInternalServerError
	var he *httpError
	if errors.As(err, &he) {
		code = he.code
	}
	if rs, ok := trust.AsRefusals(err); ok {
		code = http.StatusNotFound
		w.Header().Set(ReasonHeader, rs[0].Code)
		d.Log.Warn("refused", "path", r.URL.Path, "reason", rs[0].Code, "detail", rs[0].Error())
	} else if code == http.StatusInternalServerError {
		d.Log.Error("failed", "path", r.URL.Path, "error", err)
		err = errors.New("the depot could not answer; its log says why")
	}
	body := err.Error() + "\n"
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("Cache-Control", "max-age=60")
	w.WriteHeader(code)
	io.WriteString(w, body)
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

func (d *Depot) route(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return &httpError{http.StatusMethodNotAllowed, fmt.Errorf("method %q: only GET and HEAD", r.Method)}
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
		return send(w, r, "text/plain", 3600, []byte("StoreDir: "+storepath.Dir+"\nWantMassQuery: 0\nPriority: 100\n"))
	}
	s, err := d.now(r.Context())
	if err != nil {
		return err
	}
	switch {
	case len(parts) == 1 && parts[0] == "signing-key.pub":
		return send(w, r, "text/plain", 3600, []byte(s.key.String()))
	case len(parts) == 1 && strings.HasSuffix(parts[0], ".narinfo"):
		body, _, _, err := d.narinfo(r.Context(), s, strings.TrimSuffix(parts[0], ".narinfo"))
		if err != nil {
			return err
		}
		return send(w, r, "application/x-nix-narinfo;charset=utf-8", int(MaxAge.Seconds()), body)
	case len(parts) == 2 && parts[0] == "nar":
		return d.nar(w, r, s, parts[1])
	case len(parts) >= 2 && parts[0] == "sallyport":
		return d.documents(w, r, s, parts[1:])
	}
	return notFound("no such page; see the depot's manual for its routes")
}

func send(w http.ResponseWriter, r *http.Request, kind string, maxAge int, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", fmt.Sprintf("max-age=%d", maxAge))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := w.Write(body)
	return err
}

// narinfo returns a narinfo that may be believed, the item it is about, and what it says.
func (d *Depot) narinfo(ctx context.Context, s *state, hash string) ([]byte, admit.Item, *narinfo.NarInfo, error) {
	if _, err := storepath.DecodeBase32(hash, 20); err != nil {
		return nil, admit.Item{}, nil, notFound("%q is not the hash part of a store path", hash)
	}
	var body []byte
	err := d.Zone.Read(ctx).QueryRowContext(ctx, `SELECT body FROM narinfo WHERE track = ? AND hash = ?`, d.Track, hash).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, admit.Item{}, nil, notFound("no item with this hash is served on track %s", d.Track)
	}
	if err != nil {
		return nil, admit.Item{}, nil, err
	}
	info, err := narinfo.Verify(body, s.acl)
	if err != nil {
		return nil, admit.Item{}, nil, trust.Refuse("narinfo-signature", hash, "the track's key did not sign what lies here: %v", err)
	}
	if info.StorePath.Hash() != hash {
		return nil, admit.Item{}, nil, trust.Refuse("narinfo-path", hash, "the narinfo that lies here is about %s", info.StorePath)
	}
	it, err := s.view.Item(info.StorePath.Base(), func(c trust.Digest) (io.ReadCloser, error) { return d.Zone.CAS.Open(c) })
	if err != nil {
		return nil, admit.Item{}, nil, err
	}
	if trust.Digest(info.NarHash) != it.NarHash || info.NarSize != it.NarSize {
		return nil, admit.Item{}, nil, trust.Refuse("narinfo-content", info.StorePath.Base(), "the narinfo says nar %s, what is allowed is %s", trust.Digest(info.NarHash), it.NarHash)
	}
	return body, it, info, nil
}

// nar streams an item.
func (d *Depot) nar(w http.ResponseWriter, r *http.Request, s *state, base string) error {
	p, err := storepath.ParseBase(base)
	if err != nil {
		return notFound("%q is not the base name of a store path", base)
	}
	_, it, info, err := d.narinfo(r.Context(), s, p.Hash())
	if err != nil {
		return err
	}
	if info.StorePath != p {
		return notFound("no item of this name is served on track %s", d.Track)
	}
	blob, err := d.Zone.CAS.Open(it.Content)
	if err != nil {
		return trust.Refuse("item-lost", base, "its content is not in the store: %v", err)
	}
	defer blob.Close()
	h := w.Header()
	h.Set("Content-Type", "application/x-nix-archive")
	h.Set("Content-Length", strconv.FormatInt(it.NarSize, 10))
	h.Set("Cache-Control", fmt.Sprintf("max-age=%d", int(MaxAge.Seconds())))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	if it.Flat() {
		return nar.WriteFile(w, it.Size, false, blob)
	}
	// The store's reader gives its last bytes only when the digest is right.
	_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{blob}, make([]byte, 256<<10))
	return err
}

// A Head names the newest signed documents of a depot.
type Head struct {
	Enclave   string `json:"enclave"`
	Track     string `json:"track"`
	Root      int64  `json:"root"`
	Allowlist int64  `json:"allowlist"`
}

// Evidence is what builders said of one derivation.
type Evidence struct {
	Derivation string   `json:"derivation"`
	Statements []string `json:"statements"` // DSSE envelopes, base64
}

func (d *Depot) documents(w http.ResponseWriter, r *http.Request, s *state, parts []string) error {
	number := func(text string) (int64, error) {
		n, err := trust.ParseNumber(text, 1<<53)
		if err != nil || n < 1 {
			return 0, notFound("%q is not a version", text)
		}
		return n, nil
	}
	switch {
	case len(parts) == 1 && parts[0] == "head":
		body, err := json.Marshal(Head{s.view.Root.Enclave, d.Track, s.chain, s.view.List.Version})
		if err != nil {
			return err
		}
		return send(w, r, "application/json", 0, append(body, '\n'))
	case len(parts) == 2 && parts[0] == "root":
		n, err := number(parts[1])
		if err != nil {
			return err
		}
		return d.public(w, r, "root", strconv.FormatInt(n, 10))
	case len(parts) == 2 && parts[0] == "allowlist":
		n, err := number(parts[1])
		if err != nil {
			return err
		}
		return d.public(w, r, "allowlist", d.Track, strconv.FormatInt(n, 10))
	case len(parts) == 2 && parts[0] == "evidence":
		return d.evidence(w, r, parts[1])
	case len(parts) == 2 && parts[0] == "blob":
		it, err := s.view.Item(parts[1], func(c trust.Digest) (io.ReadCloser, error) { return d.Zone.CAS.Open(c) })
		if err != nil {
			return err
		}
		if !it.Flat() {
			return notFound("only derivations are served as files; the nar is at /nar/%s", parts[1])
		}
		blob, err := d.Zone.CAS.Open(it.Content)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(blob)
		if err = errors.Join(err, blob.Close()); err != nil {
			return err
		}
		return send(w, r, "text/plain; charset=utf-8", int(MaxAge.Seconds()), body)
	case len(parts) >= 2 && parts[0] == "ledger":
		return d.public(w, r, parts...)
	}
	return notFound("no such page")
}

// public sends a published file.
func (d *Depot) public(w http.ResponseWriter, r *http.Request, parts ...string) error {
	root, err := os.OpenRoot(filepath.Join(d.Zone.Dir, "public"))
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Open(filepath.Join(parts...))
	if errors.Is(err, fs.ErrNotExist) {
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
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(st.Size(), 10))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err = io.CopyN(w, f, st.Size())
	return err
}

// maxEvidence bounds the statements sent about one derivation.
const maxEvidence = 64

func (d *Depot) evidence(w http.ResponseWriter, r *http.Request, name string) error {
	rows, err := d.Zone.Read(r.Context()).QueryContext(r.Context(), `SELECT envelope FROM built WHERE derivation = ? ORDER BY leaf LIMIT ?`, name, maxEvidence)
	if err != nil {
		return err
	}
	defer rows.Close()
	e := Evidence{Derivation: name, Statements: []string{}}
	for rows.Next() {
		var envelope []byte
		if err := rows.Scan(&envelope); err != nil {
			return err
		}
		e.Statements = append(e.Statements, base64.StdEncoding.EncodeToString(envelope))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return send(w, r, "application/json", 0, append(body, '\n'))
}

// Listen opens the depot's port.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", addr)
}
