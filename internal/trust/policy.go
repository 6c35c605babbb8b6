package trust

import (
	"fmt"
	"strings"
)

// Names of policies, and their bounds. A policy that is not here is refused: a verifier cannot keep a rule that it does not know.
const (
	PolicyQuorum     = "quorum"      // how many builders must agree on an output; demanded
	PolicyMLDSA      = "mldsa"       // how many collectors must sign a manifest with ML-DSA-87 keys, beside the others
	PolicySilence    = "silence"     // after how many days without a shipment somebody is told
	PolicyBreakGlass = "break-glass" // for how many hours an item may be used without its reviewers; absent: never
	PolicyCosigned   = "cosigned-"   // and a track: how many witnesses must have cosigned its approvals
	PolicyManifest   = "manifest"    // the format of manifests

	MaxQuorum      = 16
	MaxMLDSA       = 16
	MaxSilence     = 3650 // days
	MaxBreakGlass  = 168  // hours
	ManifestFormat = 1    // the only format of manifests there is
)

// policyRange returns the bounds of a policy's value; ok is false for a policy that is not known.
func policyRange(name string) (low, high int64, ok bool) {
	switch name {
	case PolicyQuorum:
		return 1, MaxQuorum, true
	case PolicyMLDSA:
		return 0, MaxMLDSA, true
	case PolicySilence:
		return 1, MaxSilence, true
	case PolicyBreakGlass:
		return 1, MaxBreakGlass, true
	case PolicyManifest:
		return ManifestFormat, ManifestFormat, true
	}
	if track, ok := strings.CutPrefix(name, PolicyCosigned); ok && CheckWord(track) == nil {
		return 1, MaxSignatures, true
	}
	return 0, 0, false
}

// checkPolicy checks one policy by itself.
func checkPolicy(name, value string) error {
	low, high, ok := policyRange(name)
	if !ok {
		return fmt.Errorf("policy %.60q is not known: a rule that is not known cannot be kept", name)
	}
	if n, err := ParseNumber(value, high); err != nil || n < low {
		return fmt.Errorf("policy %s is %.40q; want %d to %d", name, value, low, high)
	}
	return nil
}

// number returns the value of a policy, 0 if the root does not have it or it is out of bounds.
func (r *Root) number(name string) int {
	value, ok := r.Policies[name]
	if !ok || checkPolicy(name, value) != nil {
		return 0
	}
	n, err := ParseNumber(value, MaxSize)
	if err != nil {
		return 0
	}
	return int(n)
}

// Policy returns the value of a policy.
func (r *Root) Policy(name string) (value string, ok bool) {
	value, ok = r.Policies[name]
	return value, ok
}

// Quorum returns how many builders must agree, 0 if the root does not say.
func (r *Root) Quorum() int { return r.number(PolicyQuorum) }

// MLDSA returns how many collectors must sign a manifest with ML-DSA-87 keys too.
func (r *Root) MLDSA() int { return r.number(PolicyMLDSA) }

// Silence returns after how many days without a shipment somebody is to be told; ok is false if never.
func (r *Root) Silence() (days int, ok bool) {
	days = r.number(PolicySilence)
	return days, days > 0
}

// BreakGlass returns for how many hours officers may let an item in without its reviewers; ok is false if never.
func (r *Root) BreakGlass() (hours int, ok bool) {
	hours = r.number(PolicyBreakGlass)
	return hours, hours > 0
}

// Cosigned returns how many witnesses' cosigned checkpoints must cover the approvals of a track before its signer signs.
func (r *Root) Cosigned(track string) int { return r.number(PolicyCosigned + track) }
