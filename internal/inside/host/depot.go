package host

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"sallyport/internal/serve"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

const (
	maxHead       = 4 << 10
	maxEvidence   = 64*(statement.MaxEnvelopeSize*4/3+16) + 4096
	maxReason     = 4 << 10
	headerTimeout = 30 * time.Second
	stallTimeout  = 2 * time.Minute // without a byte
)

// A Depot is one depot of the enclave, as a source. It gives what builders said of each derivation that is asked about.
type Depot struct {
	base  *url.URL
	http  *http.Client
	stall time.Duration
	track string
}

// NewDepot makes a source of a depot's URL. It goes nowhere else: no proxy, no redirect, no cookie.
func NewDepot(depot string) (*Depot, error) {
	u, err := url.Parse(depot)
	if err != nil {
		return nil, fmt.Errorf("depot: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("depot %q: want http://HOST:PORT", depot)
	}
	return &Depot{base: u, stall: stallTimeout, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("a depot does not redirect") },
		Transport: &http.Transport{
			Proxy: nil, ResponseHeaderTimeout: headerTimeout, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost: fetchers, DialContext: (&net.Dialer{Timeout: headerTimeout}).DialContext,
		},
	}}, nil
}

// get reads an answer of at most limit bytes. A refusal by the depot comes back as one, with its reason code.
func (d *Depot) get(ctx context.Context, limit int64, parts ...string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base.JoinPath(parts...).String(), nil)
	if err != nil {
		return nil, err
	}
	// A depot must not be able to hold a check for ever.
	timer := time.AfterFunc(d.stall, func() { cancel(fmt.Errorf("%s: nothing came for %v", req.URL, d.stall)) })
	defer timer.Stop()
	res, err := d.http.Do(req)
	if err != nil {
		return nil, because(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, maxReason))
		says := trust.Printable(string(bytes.TrimSpace(text)), 500)
		if code := res.Header.Get(serve.ReasonHeader); code != "" {
			return nil, trust.Refuse(trust.Printable(code, 64), req.URL.Path, "the depot answers: %s", says)
		}
		return nil, fmt.Errorf("%s: %s: %s", req.URL, trust.Printable(res.Status, 100), says)
	}
	data, err := io.ReadAll(&fed{io.LimitReader(res.Body, limit+1), timer, d.stall})
	if err != nil {
		return nil, because(ctx, err)
	}
	if int64(len(data)) > limit {
		return nil, trust.Refuse("depot-size", req.URL.Path, "more than %d bytes", limit)
	}
	return data, nil
}

// because prefers the cause of an interruption to its effect.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// fed sets a timer back whenever something comes.
type fed struct {
	io.Reader
	timer *time.Timer
	stall time.Duration
}

func (f *fed) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if n > 0 {
		f.timer.Reset(f.stall)
	}
	return n, err
}

// strict decodes JSON that has these members and no others.
func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return trust.Refuse("depot-answer", "depot", "%s", trust.Printable(err.Error(), 300))
	}
	return nil
}

// Newest is part of [Source].
func (d *Depot) Newest(ctx context.Context) (Newest, error) {
	data, err := d.get(ctx, maxHead, "sallyport", "head")
	if err != nil {
		return Newest{}, err
	}
	var h struct {
		Enclave   string `json:"enclave"`
		Track     string `json:"track"`
		Root      int64  `json:"root"`
		Allowlist int64  `json:"allowlist"`
		Orders    int64  `json:"orders"`
	}
	if err := strict(data, &h); err != nil {
		return Newest{}, err
	}
	if trust.CheckWord(h.Enclave) != nil || trust.CheckWord(h.Track) != nil || h.Root < 1 || h.Allowlist < 1 || h.Orders < 0 {
		return Newest{}, trust.Refuse("depot-answer", d.base.String(), "its head is %s", trust.Printable(string(bytes.TrimSpace(data)), 300))
	}
	d.track = h.Track
	return Newest{Enclave: h.Enclave, Root: h.Root, Orders: h.Orders, Tracks: map[string]int64{h.Track: h.Allowlist}}, nil
}

// Root is part of [Source].
func (d *Depot) Root(ctx context.Context, version int64) ([]byte, error) {
	return d.get(ctx, maxRootNote, "sallyport", "root", strconv.FormatInt(version, 10))
}

// Allowlist is part of [Source].
func (d *Depot) Allowlist(ctx context.Context, track string, version int64) ([]byte, error) {
	if track != d.track {
		return nil, fmt.Errorf("%s serves track %s, not %s", d.base, d.track, track)
	}
	return d.get(ctx, maxAllowlistNote, "sallyport", "allowlist", strconv.FormatInt(version, 10))
}

// Orders is part of [Source].
func (d *Depot) Orders(ctx context.Context, version int64) ([]byte, error) {
	return d.get(ctx, maxOrdersNote, "sallyport", "orders", strconv.FormatInt(version, 10))
}

// Opened is part of [Source]. What a depot says beside the documents is no evidence.
func (d *Depot) Opened(context.Context, *trust.Root) (*Known, error) { return nil, nil }

// Evidence is part of [Source].
func (d *Depot) Evidence(ctx context.Context, derivation string) ([][]byte, error) {
	data, err := d.get(ctx, maxEvidence, "sallyport", "evidence", derivation)
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
			return nil, trust.Refuse("depot-answer", derivation, "%v", err)
		}
		list = append(list, b)
	}
	return list, nil
}

// Derivation is part of [Source].
func (d *Depot) Derivation(ctx context.Context, it trust.Item) ([]byte, error) {
	return d.get(ctx, it.Size, "sallyport", "blob", it.Name)
}

// Makers is part of [Source]. A depot is not asked: names tell.
func (d *Depot) Makers(string) []string { return nil }
