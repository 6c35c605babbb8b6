// Package authenticate judges the commits of a channel's repository on disk, on either side of the gap: it has the access to git beside the
// judgement, which is guix/channel.
//
//	r, err := authenticate.Open(dir, authenticate.Options{})
//	defer r.Close()
//	report, err := r.Authenticate(ctx, authenticate.Request{Introduction: intro, Signer: fingerprint, End: "master", Cache: cache})
//	ruling, err := policy.Rule(report.Verdict, now)
//	refused := r.Refused(report.Verdict, ruling)
//
// # A repository is data
//
// The repository comes from outside and may have been made to do harm to whoever looks at it. So no git is run on it: objects are read by
// guix/channel/git, from packs and loose files that are opened below the repository's directory and never outside of it (os.Root), if they are
// regular files. Its configuration, hooks, attributes, alternates, grafts, replacements, shallow boundary, commit graphs, multi-pack indexes and
// promisors are not opened at all. A .git that is a file or a symbolic link is refused, and so are linked working trees: they lead elsewhere. Of
// references only names and ids are read, from loose files and packed-refs; a reftable is refused.
//
// Each object is hashed when it is read and its form is held to what git's fsck demands, so there is no state between "fetched" and "checked" in which
// something could be believed. [Repository.Check] does the same for everything that a checkout of a commit holds.
//
// Nothing is ever written into the repository.
//
// # Proofs
//
// See [Cache].
//
// # Findings
//
// What Guix passes over is in the report and refuses nothing by itself; [Policy] says what it refuses: anything about commits newer than the
// enclave's first pin, and the codes it raises. An excuse has a name, a reason, someone who answers for it and a date of expiry at most [MaxExcuse] away, and
// is told in every ruling in which it is used.
package authenticate
