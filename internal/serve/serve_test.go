package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sallyport/internal/enclavetest"
	"sallyport/internal/trust"
)

// listen serves a route on a real connection, and returns where, and the log.
func listen(t *testing.T, h *Handler) (url string, log *enclavetest.Log) {
	t.Helper()
	log = &enclavetest.Log{}
	h.Name, h.Log = "the shop", log.Logger()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = h.Server(time.Minute, StallTime)
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL, log
}

// TestAnswers: each error has its status, reason and text, and none is kept on the way.
func TestAnswers(t *testing.T) {
	t.Parallel()
	refusal := trust.Refuse("recalled", "hello-1.0", "it is out")
	tests := []struct {
		name           string
		err            error
		status         int
		reason, body   string
		logged, hidden string
	}{
		{"not found", NotFound("no page %d", 7), 404, "", "no page 7\n", "", ""},
		{"named", Errorf(http.StatusForbidden, "read-only", "nothing can be %s", "pushed"), 403, "read-only", "nothing can be pushed\n", "", ""},
		{"wrapped", fmt.Errorf("route: %w", Errorf(http.StatusServiceUnavailable, "not-ready", "come again")), 503, "not-ready", "come again\n", "", ""},
		{"a refusal", fmt.Errorf("item: %w", refusal), 404, "recalled", refusal.Error() + "\n", "level=WARN msg=refused path=/x reason=recalled", ""},
		{"two refusals", trust.Refusals{refusal, trust.Refuse("not-allowed", "x", "y")}, 404, "recalled", "not-allowed", "reason=recalled", ""},
		{"a failure", errors.New("disk /srv/zone is on fire"), 500, "", "the shop could not answer; its log says why\n", "on fire", "on fire"},
	}
	for _, tt := range tests {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(tt.name+" "+method, func(t *testing.T) {
				url, log := listen(t, &Handler{RetryAfter: 5 * time.Second, Route: func(http.ResponseWriter, *http.Request) error { return tt.err }})
				req, err := http.NewRequestWithContext(t.Context(), method, url+"/x", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				h := res.Header
				if err != nil || res.StatusCode != tt.status || h.Get(ReasonHeader) != tt.reason || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s, %v, %v", res.Status, h, err)
				}
				if again := h.Get("Retry-After"); (again == "5") != (tt.status == 503) {
					t.Errorf("Retry-After %q", again)
				}
				if method == "HEAD" {
					if len(body) != 0 || res.ContentLength <= 0 {
						t.Errorf("%q, Content-Length %d", body, res.ContentLength)
					}
				} else if !strings.HasSuffix(string(body), "\n") || !strings.Contains(string(body), tt.body) || res.ContentLength != int64(len(body)) || tt.hidden != "" && strings.Contains(string(body), tt.hidden) {
					t.Errorf("%q, Content-Length %d", body, res.ContentLength)
				}
				if s := log.String(); !strings.Contains(s, tt.logged) || tt.logged == "" && s != "" {
					t.Errorf("log: %q", s)
				}
			})
		}
	}
}

// TestCut: what fails behind the head of an answer does not look whole, and is told in the log.
func TestCut(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]func(w http.ResponseWriter) error{
		"with a size": func(w http.ResponseWriter) error { Head(w, "text/plain", "no-cache", 100); return nil },
		"without":     func(w http.ResponseWriter) error { Head(w, "text/plain", "no-cache", -1); return nil },
		"no head":     func(w http.ResponseWriter) error { _, err := io.WriteString(w, "begun"); return err },
		"flushed": func(w http.ResponseWriter) error {
			_, err := io.WriteString(w, "begun")
			return errors.Join(err, http.NewResponseController(w).Flush())
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, log := listen(t, &Handler{Route: func(w http.ResponseWriter, _ *http.Request) error { return errors.Join(begin(w), errors.New("rotten")) }})
			res, err := http.Get(url)
			if err == nil {
				_, err = io.ReadAll(res.Body)
				res.Body.Close()
			}
			if err == nil {
				t.Errorf("%s: it looks whole", res.Status)
			}
			if s := log.String(); !strings.Contains(s, "answer cut") || !strings.Contains(s, "rotten") {
				t.Errorf("log: %q", s)
			}
		})
	}
}

