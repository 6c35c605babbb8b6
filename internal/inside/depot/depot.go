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
// Those of package serve, with half a minute for a whole request; there are at most [MaxConnections] at a time, where its listener keeps to that.
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
	"sallyport/internal/serve"
	"sallyport/internal/store"
	"sallyport/internal/trust"
)

const (
	// MaxConnections is how many clients are connected at a time; more wait.
	MaxConnections = 4096
	// readTime is how long a client may take for a whole request.
	readTime = 30 * time.Second
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
	h := &serve.Handler{Name: "the depot", Log: d.Log, Route: d.route}
	return h.Server(readTime, serve.StallTime)
}

// Check makes the depot's first view of its track, so that one which cannot serve says so at its start.
func (d *Depot) Check(ctx context.Context) error {
	_, err := d.now(ctx)
	return err
}

func (d *Depot) route(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return serve.Errorf(http.StatusMethodNotAllowed, "", "method %.20q: only GET and HEAD", r.Method)
	}
	// The escaped path is split first and each part decoded then, as Guix clients and guix publish do: a ? in a name is %3F.
	var parts []string
	for _, p := range strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/") {
		u, err := url.PathUnescape(p)
		if err != nil || u == "" || u == "." || u == ".." || strings.ContainsAny(u, "/\x00") {
			return serve.NotFound("no such page")
		}
		parts = append(parts, u)
	}
	if len(parts) == 1 && parts[0] == "nix-cache-info" {
		return serve.Send(w, r, "text/plain", "max-age=3600", []byte("StoreDir: "+storepath.Dir+"\nWantMassQuery: 0\nPriority: 100\n"))
	}
	s, err := d.now(r.Context())
	if rs, refused := trust.AsRefusals(err); refused {
		return serve.Errorf(http.StatusServiceUnavailable, rs[0].Code, "the depot serves nothing until this is mended: %v", rs)
	}
	if err != nil {
		return serve.Errorf(http.StatusServiceUnavailable, "", "the depot serves nothing until this is mended; its log says what")
	}
	switch {
	case len(parts) == 1 && parts[0] == "signing-key.pub":
		return serve.Send(w, r, "text/plain", noCache, []byte(s.key.String()))
	case len(parts) == 1 && strings.HasSuffix(parts[0], ".narinfo"):
		n, err := d.narinfo(r.Context(), s, strings.TrimSuffix(parts[0], ".narinfo"))
		if err != nil {
			return err
		}
		return serve.Send(w, r, "application/x-nix-narinfo;charset=utf-8", whileAllowed, n.body)
	case len(parts) == 2 && parts[0] == "nar":
		return d.nar(w, r, s, parts[1])
	case len(parts) >= 2 && parts[0] == "sallyport":
		return d.document(w, r, s, parts[1:])
	}
	return serve.NotFound("no such page; see the depot's manual for its routes")
}

// Cache-Control of answers that do not depend on what is allowed.
const (
	noCache = "no-cache"
	forever = "max-age=31536000, immutable"
)

// MaxAge is how long a client may believe that something is allowed: a recall is in force everywhere no later than this.
const MaxAge = 5 * time.Minute

var whileAllowed = "max-age=" + strconv.Itoa(int(MaxAge.Seconds()))

// nar streams an item.
func (d *Depot) nar(w http.ResponseWriter, r *http.Request, s *state, base string) error {
	p, err := storepath.ParseBase(base)
	if err != nil {
		return serve.NotFound("%.300q is not the base name of a store path", base)
	}
	n, err := d.narinfo(r.Context(), s, p.Hash())
	if err != nil {
		return err
	}
	it := n.item
	if it.Path != p {
		return serve.NotFound("no item of this name is served on track %s", d.Track)
	}
	if it.Flat() {
		data, err := d.content(it)
		if err != nil {
			return err
		}
		serve.Head(w, "application/x-nix-archive", whileAllowed, it.NarSize)
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
	serve.Head(w, "application/x-nix-archive", whileAllowed, it.NarSize)
	if r.Method == http.MethodHead {
		return nil
	}
	return serve.Stream(w, blob)
}

// content reads a derivation's file whole. What the store returns has the digest that it was asked for.
func (d *Depot) content(it admit.Item) ([]byte, error) {
	data, err := d.Zone.CAS.ReadAll(it.Content, admit.MaxDerivation)
	if err != nil {
		return nil, trust.Refuse("item-lost", it.Path.Base(), "its content is not in the store: %v", err)
	}
	return data, nil
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
			return 0, serve.NotFound("%q is not a version", text)
		}
		return n, nil
	}
	switch {
	case len(parts) == 1 && parts[0] == "head":
		body, err := json.Marshal(Head{s.view.Root.Enclave, d.Track, s.view.Root.Version, s.view.Orders.Number(), s.view.List.Version})
		if err != nil {
			return err
		}
		return serve.Send(w, r, "application/json", noCache, append(body, '\n'))
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
			return serve.NotFound("only derivations are served as files; the nar is at /nar/%s", parts[1])
		}
		data, err := d.content(it)
		if err != nil {
			return err
		}
		return serve.Send(w, r, "text/plain; charset=utf-8", whileAllowed, data)
	case len(parts) >= 2 && parts[0] == "ledger":
		return d.public(w, r, noCache, parts...)
	}
	return serve.NotFound("no such page")
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
		return serve.NotFound("no such document")
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
		return serve.NotFound("no such document")
	}
	serve.Head(w, "application/octet-stream", cache, st.Size())
	if r.Method == http.MethodHead {
		return nil
	}
	return serve.Stream(w, io.LimitReader(f, st.Size()))
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
		return serve.Errorf(http.StatusNotFound, "not-allowed", "the allowlist of track %s names no derivation %.300q", d.Track, name)
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
	return serve.Send(w, r, "application/json", noCache, append(body, '\n'))
}
