// Package openpgp verifies OpenPGP signatures as Guix does: detached signatures of binary data, against a keyring of which nothing is believed but the
// keys themselves.
//
// It is not an OpenPGP implementation. It reads what guix/openpgp.scm of Guix 1.5.0 reads (RFC 4880, and EdDSA and issuer fingerprints from its
// later drafts) and refuses what that refuses, since what is in question is Guix's verdict. Like Guix it takes of a signature its first packet,
// looks the key up by the fingerprint that the signature names or else by its key id, and asks neither whether the key may sign, nor whether it has
// expired or was revoked, nor who bound a subkey to it. Beyond Guix, [Key.Status] does evaluate what the owner says of his key's expiry and
// revocation, from self-signatures that are verified, for those who want to know.
//
//	ring := openpgp.NewKeyring()
//	err := ring.Add("alice.key", data)              // binary or armoured
//	sig, err := openpgp.ParseArmoredSignature(text)
//	key := ring.Issuer(sig)                         // nil: missing
//	err = key.Verify(sig, [][]byte{data})
//
// # What is accepted
//
//	keys         version 4: RSA (algorithm 1, 1024 bits and more), DSA, EdDSA on Ed25519; others are listed and of no use
//	signatures   version 3 and 4, type 0x00
//	hashes       SHA-1, RIPEMD-160, SHA-2; MD5 is named and never verified
//	armour       any label, headers, the checksum of RFC 4880 required
//	packets      old and new lengths, to the end of the data too; no partial lengths
//	numbers      R and S of EdDSA with 32 bytes, or 31 that lost a zero
//
// A keyring file with anything that Guix cannot read makes Guix refuse the whole keyring, so [Keyring.Add] does: packets of other kinds than keys,
// user ids, attributes, signatures and trust; user ids that are not UTF-8; unknown critical subpackets; preferred hashes without a known number.
//
// Stricter than Guix, which reads on where a packet or a number ends early: that is refused.
//
// # Arithmetic
//
// Ed25519 is crypto/ed25519. RSA and DSA verification are done here with math/big, on public values alone, because half of Guix's 67,793 commits
// are signed with RSA keys of 4096 bits and 2,021 with DSA: crypto/rsa computes anew for each signature what belongs to the key, and crypto/dsa has
// no memory of its bases. RSA padding is made and compared, never parsed. Tests hold both against the library.
package openpgp
