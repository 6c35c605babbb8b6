package trust

import "time"

// A RootKey is a `key` line of a root.
type RootKey struct {
	Context Context
	Owner   string // a person, Station, or for narinfo the track
	Key     string // a vkey, a minisign public key for sums, 64 hexadecimal digits for narinfo
}

// A RoleLine is a `role` line of a root.
type RoleLine struct {
	Role   Role
	Person string
}

// A Root says who holds which role and which keys in an enclave.
type Root struct {
	Enclave    string
	Version    int64
	Date       time.Time
	Previous   Digest
	Keys       []RootKey
	Roles      []RoleLine
	Thresholds map[string]int    // by `root` or `allowlist/TRACK`
	Policies   map[string]string // by name

	opened bool // by its digest or by the thresholds of another opened root
}
