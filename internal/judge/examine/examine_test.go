package examine_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"sallyport/guix/nar"
	"sallyport/internal/confine"
	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/examine"
	"sallyport/internal/trust"
)

var suite enclavetest.Suite

func TestMain(m *testing.M) { os.Exit(suite.Run(m)) }

func start(t *testing.T) *examine.Reader {
	t.Helper()
	r, err := examine.Start(t.Context(), suite.Reader(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func item(r *examine.Reader, ctx context.Context, data []byte, size int64) (*confine.Report, error) {
	return r.Item(ctx, confine.Request{Kind: confine.KindNar, Name: "x", Size: size}, bytes.NewReader(data))
}

func TestItems(t *testing.T) {
	t.Parallel()
	r := start(t)
	good := enclavetest.Nar("good\n")
	check := func(what string) {
		t.Helper()
		if report, err := item(r, t.Context(), good, int64(len(good))); err != nil || report.Files != 1 {
			t.Errorf("after %s: %+v, %v", what, report, err)
		}
	}
	check("the start")
	_, err := item(r, t.Context(), []byte("no archive at all"), 17)
	suite.Want(t, err, "nar-magic")
	check("what is no archive")
	_, err = item(r, t.Context(), append(bytes.Clone(good), 0), int64(len(good)+1))
	suite.Want(t, err, "nar-trailing")
	check("what goes on behind its end")
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for _, h := range []*nar.Header{{Type: nar.Directory}, {Path: "a\x01b", Type: nar.Regular}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = item(r, t.Context(), b.Bytes(), int64(b.Len()))
	suite.Want(t, err, "inspection-block")
	check("a finding that blocks")
	_, err = item(r, t.Context(), nil, confine.MaxSize+1)
	suite.Want(t, err, "item-size")
	// A source that fails is no fault of the item, and the reader is replaced.
	broken := errors.New("broken disk")
	_, err = r.Item(t.Context(), confine.Request{Kind: confine.KindNar, Name: "x", Size: 100}, io.MultiReader(strings.NewReader("12"), failing{broken}))
	if _, refused := trust.AsRefusals(err); !errors.Is(err, broken) || refused {
		t.Error(err)
	}
	check("a broken source")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = item(r, ctx, good, int64(len(good))); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	check("being told to stop")
	if c := r.Confinement(); c["seccomp"] == nil {
		t.Errorf("%v", c)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// A reader that dies or lies refuses the item it was given; the next one is read by another.
func TestLiar(t *testing.T) {
	t.Parallel()
	suite.Reader(t) // skips where nothing can be confined
	r, err := examine.Start(t.Context(), suite.Build(t, "liar", "sallyport/internal/judge/examine/testdata/liar"))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, tt := range []struct{ name, code string }{
		{"crash", "reader-crashed"}, {"call", "reader-forbidden-call"}, {"lie", "reader-answer"}, {"code", "reader-answer"},
	} {
		_, err := r.Item(t.Context(), confine.Request{Kind: confine.KindNar, Name: tt.name, Size: 4}, strings.NewReader("four"))
		suite.Want(t, err, tt.code)
		if _, err := r.Item(t.Context(), confine.Request{Kind: confine.KindNar, Name: "honest", Size: 4}, strings.NewReader("four")); err != nil {
			t.Errorf("after %s: %v", tt.name, err)
		}
	}
}
