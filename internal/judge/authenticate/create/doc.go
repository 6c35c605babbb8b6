// Package create makes a channel: a git repository whose first commit is an introduction from which `guix git authenticate` and
// internal/judge/authenticate authenticate all that follows.
//
//	key, err := create.NewKey(random, clock(), "Alice Example <alice@enclave.example>") // or create.FindGPG(...).Key(ctx, fingerprint)
//	made, err := create.Repository(ctx, "packages", create.Options{Name: "enclave-packages", URL: url, Branch: "master", Author: author, Date: now}, key)
//
// # What is made
//
// A repository with a working tree, of ordinary git: two branches, one commit each.
//
//	BRANCH    .guix-channel, .guix-authorizations; the introduction, signed
//	keyring   the public keys, one file each; unsigned, since of a keyring nothing counts but fingerprints
//
// Its configuration names the key and has git sign every commit with it, so that the next commit is an ordinary `git commit`. The objects, references and index are
// written here, without git: what the one who creates a channel has configured, as hooks and templates, changes nothing.
//
// It is made beside its place, judged there as everybody will judge it, and moved into its place when it is whole: after a crash it is there or not.
//
// # Keys
//
// A new key is an OpenPGP key of version 4, EdDSA on Ed25519, that certifies and signs and has no subkey ([RFC 4880], and the EdDSA of its later drafts, which is
// what Guix and GnuPG read). Its secret half is a block in ASCII armour that `gpg --import` takes: encrypted with AES-256 in CFB mode under the iterated and salted SHA-256 of a
// passphrase (65,011,712 bytes of it), as GnuPG itself writes it. Guessing is slowed down, not stopped: the file belongs on the medium of the one who signs.
//
// A key that exists stays where it is: the program gpg signs, and its agent asks for the passphrase or the card. What it hands back is verified here.
//
// [RFC 4880]: https://www.rfc-editor.org/rfc/rfc4880
package create
