package channel_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/guix/channel"
	"sallyport/guix/channel/channeltest"
	"sallyport/guix/channel/git"
)

var world = sync.OnceValues(func() (*channeltest.World, error) { return channeltest.NewWorld(rand.Reader) })

// prepare makes the request of a history. Without a keyring it returns the error that this is.
func prepare(t testing.TB, h channeltest.History) (channel.Request, *git.Database, error) {
	t.Helper()
	db := h.Database()
	req := channel.Request{Introduction: h.Introduction, Signer: h.Signer, End: h.End, Historical: h.Historical}
	var err error
	req.Keyring, err = channel.ReadKeyring(db.NewReader(), h.Refs["refs/heads/keyring"])
	return req, db, err
}

func codes(v *channel.Verdict) (refusals, findings []string) {
	for _, r := range v.Refusals {
		refusals = append(refusals, r.Code)
	}
	for _, f := range v.Findings {
		findings = append(findings, f.Code)
	}
	slices.Sort(findings)
	return refusals, findings
}

// TestCases holds every history to its verdict, cold and then with the proofs of all others at hand, and looks at the proofs themselves.
func TestCases(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	cases := channeltest.Cases()
	if len(cases) < 40 {
		t.Fatalf("%d cases", len(cases))
	}
	proofs := make(map[[32]byte]*channel.Proven)
	names := make(map[string]bool)
	for _, c := range cases {
		if names[c.Name] {
			t.Fatalf("two cases are called %s", c.Name)
		}
		names[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			h := c.Build(w)
			req, db, err := prepare(t, h)
			if err != nil {
				var ke *channel.KeyringError
				if !errors.As(err, &ke) || !slices.Equal(c.Codes, []string{channel.CodeKeyring}) {
					t.Fatal(err)
				}
				return
			}
			v, err := channel.Authenticate(t.Context(), db, req)
			if err != nil {
				t.Fatal(err)
			}
			refusals, findings := codes(v)
			if !slices.Equal(refusals, c.Codes) {
				t.Errorf("refused for %q, want %q\n%v", refusals, c.Codes, v.Refusals)
			}
			if want := slices.Sorted(slices.Values(c.Findings)); (len(c.Codes) == 0 || c.Findings != nil) && !slices.Equal(findings, want) {
				t.Errorf("findings %q, want %q\n%v", findings, want, v.Findings)
			}
			if v.OK() != (v.Proven() != nil) {
				t.Errorf("a proof: %v", v.Proven() != nil)
			}
			for _, r := range v.Refusals {
				if r.Detail == "" || r.Rule == "" || r.Commit.IsZero() {
					t.Errorf("a refusal that says too little: %+v", r)
				}
				// What is not there has no author and no key; what has no signature that can be read has no key.
				missing := r.Code == channel.CodeObjectMissing || r.Code == channel.CodeObjectMalformed || r.Code == channel.CodeIntroductionMissing || r.Code == channel.CodeNotDescendant
				keyless := missing || r.Code == channel.CodeUnsigned || r.Code == channel.CodeSignatureForm
				if !missing && (r.Author == "" || r.File == "") || !keyless && r.Key == "" {
					t.Errorf("a refusal without author, key or file: %+v", r)
				}
			}
			other := 0
			for binding, p := range proofs {
				if binding != req.Binding() {
					if other++; other > 2 {
						continue // one or two that do not fit are as good as all
					}
				}
				if slices.ContainsFunc(c.Codes, func(c string) bool { return strings.HasPrefix(c, "object-") }) {
					break // what was proven is not read again, whether or not it is there
				}
				req.Proven = p
				again, err := channel.Authenticate(t.Context(), db, req)
				if err != nil {
					t.Fatal(err)
				}
				same(t, again, v)
			}
			p := v.Proven()
			if p == nil {
				return
			}
			data, err := p.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			q := new(channel.Proven)
			if err := q.UnmarshalBinary(data); err != nil {
				t.Fatal(err)
			}
			if more, err := q.MarshalBinary(); err != nil || string(more) != string(data) {
				t.Fatalf("a proof does not print as it was read: %v", err)
			}
			req.Proven = q
			again, err := channel.Authenticate(t.Context(), db, req)
			if err != nil {
				t.Fatal(err)
			}
			if again.Judged != 0 {
				t.Errorf("%d commits are judged again", again.Judged)
			}
			same(t, again, v)
			proofs[req.Binding()] = q
		})
	}
	if len(proofs) == 0 {
		t.Fatal("nothing was proven")
	}
}

// same checks that two verdicts say the same.
func same(t *testing.T, got, want *channel.Verdict) {
	t.Helper()
	if fmt.Sprint(got.Refusals, got.Findings, got.Signers, got.Commits) != fmt.Sprint(want.Refusals, want.Findings, want.Signers, want.Commits) {
		t.Errorf("with what was proven: %v %v %v %d\nwithout: %v %v %v %d", got.Refusals, got.Findings, got.Signers, got.Commits, want.Refusals, want.Findings, want.Signers, want.Commits)
	}
}

// TestAncestorsWithProof: a commit that an earlier run has proven is no ancestor of an end that is older, or beside it. Whoever asks whether a channel moved forward
// depends on it.
func TestAncestorsWithProof(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 12)
	h.End = ends[11]
	req, db, err := prepare(t, h)
	if err != nil {
		t.Fatal(err)
	}
	newest, err := channel.Authenticate(t.Context(), db, req)
	if err != nil || !newest.OK() {
		t.Fatal(newest, err)
	}
	for i, end := range append([]git.ID{h.Introduction}, ends...) {
		for _, req.Proven = range []*channel.Proven{nil, newest.Proven()} {
			req.End = end
			v, err := channel.Authenticate(t.Context(), db, req)
			if err != nil || !v.OK() {
				t.Fatal(v, err)
			}
			for k, id := range append([]git.ID{h.Introduction}, ends...) {
				within, ok := v.Ancestors(id)
				if ok != (k <= i) {
					t.Errorf("end %d, with a proof: %v: commit %d is among its ancestors: %v", i, req.Proven != nil, k, ok)
				}
				if ok && (!within(id) || !within(h.Introduction) || k < 12 && within(ends[k])) {
					t.Errorf("end %d, commit %d: wrong ancestors", i, k)
				}
			}
		}
	}
}

