// Package channel judges whether the commits of a Guix channel are authentic: the verdict of `guix git authenticate`, always with the introduction, and
// all that is wrong at once.
//
// It is a judgement over objects of git that its caller hands in (package git); it opens nothing, runs nothing and knows no clock.
//
//	keyring, err := channel.ReadKeyring(db.NewReader(), commitOfTheKeyringBranch)
//	verdict, err := channel.Authenticate(ctx, db, channel.Request{
//		Introduction: intro, Signer: fingerprint, End: end, Keyring: keyring,
//	})
//	if !verdict.OK() { ... verdict.Refusals ... }
//
// # The rules
//
// As Guix 1.5.0 has them (guix/git-authenticate.scm):
//
//   - The range is the end and its ancestors, without the introduction and its ancestors. The end must be a descendant of the introduction.
//   - The introduction is signed by the key that was handed over with it, not with SHA-1. Guix asks only when it has no cache and there is something to
//     authenticate; here it is asked always.
//   - Every commit of the range is signed; the signature is OpenPGP's, of a binary document, by a key of the keyring, good over the commit without its
//     signature; not with MD5, and not with SHA-1 where the commit's own tree has .guix-authorizations.
//   - The fingerprint of the key that signed, a subkey's own if it was one, stands in .guix-authorizations of every parent. A parent without the file
//     counts as if it listed the historical keys, of which there usually are none; unless that parent removed the file, in which case its children are
//     refused. A commit without parents needs a historical key.
//
// Expiry, revocation, user ids and bindings of keys are not looked at: a keyring is unsigned and comes with the channel.
//
// # Refusals
//
// [Verdict.Refusals] lists every bad commit, parents first, with its author, the key, the rule and the file that would have had to allow it:
//
//	introduction-missing     the repository does not have it
//	introduction-signer      another key than was handed over
//	end-missing              the repository does not have the end
//	not-descendant           the end does not descend from the introduction
//	commit-unsigned          no signature
//	commit-not-utf8          what is signed is not UTF-8, over which Guix cannot verify
//	signature-malformed      not an OpenPGP signature as Guix reads them
//	signature-text           of another type than a binary document
//	signature-hash           MD5, or SHA-1 where it is not permitted
//	signature-bad            not of that key over this commit
//	key-missing              not in the keyring
//	key-unusable             of an algorithm that Guix cannot use
//	key-unauthorized         not in the list of every parent
//	authorizations-removed   a parent removed the list
//	authorizations-malformed a parent's list cannot be read
//	object-missing           the history is cut short
//	object-malformed         an object is not what its id says, or not well formed
//	object-collision         an object bears the marks of a SHA-1 collision attack (libgit2 refuses it, too)
//	keyring-malformed        (a [KeyringError]) no key of the keyring can be used
//
// # Findings
//
// [Verdict.Findings] tells what Guix passes over; [FindingCodes] lists it. They do not change the verdict: a policy may, see
// internal/judge/authenticate.
//
// # Stricter than Guix
//
// Where two readers could see two things, this package refuses and Guix does not: ids in capitals; a tree with two entries of one name, or out of
// order; data after the list in .guix-authorizations, or a fingerprint in it that is none; packets that end early. What a repository says beside its
// objects counts for nothing here, while libgit2 follows grafts, shallow boundaries and alternates. And objects before the introduction must all be
// there. Package channeltest has a case for each, held against the real program.
//
// # Proofs
//
// [Verdict.Proven] can be kept and handed to the next run, which then judges only what is new and comes to the same verdict, findings included. See
// [Proven] for what that asks of the keeper. Commits that were proven are not read again, so that objects missing or damaged among them go unnoticed.
//
// # Bounds and cost
//
// Bounds are in limits.go. Commits are read and verified by several goroutines, each once; memory is some 500 bytes a commit of the whole history.
package channel
