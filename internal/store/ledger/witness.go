package ledger

import (
	"fmt"
	"io/fs"
	"time"

	"sallyport/internal/trust"
)

// Cosign is all that a witness does. seen is what it cosigned last of this log
// (the zero Checkpoint if nothing), msg the checkpoint that the log shows now,
// files its published directory. It returns the new checkpoint, which the
// caller must keep durably before he hands out the cosigned note, the second
// result: the checkpoint's text, the log's signature, the witness's.
//
// It refuses a smaller size (witness-rollback), the same size with another
// root and a larger one that does not contain the former (witness-fork). The
// consistency proof is computed from the tiles, all of them proven to belong
// to msg.
func Cosign(seen Checkpoint, msg []byte, log trust.VKey, files fs.FS, key trust.Signer, now time.Time) (Checkpoint, []byte, error) {
	c, err := OpenCheckpoint(msg, log.Name, log)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if seen != (Checkpoint{}) {
		if err := NewLog(files, c).Contains(seen); err != nil {
			return Checkpoint{}, nil, witnessRefusal(err)
		}
	}
	logLine, err := SignatureLine(msg, log)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	line, err := trust.CosignText(c.Text(), key, now)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, trust.JoinNote(c.Text(), logLine, line), nil
}

// witnessRefusal gives the log's faults the names that they have for a witness.
func witnessRefusal(err error) error {
	rs, ok := trust.AsRefusals(err)
	if !ok {
		return err
	}
	out := make(trust.Refusals, len(rs))
	for i, r := range rs {
		w := *r
		switch r.Code {
		case "ledger-rollback":
			w.Code = "witness-rollback"
		case "ledger-fork":
			w.Code = "witness-fork"
		}
		out[i] = &w
	}
	return out
}

// Merge decides about a cosigned checkpoint that came back from a witness: it
// must be of this log, which must contain it, and not older than the one that
// is held (nil: none). It returns the note that is to be held from now on: the
// text, the log's line and this witness's, nothing else that came with it.
//
// Each has the key of the log beside it that signed it: the log may have got another in between.
func Merge(held []byte, heldBy trust.VKey, cosigned []byte, logKey trust.VKey, log *Log, witness trust.VKey) (Checkpoint, []byte, error) {
	origin := log.Checkpoint().Origin
	c, _, err := OpenCosigned(cosigned, origin, logKey, witness)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if err := log.Contains(c); err != nil {
		return Checkpoint{}, nil, err
	}
	if held != nil {
		was, _, err := OpenCosigned(held, origin, heldBy, witness)
		if err != nil {
			return Checkpoint{}, nil, fmt.Errorf("the cosignature that is held: %w", err)
		}
		if was.Size > c.Size {
			return Checkpoint{}, nil, trust.Refuse("witness-old", witness.Name, "it has cosigned size %d before, this is %d", was.Size, c.Size)
		}
	}
	logLine, err := SignatureLine(cosigned, logKey)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	line, err := SignatureLine(cosigned, witness)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	return c, trust.JoinNote(c.Text(), logLine, line), nil
}
