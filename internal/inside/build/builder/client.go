package builder

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"sallyport/internal/serve"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Bounds on what a depot may send.
const (
	maxRoots         = 10_000
	maxRootNote      = trust.MaxRootSize + 128<<10
	maxOrdersNote    = trust.MaxOrdersSize + 128<<10
	maxAllowlistNote = trust.MaxListSize + 128<<10
	maxHead          = 4 << 10
	maxEvidenceBody  = 64*(statement.MaxEnvelopeSize*4/3+16) + 4096
	headerTimeout    = 30 * time.Second
	stallTimeout     = 2 * time.Minute // without a byte
	maxReason        = 4 << 10
)

// client gets things from one depot, and from nowhere else: no proxy, no redirect, no cookie.
type client struct {
	base  *url.URL
	http  *http.Client
	stall time.Duration
}

func newClient(depot string) (*client, error) {
	u, err := url.Parse(depot)
	if err != nil {
		return nil, fmt.Errorf("depot: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("depot %q: want http://HOST:PORT", depot)
	}
	return &client{base: u, stall: stallTimeout, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("a depot does not redirect") },
		Transport: &http.Transport{
			Proxy: nil, ResponseHeaderTimeout: headerTimeout, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			DialContext: (&net.Dialer{Timeout: headerTimeout}).DialContext,
		},
	}}, nil
}

// open starts a request. A refusal by the depot comes back as one, with its reason code.
func (c *client) open(ctx context.Context, parts ...string) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base.JoinPath(escape(parts)...).String(), nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	res.Body = &watched{res.Body, ctx, cancel, time.AfterFunc(c.stall, func() { cancel(fmt.Errorf("%s: nothing came for %v", req.URL, c.stall)) }), c.stall}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxReason))
	res.Body.Close()
	if code := res.Header.Get(serve.ReasonHeader); code != "" {
		return nil, trust.Refuse(trust.Printable(code, 64), req.URL.Path, "the depot answers: %s", trust.Printable(string(bytes.TrimSpace(text)), 500))
	}
	return nil, fmt.Errorf("%s: %s: %s", req.URL, res.Status, trust.Printable(string(bytes.TrimSpace(text)), 500))
}

// watched ends a request whose answer has stalled: a depot must not be able to hold a builder for ever.
type watched struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	if n > 0 {
		w.timer.Reset(w.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) && w.ctx.Err() != nil {
		err = context.Cause(w.ctx)
	}
	return n, err
}

func (w *watched) Close() error {
	w.timer.Stop()
	defer w.cancel(nil)
	return w.ReadCloser.Close()
}

func escape(parts []string) []string {
	out := make([]string, len(parts))
	for i, p := range parts {
		out[i] = url.PathEscape(p)
	}
	return out
}

// get reads a whole answer of at most limit bytes.
func (c *client) get(ctx context.Context, limit int64, parts ...string) ([]byte, error) {
	res, err := c.open(ctx, parts...)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, trust.Refuse("depot-size", res.Request.URL.Path, "more than %d bytes", limit)
	}
	return data, nil
}

type head struct {
	Enclave   string `json:"enclave"`
	Track     string `json:"track"`
	Root      int64  `json:"root"`
	Orders    int64  `json:"orders"`
	Allowlist int64  `json:"allowlist"`
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return trust.Refuse("depot-answer", "depot", "%v", err)
	}
	return nil
}

func (c *client) head(ctx context.Context) (*head, error) {
	data, err := c.get(ctx, maxHead, "sallyport", "head")
	if err != nil {
		return nil, err
	}
	h := &head{}
	return h, strict(data, h)
}

func (c *client) evidence(ctx context.Context, name string) ([][]byte, error) {
	data, err := c.get(ctx, maxEvidenceBody, "sallyport", "evidence", name)
	if err != nil {
		return nil, err
	}
	var e struct {
		Derivation string   `json:"derivation"`
		Statements []string `json:"statements"`
	}
	if err := strict(data, &e); err != nil {
		return nil, err
	}
	var list [][]byte
	for _, s := range e.Statements {
		b, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return nil, trust.Refuse("depot-answer", name, "%v", err)
		}
		list = append(list, b)
	}
	return list, nil
}

// download writes an answer to w; size and digest must be those wanted.
func (c *client) download(ctx context.Context, w io.Writer, want trust.Digest, size int64, progress func(int64), parts ...string) error {
	res, err := c.open(ctx, parts...)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	h := newHash(w)
	buf := make([]byte, 256<<10)
	body := io.LimitReader(res.Body, size+1)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := h.Write(buf[:n]); err != nil {
				return err
			}
			progress(int64(n))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if h.n != size || h.sum() != want {
		return trust.Refuse("item-digest", parts[len(parts)-1], "the depot sent %d bytes with sha256 %s, %d with %s are allowed", h.n, h.sum(), size, want)
	}
	return nil
}

// hashed writes through and hashes.
type hashed struct {
	w io.Writer
	h hash.Hash
	n int64
}

func newHash(w io.Writer) *hashed { return &hashed{w: w, h: sha256.New()} }

func (h *hashed) Write(p []byte) (int, error) {
	n, err := h.w.Write(p)
	h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

func (h *hashed) sum() (d trust.Digest) { h.h.Sum(d[:0]); return d }