// TestGone: to a client that has left nothing is said, and the log does not speak of a failure.
func TestGone(t *testing.T) {
	t.Parallel()
	for _, begun := range []bool{false, true} {
		var log enclavetest.Log
		h := &Handler{Name: "the shop", Log: log.Logger(), Route: func(w http.ResponseWriter, r *http.Request) error {
			if begun {
				Head(w, "text/plain", "no-cache", 10)
			}
			return r.Context().Err()
		}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		func() {
			defer func() {
				if p := recover(); p != http.ErrAbortHandler {
					t.Errorf("%v", p)
				}
			}()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", "/x", nil))
		}()
		if log.String() != "" || w.Body.Len() != 0 {
			t.Errorf("log %q, body %q", log.String(), w.Body)
		}
	}
}

// TestSend: a body comes with its size; HEAD has the same head.
func TestSend(t *testing.T) {
	t.Parallel()
	url, _ := listen(t, &Handler{Route: func(w http.ResponseWriter, r *http.Request) error {
		return Send(w, r, "application/json", "max-age=300", []byte("{}\n"))
	}})
	for _, method := range []string{"GET", "HEAD"} {
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		h := res.Header
		if err != nil || res.StatusCode != 200 || res.ContentLength != 3 || h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "max-age=300" || h.Get("Retry-After") != "" {
			t.Errorf("%s: %s, %v, %v", method, res.Status, h, err)
		}
		if want := map[string]string{"GET": "{}\n"}[method]; string(body) != want {
			t.Errorf("%s: %q", method, body)
		}
	}
}

// TestLimits: the server has the limits that the manual says, and a head without end is refused.
func TestLimits(t *testing.T) {
	t.Parallel()
	h := &Handler{Log: slog.New(slog.DiscardHandler)}
	srv := h.Server(3*time.Second, 4*time.Second)
	if srv.ReadHeaderTimeout != HeadTime || srv.ReadTimeout != 3*time.Second || srv.WriteTimeout != 4*time.Second || srv.IdleTimeout != IdleTime || srv.MaxHeaderBytes != MaxHead {
		t.Errorf("%+v", srv)
	}
	url, _ := listen(t, &Handler{Route: func(http.ResponseWriter, *http.Request) error { return NotFound("nothing") }})
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\n")
		for range 1000 {
			if _, err := fmt.Fprintf(conn, "X-%0100d: y\r\n", 0); err != nil {
				return
			}
		}
	}()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v, %v", res, err)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, Piece - 1, Piece, Piece + 1, 2 * Piece, 3*Piece + 7} {
		data := bytes.Repeat([]byte("x"), size)
		w := &recorder{}
		if err := Stream(w, bytes.NewReader(data)); err != nil || !bytes.Equal(w.Bytes(), data) {
			t.Errorf("%d: %d bytes, %v", size, w.Len(), err)
		}
		broken := errors.New("rotten")
		w = &recorder{}
		err := Stream(w, io.MultiReader(bytes.NewReader(data), failing{broken}))
		if !errors.Is(err, broken) || size > 0 && w.Len() >= size {
			t.Errorf("%d: %d bytes, %v", size, w.Len(), err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A recorder keeps what is sent; each piece has to have its own time.
type recorder struct {
	bytes.Buffer
	deadline time.Time
}

func (*recorder) Header() http.Header { return http.Header{} }
func (*recorder) WriteHeader(int)     {}
func (r *recorder) SetWriteDeadline(t time.Time) error {
	r.deadline = t
	return nil
}
func (r *recorder) Write(p []byte) (int, error) {
	if time.Until(r.deadline) < StallTime/2 {
		return 0, errors.New("a piece has no time of its own")
	}
	return r.Buffer.Write(p)
}