// TestGrowth judges a history that grows, with the proof of each state for the next, and holds that to a judgement from the beginning.
func TestGrowth(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 40)
	var proof *channel.Proven
	judged := 0
	for i, end := range ends {
		h.End = end
		req, db, err := prepare(t, h)
		if err != nil {
			t.Fatal(err)
		}
		cold, err := channel.Authenticate(t.Context(), db, req)
		if err != nil || !cold.OK() {
			t.Fatal(cold, err)
		}
		req.Proven = proof
		warm, err := channel.Authenticate(t.Context(), db, req)
		if err != nil {
			t.Fatal(err)
		}
		same(t, warm, cold)
		judged += warm.Judged
		if i%3 != 2 { // now and then a state is skipped
			proof = warm.Proven()
		}
	}
	if judged == 0 || proof.Commits() == 0 {
		t.Fatal("nothing was judged")
	}
	// Backwards: each end again, with a proof of all.
	for _, end := range ends {
		h.End = end
		req, db, err := prepare(t, h)
		if err != nil {
			t.Fatal(err)
		}
		cold, err := channel.Authenticate(t.Context(), db, req)
		if err != nil {
			t.Fatal(err)
		}
		req.Proven = proof
		warm, err := channel.Authenticate(t.Context(), db, req)
		if err != nil {
			t.Fatal(err)
		}
		same(t, warm, cold)
		within, ok := warm.Ancestors(ends[0])
		if !ok || !within(ends[0]) || !within(h.Introduction) || end != ends[0] && within(end) {
			t.Errorf("ancestors of %s", ends[0])
		}
	}
}

// TestCollision: what bears the marks of a collision is refused, wherever it is.
func TestCollision(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 5)
	h.End = ends[len(ends)-1]
	req, db, err := prepare(t, h)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"commit ", "tree ", "blob "} {
		seen := 0
		var mu sync.Mutex
		db.Collides = func(head, content []byte) bool {
			mu.Lock()
			defer mu.Unlock()
			if !bytes.HasPrefix(head, []byte(kind)) || git.Collides(head, content) {
				return false
			}
			seen++
			return seen >= 3 || kind == "blob "
		}
		req.Workers = 1
		v, err := channel.Authenticate(t.Context(), db, req)
		if err != nil {
			t.Fatal(err)
		}
		if refusals, _ := codes(v); !slices.Contains(refusals, channel.CodeObjectCollision) {
			t.Errorf("%s: %q", kind, refusals)
		}
	}
}

// TestStop: a run that is told to stop gives no verdict.
func TestStop(t *testing.T) {
	w, err := world()
	if err != nil {
		t.Fatal(err)
	}
	ends, h := channeltest.Growing(w, 10)
	h.End = ends[len(ends)-1]
	req, db, err := prepare(t, h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	loose, n := db.Loose, 0
	req.Workers = 1
	db.Loose = func(id git.ID) ([]byte, error) {
		if n++; n == 5 {
			cancel()
			time.Sleep(10 * time.Millisecond)
		}
		return loose(id)
	}
	if v, err := channel.Authenticate(ctx, db, req); !errors.Is(err, context.Canceled) || v != nil {
		t.Errorf("%v %v", v, err)
	}
	broken := errors.New("the disk is gone")
	db.Loose = func(git.ID) ([]byte, error) { return nil, broken }
	if v, err := channel.Authenticate(t.Context(), db, req); !errors.Is(err, broken) {
		t.Errorf("%v %v", v, err)
	}
	for k := 3; k < 30; k += 4 {
		n = 0
		req.Workers = 2
		var mu sync.Mutex
		db.Loose = func(id git.ID) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n > k {
				return nil, broken
			}
			return loose(id)
		}
		if v, err := channel.Authenticate(t.Context(), db, req); !errors.Is(err, broken) {
			t.Errorf("broken at %d: %v %v", k, v, err)
		}
	}
}

// FuzzProven: what is read as a proof prints to something that is read alike.
func FuzzProven(f *testing.F) {
	w, err := world()
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range channeltest.Cases() {
		if len(c.Codes) > 0 || len(c.Findings) == 0 {
			continue
		}
		req, db, err := prepare(f, c.Build(w))
		if err != nil {
			f.Fatal(err)
		}
		v, err := channel.Authenticate(f.Context(), db, req)
		if err != nil {
			f.Fatal(err)
		}
		data, err := v.Proven().MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p, q channel.Proven
		if p.UnmarshalBinary(data) != nil {
			return
		}
		once, err := p.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := q.UnmarshalBinary(once); err != nil {
			t.Fatal(err)
		}
		if twice, err := q.MarshalBinary(); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q\n%q %v", once, twice, err)
		}
	})
}

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"Björn Höfling <b@x>": "Björn Höfling <b@x>",
		"a\nb\x1b[31m":        `a\nb\x1b[31m`,
		"a\u202eb":            `a\u202eb`,
		"bad \xff":            `bad \xff`,
	} {
		if got := channel.Escape(in); got != want {
			t.Errorf("%q becomes %q", in, got)
		}
	}
	if n := len(channel.Escape(strings.Repeat("x", 10000))); n > 500 {
		t.Errorf("%d characters", n)
	}
}
