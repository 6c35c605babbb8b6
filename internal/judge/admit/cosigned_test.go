package admit_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sallyport/internal/enclavetest"
	"sallyport/internal/judge/admit"
	"sallyport/internal/store"
	"sallyport/internal/store/ledger"
	"sallyport/internal/trust"
)

// cosign has wilma cosign the ledger as it is published, and takes that in.
func cosign(t *testing.T, e *enclavetest.Enclave, state string) []byte {
	t.Helper()
	note, err := store.Witness(state, e.Zone.LedgerFS(), e.Zone.LedgerVKey(), enclavetest.Key(t, "wilma/witness"), e.Clock())
	if err != nil {
		t.Fatal(err)
	}
	return note
}

func TestCosigned(t *testing.T) {
	t.Parallel()
	e, _, _ := built(t)
	state := filepath.Join(t.TempDir(), "state")
	e.NextRoot(func(r *trust.Root) {
		r.Policies[trust.PolicyCosigned+"dev"] = "1"
		for _, person := range []string{"wilma", "walt"} {
			r.Keys = append(r.Keys, enclavetest.Key(t, person+"/witness").RootKey())
			r.Roles = append(r.Roles, trust.RoleLine{Role: trust.RoleWitness, Person: person})
		}
	})
	early := cosign(t, e, state)
	e.Allow("dev", e.Source("again", "again"))
	check := func() error {
		t.Helper()
		var r admit.Record
		if _, err := r.Read(t.Context(), e.Zone, e.Root); err != nil {
			t.Fatal(err)
		}
		v, err := r.View(t.Context(), e.Zone, e.Root, "dev")
		if err != nil {
			t.Fatal(err)
		}
		return r.Cosigned(t.Context(), e.Zone, v)
	}
	suite.Want(t, check(), "not-cosigned", "not-cosigned", "not-cosigned") // nothing came, and so nobody
	if _, _, err := e.Zone.AddCosigned(t.Context(), early); err != nil {
		t.Fatal(err)
	}
	suite.Want(t, check(), "not-cosigned", "not-cosigned", "not-cosigned") // before the approval, and so nobody
	if _, _, err := e.Zone.AddCosigned(t.Context(), cosign(t, e, state)); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	e.Renew(trust.ContextCheckpoint)
	if err := check(); err != nil {
		t.Errorf("what was cosigned before the ledger got another key: %v", err)
	}
	// Whoever has the ledger's key, and root on the station, lays another tree there that a witness of theirs has seen.
	data, err := os.ReadFile(filepath.Join(e.Zone.Dir, "keys", "ledger.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.ParseKey(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	lay := func(person string, size int64) {
		t.Helper()
		note, err := ledger.SignCheckpoint(ledger.Checkpoint{Origin: e.Zone.Origin(), Size: size, Root: tlog.Hash(sha256.Sum256([]byte("elsewhere of " + person)))}, key)
		if err != nil {
			t.Fatal(err)
		}
		text, lines, err := trust.SplitNote("checkpoint", note, ledger.MaxCheckpoint)
		if err != nil {
			t.Fatal(err)
		}
		line, err := trust.CosignText(text, enclavetest.Key(t, person+"/witness"), e.Clock().Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(e.Zone.Dir, "public", "witness", person), trust.JoinNote(text, append(lines, line)...), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log, err := e.Zone.Log()
	if err != nil {
		t.Fatal(err)
	}
	size := log.Checkpoint().Size
	lay("wilma", size)
	suite.Want(t, check(), "ledger-fork", "not-cosigned", "not-cosigned") // walt has seen nothing
	lay("walt", size)
	suite.Want(t, check(), "ledger-fork", "ledger-fork", "not-cosigned")
	lay("wilma", size+1000)
	lay("walt", size+1000)
	suite.Want(t, check(), "ledger-rollback", "ledger-rollback", "not-cosigned")
}
