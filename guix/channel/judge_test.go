package channel_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

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
			}
			for _, p := range proofs {
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
