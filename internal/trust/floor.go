package trust

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
)

// maxFloor bounds the JSON of a floor.
const maxFloor = 1 << 20

// A Floor is the newest a verifier has accepted. It lives outside the documents it
// guards, so that no rotation of keys can bring an old version back. A
// Floor is a value: accepting returns a new one, which the caller makes durable
// before it acts on what was accepted.
type Floor struct {
	RootVersion int64                     `json:"root_version"` // 0: none yet
	RootDigest  Digest                    `json:"root_digest"`
	Allowlists  map[string]AllowlistFloor `json:"allowlists"` // by track
}

// An AllowlistFloor is the newest allowlist accepted for a track.
type AllowlistFloor struct {
	Version int64  `json:"version"`
	Digest  Digest `json:"digest"`
}

// checkFloor refuses what is older than the floor, or other with the same number.
func checkFloor(doc, subject string, version, floor int64, digest, known Digest) *Refusal {
	switch {
	case version < floor:
		return Refuse(doc+"-rollback", subject, "version %d has been accepted already", floor)
	case version == floor && digest != known:
		return Refuse(doc+"-equivocation", subject, "two of this version are signed: %s and %s", known, digest).
			WithHint("this is an alarm: the same number was signed with two different contents")
	}
	return nil
}

// AcceptRoot returns the floor with r accepted. The root must have been opened.
func (f Floor) AcceptRoot(r *Root) (Floor, error) {
	if !r.opened {
		return f, ErrNotOpened
	}
	digest := r.Digest()
	if err := checkFloor("root", fmt.Sprintf("root version %d", r.Version), r.Version, f.RootVersion, digest, f.RootDigest); err != nil {
		return f, err
	}
	f.RootVersion, f.RootDigest = r.Version, digest
	f.Allowlists = maps.Clone(f.Allowlists)
	return f, nil
}

// AcceptAllowlist returns the floor with a accepted. The allowlist must have been
// opened. A gap is allowed: a verifier need not have seen every version.
func (f Floor) AcceptAllowlist(a *Allowlist) (Floor, error) {
	if !a.opened {
		return f, fmt.Errorf("trust: the allowlist was parsed but not opened; only OpenAllowlist gives one that counts")
	}
	have := f.Allowlists[a.Track]
	if err := checkFloor("allowlist", a.Subject(), a.Version, have.Version, a.Digest(), have.Digest); err != nil {
		return f, err
	}
	lists := maps.Clone(f.Allowlists)
	if lists == nil {
		lists = make(map[string]AllowlistFloor)
	}
	lists[a.Track] = AllowlistFloor{a.Version, a.Digest()}
	f.Allowlists = lists
	return f, nil
}

// Marshal prints the floor as JSON, in one spelling.
func (f Floor) Marshal() ([]byte, error) {
	if f.Allowlists == nil {
		f.Allowlists = map[string]AllowlistFloor{}
	}
	b, err := json.Marshal(f)
	return append(b, '\n'), err
}

// ParseFloor parses what [Floor.Marshal] prints, and nothing else: a floor that was
// damaged must not read as a lower one.
func ParseFloor(b []byte) (Floor, error) {
	if len(b) > maxFloor {
		return Floor{}, fmt.Errorf("floor of %d bytes, more than %d", len(b), maxFloor)
	}
	var f Floor
	if err := json.Unmarshal(b, &f); err != nil {
		return Floor{}, fmt.Errorf("floor: %w", err)
	}
	if again, err := f.Marshal(); err != nil || !bytes.Equal(again, b) {
		return Floor{}, fmt.Errorf("floor: not in its one spelling")
	}
	if f.RootVersion < 0 || (f.RootVersion == 0) != f.RootDigest.IsZero() {
		return Floor{}, fmt.Errorf("floor: root version %d with digest %s", f.RootVersion, f.RootDigest)
	}
	for track, a := range f.Allowlists {
		if CheckWord(track) != nil || a.Version < 1 || a.Digest.IsZero() {
			return Floor{}, fmt.Errorf("floor: track %q version %d with digest %s", track, a.Version, a.Digest)
		}
	}
	return f, nil
}
