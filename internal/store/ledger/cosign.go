package ledger

import (
	"time"

	"sallyport/internal/trust"
)

// CosignGrowth is [Cosign] for a witness that has not the log's files, but what
// was carried to it: a checkpoint, and the proof that it only grew since the
// size that this witness cosigned last. It returns the same, and refuses the
// same; where the proof begins at another size than seen, witness-stale; and
// where the log goes on with another key than this one, key-replaced.
func CosignGrowth(seen Checkpoint, g *Growth, log trust.VKey, key trust.Signer, now time.Time) (Checkpoint, []byte, error) {
	c, err := OpenCheckpoint(g.Checkpoint, log.Name, log)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if err := follows(seen, g, c); err != nil {
		return Checkpoint{}, nil, witnessRefusal(err)
	}
	if next, leaving := Leaving(g.Checkpoint, log); leaving {
		return Checkpoint{}, nil, trust.Refuse("key-replaced", c.Origin, "it goes on with %s; %s signs beside that for the last time", next, log.ID()).
			WithHint("give --root, the fingerprint of the first root, and --roots: the newest of them must name the key that comes")
	}
	logLine, err := SignatureLine(g.Checkpoint, log)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	line, err := trust.CosignText(c.Text(), key, now)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, trust.JoinNote(c.Text(), logLine, line), nil
}

// follows checks that a checkpoint follows what was seen before.
func follows(seen Checkpoint, g *Growth, c Checkpoint) error {
	if seen == (Checkpoint{}) {
		seen = Checkpoint{Origin: c.Origin, Root: EmptyRoot()}
	}
	// A smaller size, or the same one with another root, needs no proof to be refused.
	if c.Size <= seen.Size {
		return CheckConsistency(seen, c, nil)
	}
	if g.Old != seen.Size {
		return trust.Refuse("witness-stale", c.Origin, "it proves the growth from size %d, this witness has cosigned size %d last", g.Old, seen.Size).
			WithHint("ask for another file: 'ledger witness export --from' with the size that this witness has")
	}
	return g.Check(seen, c)
}
