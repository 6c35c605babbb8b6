package statement

import (
	"strings"
	"testing"

	"sallyport/guix/storepath"
	"sallyport/internal/trust"
	"sallyport/internal/trust/trusttest"
)

func TestArrivals(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "12": 12, "own-1": -1, "own-9007199254740992": -1 << 53} {
		if n, err := ParseArrival(text); err != nil || n != want {
			t.Errorf("%s is %d, %v", text, n, err)
		}
		if s := strings.TrimPrefix(Arrived(want), "shipment "); s != text {
			t.Errorf("%d is called %s", want, s)
		}
	}
	for _, text := range []string{"", "0", "-1", "own-", "own-0", "own--1", "own-01", "01", "+1", "Own-1", "own1", " 1", "own-1 ", "own-9007199254740993", "1e3", "own-1\n"} {
		if n, err := ParseArrival(text); err == nil {
			t.Errorf("%q is taken for %d", text, n)
		}
	}
}

// The statement says all that there is of a submission, and nothing in it can be another's.
func TestSubmission(t *testing.T) {
	e := trusttest.New(t)
	root := e.Open(e.Root())
	commit, pack := strings.Repeat("1", 40), trust.Sum([]byte("pack"))
	path, err := storepath.Source("my-channel-ours-channel-"+commit, pack) // a channel may have such a name, too
	if err != nil {
		t.Fatal(err)
	}
	want := Submission{Number: 3, Item: trust.Item{SHA256: pack, Size: 4, Kind: trust.KindChannel, Name: path.Base()}, Commit: commit, Basis: strings.Repeat("2", 40), Person: "ines"}
	s := want.Statement()
	if s.Predicate["channel"] != "my-channel-ours" {
		t.Errorf("channel %v", s.Predicate["channel"])
	}
	s.Predicate["time"], s.Predicate["zone"] = trusttest.Epoch, trusttest.Zone
	b, err := Sign(e.Key("ines/statement"), s)
	if err != nil {
		t.Fatal(err)
	}
	env, err := ParseEnvelope(b)
	if err != nil {
		t.Fatal(err)
	}
	said, person, err := env.Verify(root, trusttest.Zone)
	if err != nil || person != "ines" {
		t.Fatalf("%s, %v", person, err)
	}
	if got, err := said.Submission(); err != nil || *got != want {
		t.Errorf("%+v, %v", got, err)
	}
	other := said
	other.Kind = KindImported
	if _, err := other.Submission(); err == nil {
		t.Error("an import is taken for a submission")
	}
}
