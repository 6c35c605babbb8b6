// Package signed verifies the signatures of tags and commits in repositories that are no Guix channels: of OpenPGP, by keys whose fingerprints somebody
// names, and of SSH, by a file of allowed signers (ssh-keygen(1)). It is what an upstream's release is checked with.
//
//	by := signed.By{Keyring: ring, Fingerprints: prints}       // or Allowed: signers, Principal: "alice@example.org"
//	result, err := signed.Verify(repository, "v1.2", by, now)
//
// The repository is data, as for package authenticate; no git, gpg or ssh-keygen is run. Nothing is believed of a keyring but its keys, and of these only
// those that are named. All that is wrong with an object is refused at once (trust.Refusals).
//
// # A tag
//
// A name that is a tag must lead to a tag object that is signed and that has this very name: who serves a repository could otherwise give an old release for a
// new one, as whoever moves refs/tags/v2 to the object of v1 does. A lightweight tag is refused, since nobody signed its name. What the tag leads to must
// be there, and be of the kind that it says.
//
// # Strictness
//
// Where git would look at one thing and a person at another, the object is refused: two signatures in one tag, text after a signature, a commit with a
// zero byte, with headers twice, or with a signature that is not where one belongs. Stricter than git with gpg or ssh-keygen, too: SHA-1 and shorter
// hashes, RSA keys below 2048 bits, subkeys that are not for signing, and of a file of allowed signers every line must be well formed. Laxer in one thing:
// gpg refuses what a key that has expired since once signed. Here a signature has to be made before its key's expiry, as it says itself, and that the key
// has expired since is told as a note; else no old release could be verified.
//
// # Not here
//
// Certificates of SSH (a line with cert-authority is refused, code allowed-signers-authority), lists of revoked SSH keys, X.509.
//
// # Codes
//
//	object-missing, object-malformed, object-collision, object-kind
//	tag-lightweight            the name is a tag's, but of no tag object
//	tag-name                   the tag object has another name
//	tag-malformed              its headers are not as git writes them, or something follows its signature
//	tag-target                 what it leads to is not there, or of another kind
//	commit-malformed           two readers could read it in two ways
//	signature-missing          it is not signed
//	signature-format           signed, but not as what was handed over could verify
//	signature-malformed        not well formed
//	signature-type             of OpenPGP, but not of a binary document
//	signature-hash             with a hash that is too weak
//	signature-bad              not of that key over this object
//	signature-date             without a date, from the future, or past its own expiry
//	signature-namespace        of SSH, but not made for git
//	key-missing                the key is not in the keyring
//	key-unlisted               the key is none of those that were named, or no allowed signer's
//	key-unusable, key-weak     it cannot be used, or is too short
//	key-purpose                its owner does not say that it is for signing, or a subkey is not bound
//	key-expired, key-revoked   when it signed
//	signer-principal, signer-namespace, signer-time    an allowed signer, but not for this
package signed
