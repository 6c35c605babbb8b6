package channeltest

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/big"
	"slices"

	"sallyport/guix/channel/git"
	"sallyport/guix/channel/openpgp"
)

// A Case is a history with the verdict it is to have.
type Case struct {
	Name string

	// Codes are those of the refusals, parents first; none for an authentic history. Findings are those of what Guix passes over.
	Codes    []string
	Findings []string

	// Stricter says why this package refuses what Guix takes; "" where both agree.
	Stricter string

	// Endless says that the real program, with libgit2 1.9, does not end on it.
	Endless bool

	build func(b *Builder) History
}

// Build makes the history.
func (c *Case) Build(w *World) History {
	b := w.builder()
	h := c.build(b)
	b.keyring()
	h.Repo = b.Repo
	if h.Introduction.IsZero() {
		h.Introduction = b.Intro
	}
	if h.Signer == (openpgp.Fingerprint{}) {
		h.Signer = w.A.Fingerprint
	}
	h.Refs["refs/heads/end"] = h.End
	return h
}

// to makes a case of which only the end is special.
func to(build func(b *Builder) git.ID) func(b *Builder) History {
	return func(b *Builder) History { return History{End: build(b)} }
}

// one makes a case of one commit after a good one, and a good one after it.
func one(spec func(b *Builder) Spec) func(b *Builder) History {
	return to(func(b *Builder) git.ID {
		s := spec(b)
		if s.Parents == nil {
			s.Parents = []git.ID{b.chain(b.Intro, b.A, 1)}
		}
		if s.Same == "" {
			s.Same = "special"
		}
		return b.chain(b.Commit(s), b.A, 1)
	})
}

// listed makes a case of one commit with another list, and a commit after it.
func listed(text string, signer func(b *Builder) *Key) func(b *Builder) History {
	return to(func(b *Builder) git.ID {
		c := b.Commit(Spec{Tree: b.Files("listed", text), Parents: []git.ID{b.Intro}, Signer: b.A})
		return b.Commit(Spec{Same: "after", Parents: []git.ID{c}, Signer: signer(b)})
	})
}

func signerA(b *Builder) *Key { return b.A }

// merge makes a case of a merge of side branches, in the order given by which: 0 is the main branch.
func merge(which []int, signer func(b *Builder) *Key, sides ...func(b *Builder) git.ID) func(b *Builder) History {
	return to(func(b *Builder) git.ID {
		tips := []git.ID{b.chain(b.Intro, b.A, 2)}
		for _, s := range sides {
			tips = append(tips, s(b))
		}
		var parents []git.ID
		for _, i := range which {
			parents = append(parents, tips[i])
		}
		return b.chain(b.Commit(Spec{Same: "merge", Parents: parents, Signer: signer(b)}), b.A, 1)
	})
}

// byCarol is a branch of one who is not in the list.
func byCarol(b *Builder) git.ID { return b.chain(b.Intro, b.C, 1) }

// byBob is a good one.
func byBob(b *Builder) git.ID { return b.chain(b.Intro, b.B, 2) }

// withoutBob is a branch that takes Bob from the list.
func withoutBob(b *Builder) git.ID {
	return b.Commit(Spec{Tree: b.Files("without", list(b.A)), Parents: []git.ID{b.Intro}, Signer: b.A})
}

// keyed makes a case of two commits by a key that is in the list: one a day after the introduction, one ten days after it.
func keyed(key func(b *Builder) *Key, form Form) func(b *Builder) History {
	return to(func(b *Builder) git.ID {
		k := key(b)
		c := b.Commit(Spec{Tree: b.Files("keyed", list(b.A, k)), Parents: []git.ID{b.Intro}, Signer: b.A})
		c = b.Commit(Spec{Tree: b.Files("early", list(b.A, k)), Parents: []git.ID{c}, Signer: k, At: begin + day/2, Form: form})
		return b.Commit(Spec{Tree: b.Files("late", list(b.A, k)), Parents: []git.ID{c}, Signer: k, At: begin + 10*day, Form: form})
	})
}

func withKeys(change func(b *Builder)) func(b *Builder) History {
	return to(func(b *Builder) git.ID {
		change(b)
		return b.chain(b.Intro, b.B, 2)
	})
}

// order of Ed25519's base point.
var ed25519Order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

func upper(id git.ID) string { return fmt.Sprintf("%X", id[:]) }

// Cases returns all cases.
func Cases() []Case {
	return []Case{
		{Name: "linear", build: to(func(b *Builder) git.ID { return b.chain(b.chain(b.Intro, b.A, 3), b.B, 2) })},
		{Name: "unsigned", Codes: []string{"commit-unsigned"}, build: one(func(b *Builder) Spec { return Spec{} })},
		{Name: "several-bad", Codes: []string{"commit-unsigned", "key-unauthorized", "signature-bad"}, build: to(func(b *Builder) git.ID {
			c := b.Commit(Spec{Same: "1", Parents: []git.ID{b.Intro}})
			c = b.chain(b.chain(c, b.C, 1), b.A, 1)
			return b.Commit(Spec{Same: "3", Parents: []git.ID{c}, Signer: b.A, Payload: func(p []byte) []byte { return append(p, 'x') }})
		})},
		{Name: "unauthorized-key", Codes: []string{"key-unauthorized"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.C} })},
		{Name: "self-added", Codes: []string{"key-unauthorized"}, build: to(func(b *Builder) git.ID {
			return b.Commit(Spec{Tree: b.Files("self", list(b.A, b.C)), Parents: []git.ID{b.Intro}, Signer: b.C})
		})},
		{Name: "added-then-signs", build: to(func(b *Builder) git.ID {
			c := b.Commit(Spec{Tree: b.Files("added", list(b.A, b.C)), Parents: []git.ID{b.Intro}, Signer: b.A})
			return b.chain(c, b.C, 1)
		})},
		{Name: "removed-then-used", Codes: []string{"key-unauthorized"}, build: to(func(b *Builder) git.ID { return b.chain(withoutBob(b), b.B, 1) })},
		{Name: "removes-itself", build: to(func(b *Builder) git.ID {
			return b.Commit(Spec{Tree: b.Files("self", list(b.A)), Parents: []git.ID{b.Intro}, Signer: b.B})
		})},
		{Name: "removed-but-on-old-branch", build: merge([]int{1, 2}, signerA, withoutBob, byBob)},
		{Name: "empty-list", Codes: []string{"key-unauthorized"}, build: listed("(authorizations (version 0) ())", signerA)},

		// Merges.
		{Name: "merge", build: merge([]int{0, 1}, signerA, byBob)},
		{Name: "launder-second-parent", Codes: []string{"key-unauthorized"}, build: merge([]int{0, 1}, signerA, byCarol)},
		{Name: "launder-first-parent", Codes: []string{"key-unauthorized"}, build: merge([]int{1, 0}, signerA, byCarol)},
		{Name: "octopus", build: merge([]int{0, 1, 2}, signerA, byBob, byBob)},
		{Name: "octopus-evil", Codes: []string{"key-unauthorized"}, build: merge([]int{0, 1, 2}, signerA, byBob, byCarol)},
		{Name: "octopus-signed-by-evil", Codes: []string{"key-unauthorized", "key-unauthorized"}, build: merge([]int{2, 1, 0}, func(b *Builder) *Key { return b.C }, byBob, byCarol)},
		{Name: "intersection-first", Codes: []string{"key-unauthorized"}, build: merge([]int{0, 1}, func(b *Builder) *Key { return b.B }, withoutBob)},
		{Name: "intersection-second", Codes: []string{"key-unauthorized"}, build: merge([]int{1, 0}, func(b *Builder) *Key { return b.B }, withoutBob)},
		{Name: "intersection-in-both", build: merge([]int{1, 0}, signerA, withoutBob)},
		{Name: "same-parent-twice", build: merge([]int{0, 0}, signerA)},
		{Name: "merge-unrelated-root", Codes: []string{"key-unauthorized", "key-unauthorized"}, build: merge([]int{0, 1}, signerA, func(b *Builder) git.ID {
			return b.Commit(Spec{Tree: b.Files("root", ""), Signer: b.A})
		})},
		{Name: "merge-unrelated-root-with-list", Codes: []string{"key-unauthorized"}, build: merge([]int{0, 1}, signerA, func(b *Builder) git.ID { return b.Commit(Spec{Same: "root", Signer: b.A}) })},
		{Name: "merge-unrelated-root-historical", Findings: []string{"not-from-introduction"}, build: func(b *Builder) History {
			h := merge([]int{0, 1}, signerA, func(b *Builder) git.ID { return b.Commit(Spec{Tree: b.Files("root", ""), Signer: b.A}) })(b)
			h.Historical = []openpgp.Fingerprint{b.A.Fingerprint}
			return h
		}},

		// The introduction.
		{Name: "introduction-signed-by-another", Codes: []string{"introduction-signer"}, build: func(b *Builder) History {
			return History{End: b.chain(b.Intro, b.A, 1), Signer: b.B.Fingerprint}
		}},
		{Name: "introduction-alone", build: to(func(b *Builder) git.ID { return b.Intro })},
		{Name: "introduction-alone-signed-by-another", Codes: []string{"introduction-signer"}, Stricter: "Guix does not look at the introduction when there is nothing after it", build: func(b *Builder) History {
			return History{End: b.Intro, Signer: b.C.Fingerprint}
		}},
		{Name: "introduction-moved", Codes: []string{"not-descendant"}, build: to(func(b *Builder) git.ID {
			// A whole channel of the attacker's, with the list he likes.
			fake := b.Commit(Spec{Tree: b.Files("fake", list(b.A, b.C)), Signer: b.C})
			return b.chain(fake, b.C, 2)
		})},
		{Name: "introduction-moved-and-merged", Codes: []string{"key-unauthorized", "key-unauthorized"}, build: merge([]int{0, 1}, func(b *Builder) *Key { return b.C }, func(b *Builder) git.ID {
			fake := b.Commit(Spec{Tree: b.Files("fake", list(b.A, b.C)), Signer: b.C})
			return b.chain(fake, b.C, 1)
		})},
		{Name: "introduction-missing", Codes: []string{"introduction-missing"}, build: func(b *Builder) History {
			return History{End: b.chain(b.Intro, b.A, 1), Introduction: git.Hash(git.KindBlob, []byte("nowhere"))}
		}},
		{Name: "introduction-unsigned", Codes: []string{"commit-unsigned"}, build: func(b *Builder) History {
			intro := b.Commit(Spec{Same: "unsigned"})
			return History{Introduction: intro, End: b.chain(intro, b.A, 1)}
		}},
		{Name: "introduction-sha1", Codes: []string{"signature-hash"}, Findings: []string{"weak-hash"}, build: func(b *Builder) History {
			intro := b.Commit(Spec{Tree: b.Files("sha1", ""), Signer: b.R, Form: Form{Hash: SHA1}})
			return History{Introduction: intro, Signer: b.R.Fingerprint, End: b.Commit(Spec{Same: "x", Parents: []git.ID{intro}, Signer: b.R}), Historical: []openpgp.Fingerprint{b.R.Fingerprint}}
		}},
		{Name: "end-is-ancestor", Findings: []string{"before-introduction"}, build: func(b *Builder) History {
			intro := b.Commit(Spec{Same: "later", Parents: []git.ID{b.Intro}, Signer: b.A})
			return History{Introduction: intro, End: b.Intro}
		}},
		{Name: "end-is-no-descendant", Codes: []string{"not-descendant"}, build: func(b *Builder) History {
			root := b.Commit(Spec{Same: "root", Signer: b.A})
			intro := b.Commit(Spec{Same: "intro", Parents: []git.ID{root}, Signer: b.A})
			return History{Introduction: intro, End: b.chain(root, b.A, 2)}
		}},
		{Name: "branch-from-before", Findings: []string{"not-from-introduction", "not-from-introduction"}, build: func(b *Builder) History {
			root := b.Commit(Spec{Same: "root", Signer: b.A})
			intro := b.Commit(Spec{Same: "intro", Parents: []git.ID{root}, Signer: b.A})
			return History{Introduction: intro, End: b.Commit(Spec{Same: "merge", Parents: []git.ID{b.chain(intro, b.A, 1), b.chain(root, b.A, 2)}, Signer: b.A})}
		}},

		// The keyring.
		{Name: "keyring-substituted", Codes: []string{"key-missing", "key-missing", "key-missing"}, build: withKeys(func(b *Builder) {
			// Carol's keys under the names of Alice and Bob.
			b.keys = map[string][]byte{"alice.key": b.files["carol.key"], "bob.key": b.files["carol.key"]}
		})},
		{Name: "keyring-with-more", build: withKeys(func(b *Builder) {
			b.keys["more.key"] = slices.Concat(b.C.File(Certificate{}), b.Sub.File(Certificate{}))
		})},
		{Name: "keyring-in-one-file", build: withKeys(func(b *Builder) {
			b.keys = map[string][]byte{"all.key": slices.Concat(b.A.File(Certificate{}), b.B.File(Certificate{}))}
		})},
		{Name: "keyring-in-a-directory", build: withKeys(func(b *Builder) {
			b.keys = map[string][]byte{"alice.key": b.files["alice.key"], "more/bob.key": b.files["bob.key"]}
		})},
		{Name: "keyring-other-suffix", Codes: []string{"key-missing", "key-missing"}, build: withKeys(func(b *Builder) {
			b.keys = map[string][]byte{"alice.key": b.files["alice.key"], "bob.asc": b.files["bob.key"]}
		})},
		{Name: "key-missing", Codes: []string{"key-missing", "key-missing"}, build: withKeys(func(b *Builder) { delete(b.keys, "bob.key") })},
		{Name: "keyring-garbage", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) { b.keys["x.key"] = []byte("no key\n") })},
		{Name: "keyring-truncated", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) { b.keys["x.key"] = b.files["alice.key"][:300] })},
		{Name: "keyring-checksum", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) {
			b.keys["x.key"] = bytes.Replace(b.files["carol.key"], []byte("\n="), []byte("\n=A"), 1)
		})},
		{Name: "keyring-secret-packet", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) {
			b.keys["x.key"] = append(b.C.File(Certificate{}), Packet(5, b.C.body)...)
		})},
		{Name: "keyring-user-id-latin1", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) {
			b.keys["x.key"] = b.C.File(Certificate{Extra: Packet(13, []byte("J\xfcrgen"))})
		})},
		{Name: "keyring-preferred-hash", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) {
			b.keys["x.key"] = b.C.File(Certificate{SelfHashed: Subpacket(21, []byte{SHA256, 12})})
		})},
		{Name: "keyring-critical-subpacket", Codes: []string{"keyring-malformed"}, build: withKeys(func(b *Builder) {
			b.keys["x.key"] = b.C.File(Certificate{SelfHashed: Subpacket(0x80|99, []byte{1})})
		})},
		{Name: "keyring-empty-file", build: withKeys(func(b *Builder) { b.keys["x.key"] = nil })},
		{Name: "keyring-key-of-version-5", build: withKeys(func(b *Builder) {
			body := append([]byte(nil), b.C.body...)
			body[0] = 5
			b.keys["x.key"] = slices.Concat(Packet(6, body), Packet(13, []byte("five")), b.C.File(Certificate{}))
		})},
		{Name: "keyring-user-attribute", build: withKeys(func(b *Builder) {
			b.keys["x.key"] = b.C.File(Certificate{Extra: slices.Concat(Packet(17, []byte("jpeg")), Packet(12, []byte("trust")))})
		})},

		// Keys.
		{Name: "key-expires", Findings: []string{"signed-after-expiry"}, build: keyed(func(b *Builder) *Key { return b.Expired }, Form{})},
		{Name: "key-compromised", Findings: []string{"signed-after-revocation", "signed-after-revocation"}, build: keyed(func(b *Builder) *Key { return b.Hard }, Form{})},
		{Name: "key-retired", Findings: []string{"signed-after-revocation"}, build: keyed(func(b *Builder) *Key { return b.Soft }, Form{})},
		{Name: "subkey-listed", build: keyed(func(b *Builder) *Key { return b.SubKey }, Form{})},
		{Name: "subkey-of-listed", Codes: []string{"key-unauthorized"}, build: to(func(b *Builder) git.ID {
			c := b.Commit(Spec{Tree: b.Files("primary", list(b.A, b.Sub)), Parents: []git.ID{b.Intro}, Signer: b.A})
			return b.chain(c, b.SubKey, 1)
		})},
		{Name: "key-rsa", build: keyed(func(b *Builder) *Key { return b.R }, Form{Hash: SHA512})},
		{Name: "key-dsa", Findings: []string{"weak-key", "weak-key"}, build: keyed(func(b *Builder) *Key { return b.D }, Form{})},
		{Name: "key-ecdsa", Codes: []string{"key-unusable", "key-unusable"}, build: keyed(func(b *Builder) *Key { return b.E }, Form{})},
		{Name: "signed-before-key", Findings: []string{"signed-before-key"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{Created: keyTime - day}} })},

		// Signatures.
		{Name: "sha1-with-list", Codes: []string{"signature-hash"}, Findings: []string{}, build: one(func(b *Builder) Spec { return Spec{Signer: b.R, Form: Form{Hash: SHA1}} })},
		{Name: "sha1-without-list", Findings: []string{"authorizations-removal", "weak-hash"}, build: to(func(b *Builder) git.ID {
			return b.Commit(Spec{Tree: b.Files("gone", ""), Parents: []git.ID{b.Intro}, Signer: b.R, Form: Form{Hash: SHA1}})
		})},
		{Name: "md5", Codes: []string{"signature-hash"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.R, Form: Form{Hash: MD5}} })},
		{Name: "rmd160", Findings: []string{"weak-hash"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.R, Form: Form{Hash: RMD160}} })},
		{Name: "over-other-bytes", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Payload: func(p []byte) []byte { return bytes.Replace(p, []byte("message"), []byte("massage"), 1) }}
		})},
		{Name: "of-another-commit", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Payload: func(p []byte) []byte { return bytes.Replace(p, []byte("parent "), []byte("parent 0"), 1) }}
		})},
		{Name: "text-mode", Codes: []string{"signature-text"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{Type: 1}} })},
		{Name: "standalone", Codes: []string{"signature-text"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{Type: 2}} })},
		{Name: "version-3", Findings: []string{"old-signature-version"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{Version: 3}} })},
		{Name: "version-5", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{Version: 5}} })},
		{Name: "key-id-alone", build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{NoPrint: true}} })},
		{Name: "fingerprint-alone", build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{NoID: true}} })},
		{Name: "no-issuer", Codes: []string{"key-missing"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{NoID: true, NoPrint: true}} })},
		{Name: "issuers-differ", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{WrongID: true}} })},
		{Name: "undated", Findings: []string{"signature-undated"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{NoCreation: true}} })},
		{Name: "critical-subpacket", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Form: Form{Hashed: Subpacket(0x80|100, []byte{1})}} })},
		{Name: "unknown-subpacket", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Form: Form{Hashed: Subpacket(100, []byte{1}), Unhashed: Subpacket(101, nil)}}
		})},
		{Name: "notation", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Form: Form{Hashed: Subpacket(20, append([]byte{0x80, 0, 0, 0, 0, 1, 0, 1}, "nv"...))}}
		})},
		{Name: "two-packets", Findings: []string{"several-signatures"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Packets: func(p []byte) []byte { return append(p, b.C.Signature(Form{}, []byte("other"))...) }}
		})},
		{Name: "two-packets-evil-first", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Packets: func(p []byte) []byte { return append(b.B.Signature(Form{}, []byte("other")), p...) }}
		})},
		{Name: "other-packet-first", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Packets: func(p []byte) []byte { return append(Packet(13, []byte("user")), p...) }}
		})},
		{Name: "packet-truncated", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Packets: func(p []byte) []byte { return p[:len(p)-40] }}
		})},
		{Name: "old-packet-format", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Packets: func(p []byte) []byte { return append([]byte{0x89, p[4], p[5]}, p[6:]...) }}
		})},
		{Name: "indeterminate-length", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Packets: func(p []byte) []byte { return append([]byte{0x8b}, p[6:]...) }}
		})},
		{Name: "no-checksum", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte {
				i := bytes.Index(a, []byte("\n="))
				return append(a[:i+1:i+1], a[i+7:]...)
			}}
		})},
		{Name: "wrong-checksum", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte {
				i := bytes.Index(a, []byte("\n=")) + 2
				a[i] ^= 1
				return a
			}}
		})},
		{Name: "armor-headers", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte {
				return bytes.Replace(a, []byte("-----\n\n"), []byte("-----\nVersion: GnuPG v2\nComment: one: two\n \t\n"), 1)
			}}
		})},
		{Name: "armor-label", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte { return bytes.ReplaceAll(a, []byte("SIGNATURE"), []byte("MESSAGE")) }}
		})},
		{Name: "armor-space-around-lines", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte { return bytes.ReplaceAll(a, []byte("\n"), []byte(" \n\t")) }}
		})},
		{Name: "ssh-signature", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte {
				return fmt.Appendf(nil, "-----BEGIN SSH SIGNATURE-----\n%s\n-----END SSH SIGNATURE-----\n", base64.StdEncoding.EncodeToString([]byte("SSHSIG and so on")))
			}}
		})},
		{Name: "ed25519-larger-s", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			// S plus the order of the group: another signature that only a lax verifier takes.
			return Spec{Signer: b.A, Form: Form{Numbers: func(n [][]byte) [][]byte {
				s := slices.Clone(n[1])
				slices.Reverse(s)
				s = new(big.Int).Add(new(big.Int).SetBytes(s), ed25519Order).FillBytes(make([]byte, 32))
				slices.Reverse(s)
				return [][]byte{n[0], s}
			}}}
		})},
		{Name: "rsa-larger-s", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.R, Form: Form{Numbers: func(n [][]byte) [][]byte { return [][]byte{append([]byte{1}, n[0]...)} }}}
		})},

		// Headers.
		{Name: "mergetag-and-encoding", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Headers: "encoding UTF-8\nmergetag object 0123\n type commit\n \n folded\n"}
		})},
		{Name: "folded-nonsense", Codes: []string{"signature-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte { return append(a, "\nand more lines\n"...)[10:] }}
		})},
		{Name: "folded-after-end", build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Armor: func(a []byte) []byte { return append(a, "\nlines after the end\n"...) }}
		})},
		{Name: "two-signatures-good-first", Findings: []string{"several-signatures"}, build: one(func(b *Builder) Spec {
			evil := Header("gpgsig", Armor("SIGNATURE", b.C.Signature(Form{}, []byte("x"))))
			return Spec{Signer: b.A, Payload: func(p []byte) []byte {
				return bytes.Replace(p, []byte("\n\n"), append([]byte("\n"), append(evil, '\n')...), 1)
			},
				Place: func(head, gpgsig, body []byte) []byte { return slices.Concat(head, gpgsig, evil, body) }}
		})},
		{Name: "two-signatures-evil-first", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			evil := Header("gpgsig", Armor("SIGNATURE", b.B.Signature(Form{}, []byte("x"))))
			return Spec{Signer: b.A, Place: func(head, gpgsig, body []byte) []byte { return slices.Concat(head, evil, gpgsig, body) }}
		})},
		{Name: "signature-in-message", Findings: []string{"several-signatures"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Place: func(head, gpgsig, body []byte) []byte { return slices.Concat(head, body[:1], gpgsig, body[1:]) }}
		})},
		{Name: "gpgsig-sha256-before", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec {
			other := Header("gpgsig-sha256", Armor("SIGNATURE", b.B.Signature(Form{}, []byte("x"))))
			return Spec{Signer: b.A, Place: func(head, gpgsig, body []byte) []byte { return slices.Concat(head, other, gpgsig, body) }}
		})},
		{Name: "gpgsig-prefix-dropped", Findings: []string{"several-signatures"}, build: one(func(b *Builder) Spec {
			// Signed is what libgit2 makes of it: the header without the word.
			return Spec{Signer: b.A, Payload: func(p []byte) []byte { return bytes.Replace(p, []byte("\n\n"), []byte("\nx y\n\n"), 1) },
				Place: func(head, gpgsig, body []byte) []byte {
					return slices.Concat(head, []byte("gpgsigx y\n"), gpgsig, body)
				}}
		})},
		{Name: "two-authors", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Author: "One <one@example.org> 1610000000 +0000\nauthor Two <two@example.org> 1610000000 +0000"}
		})},
		{Name: "two-trees", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Headers: "tree " + b.Files("evil", list(b.C)).String() + "\n"}
		})},
		{Name: "late-parent", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Headers: "parent " + b.chain(b.Intro, b.C, 1).String() + "\n"}
		})},
		{Name: "two-encodings", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Headers: "encoding UTF-8\nencoding latin-1\n"} })},
		{Name: "header-without-space", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Headers: "nonsense\n"} })},
		{Name: "no-author", Codes: []string{"not-descendant", "object-malformed"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Place: func(head, gpgsig, body []byte) []byte {
				i, j := bytes.Index(head, []byte("author")), bytes.Index(head, []byte("committer"))
				return slices.Concat(head[:i], head[j:], gpgsig, body)
			}}
		})},
		{Name: "author-without-date", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Author: "One <one@example.org>"} })},
		{Name: "parent-upper-case", Codes: []string{"not-descendant", "object-malformed"}, Stricter: "an id has one spelling; libgit2 reads two", build: to(func(b *Builder) git.ID {
			p := b.chain(b.Intro, b.A, 1)
			return b.Commit(Spec{Same: "upper", Signer: b.A, Payload: func(q []byte) []byte {
				return bytes.Replace(q, []byte("\nauthor"), []byte("\nparent "+upper(p)+"\nauthor"), 1)
			},
				Place: func(head, gpgsig, body []byte) []byte {
					return slices.Concat(bytes.Replace(head, []byte("\nauthor"), []byte("\nparent "+upper(p)+"\nauthor"), 1), gpgsig, body)
				}})
		})},
		{Name: "nul-in-message", Findings: []string{"zero-byte"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Place: func(head, gpgsig, body []byte) []byte {
				return slices.Concat(head, gpgsig, body, []byte("\x00not signed\n"))
			}}
		})},
		{Name: "nul-in-message-signed", Codes: []string{"signature-bad"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Message: "a\x00b\n"} })},
		{Name: "nul-in-header", Codes: []string{"commit-unsigned"}, build: one(func(b *Builder) Spec { return Spec{Signer: b.A, Author: "On\x00e <one@example.org> 1610000000 +0000"} })},
		{Name: "latin1-message", Codes: []string{"commit-not-utf8"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Headers: "encoding ISO-8859-1\n", Message: "J\xfcrgen\n"}
		})},
		{Name: "no-message", Findings: []string{"malformed-headers"}, build: one(func(b *Builder) Spec {
			return Spec{Signer: b.A, Headers: "x y\n", Payload: func(p []byte) []byte { return p[:bytes.Index(p, []byte("\n\n"))+1] },
				Place: func(head, gpgsig, body []byte) []byte {
					i := bytes.Index(head, []byte("x y"))
					return slices.Concat(head[:i], gpgsig, head[i:])
				}}
		})},

		// .guix-authorizations.
		{Name: "list-removed", Findings: []string{"authorizations-removal"}, build: to(func(b *Builder) git.ID {
			return b.Commit(Spec{Tree: b.Files("gone", ""), Parents: []git.ID{b.Intro}, Signer: b.A})
		})},
		{Name: "list-removed-then-commit", Codes: []string{"authorizations-removed"}, Findings: []string{"authorizations-removal"}, build: listed("", signerA)},
		{Name: "list-removed-historical", Codes: []string{"authorizations-removed"}, Findings: []string{"authorizations-removal"}, build: func(b *Builder) History {
			h := listed("", func(b *Builder) *Key { return b.C })(b)
			h.Historical = []openpgp.Fingerprint{b.C.Fingerprint}
			return h
		}},
		{Name: "list-version-1", Codes: []string{"authorizations-malformed"}, build: listed("(authorizations (version 1) ())", signerA)},
		{Name: "list-of-nothing", Codes: []string{"authorizations-malformed"}, build: listed("#t", signerA)},
		{Name: "list-empty-file", Codes: []string{"authorizations-malformed"}, build: listed("\n", signerA)},
		{Name: "list-unbalanced", Codes: []string{"authorizations-malformed"}, build: listed("(authorizations (version 0) (", signerA)},
		{Name: "list-short-fingerprint", Codes: []string{"authorizations-malformed"}, Stricter: "what is no fingerprint of a key that could sign is a mistake, or worse", build: func(b *Builder) History {
			return listed(fmt.Sprintf("(authorizations (version 0) ((\"%s\") (\"0123\")))", b.A.Fingerprint.Hex()), signerA)(b)
		}},
		{Name: "list-lax-spelling", build: func(b *Builder) History {
			return listed(fmt.Sprintf(";; -*- x -*-\n(authorizations (version 0)\n((\" %s\t\" (name \"x\") more #t)) (rest of it) 1)\n; end", b.A.Fingerprint.Hex()), signerA)(b)
		}},
		{Name: "list-and-more", Codes: []string{"authorizations-malformed"}, Stricter: "Guix reads the first datum and ignores what follows, which a person does not", build: func(b *Builder) History {
			return listed(list(b.A)+list(b.C), signerA)(b)
		}},
		{Name: "list-is-link", Codes: []string{"authorizations-malformed"}, build: withList(git.ModeSymlink, func(b *Builder) git.ID { return b.Put(git.KindBlob, []byte("file")) })},
		{Name: "list-is-directory", Codes: []string{"authorizations-malformed"}, build: withList(git.ModeTree, func(b *Builder) git.ID { return b.Files("in", "") })},
		{Name: "list-is-submodule", Codes: []string{"authorizations-malformed"}, build: withList(git.ModeSubmodule, func(b *Builder) git.ID { return b.Intro })},
		{Name: "list-is-executable", build: withList(git.ModeExecutable, func(b *Builder) git.ID { return b.Put(git.KindBlob, []byte(list(b.A))) })},
		{Name: "list-twice", Codes: []string{"object-malformed", "object-malformed"}, Stricter: "of two entries of one name each reader may take another", build: to(func(b *Builder) git.ID {
			good, evil := b.Put(git.KindBlob, []byte(list(b.A))), b.Put(git.KindBlob, []byte(list(b.A, b.C)))
			c := b.Commit(Spec{Tree: b.RawTree(Entry{git.ModeFile, ".guix-authorizations", good}, Entry{git.ModeFile, ".guix-authorizations", evil}), Parents: []git.ID{b.Intro}, Signer: b.A})
			return b.chain(c, b.A, 1)
		})},

		// Repositories.
		{Name: "truncated", Codes: []string{"object-missing", "object-missing"}, build: to(func(b *Builder) git.ID {
			side := b.chain(b.Intro, b.A, 2)
			c := b.Commit(Spec{Same: "merge", Parents: []git.ID{b.chain(b.Intro, b.A, 1), b.chain(side, b.A, 1)}, Signer: b.A})
			delete(b.Objects, side)
			return c
		})},
		{Name: "truncated-below", Codes: []string{"not-descendant", "object-missing"}, build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 2)
			end := b.chain(c, b.A, 1)
			delete(b.Objects, c)
			return end
		})},
		{Name: "truncated-list", Codes: []string{"object-missing"}, build: to(func(b *Builder) git.ID {
			text := list(b.A) + "\n; another"
			c := b.Commit(Spec{Tree: b.Files("t", text), Parents: []git.ID{b.Intro}, Signer: b.A})
			delete(b.Objects, git.Hash(git.KindBlob, []byte(text)))
			return b.chain(c, b.A, 1)
		})},
		{Name: "truncated-tree", Codes: []string{"object-missing", "object-missing"}, build: to(func(b *Builder) git.ID {
			tree := b.Files("some tree", list(b.A))
			c := b.Commit(Spec{Tree: tree, Parents: []git.ID{b.Intro}, Signer: b.A})
			delete(b.Objects, tree)
			return b.chain(c, b.A, 1)
		})},
		{Name: "shallow", Codes: []string{"not-descendant", "object-missing"}, build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 1)
			top := b.chain(c, b.A, 1)
			b.Repo.Files["shallow"] = []byte(top.String() + "\n")
			delete(b.Objects, c)
			return b.chain(top, b.A, 1)
		})},
		{Name: "shallow-below-introduction", Codes: []string{"object-missing"}, Stricter: "whether the end descends from the introduction and what lies before it is not known without the whole history", build: func(b *Builder) History {
			root := b.Commit(Spec{Same: "root", Signer: b.A})
			intro := b.Commit(Spec{Same: "intro", Parents: []git.ID{root}, Signer: b.A})
			delete(b.Objects, root)
			b.Repo.Files["shallow"] = []byte(intro.String() + "\n")
			return History{Introduction: intro, End: b.chain(intro, b.A, 1)}
		}},
		{Name: "graft-for-evil", Codes: []string{"key-unauthorized"}, Stricter: "libgit2 takes the parents that info/grafts gives instead of those that were signed", build: to(func(b *Builder) git.ID {
			// Bob is no longer in the list; the graft puts his commit beside the time when he was.
			old := b.chain(b.Intro, b.A, 1)
			evil := b.chain(b.Commit(Spec{Tree: b.Files("without", list(b.A)), Parents: []git.ID{old}, Signer: b.A}), b.B, 1)
			b.Repo.Files["info/grafts"] = []byte(evil.String() + " " + old.String() + "\n")
			return evil
		})},
		{Name: "graft-against-good", build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 2)
			b.Repo.Files["info/grafts"] = []byte(c.String() + " " + b.Intro.String() + "\n")
			return c
		})},
		{Name: "replaced-by-good", Codes: []string{"key-unauthorized"}, build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 1)
			evil, good := b.chain(c, b.C, 1), b.chain(c, b.A, 1)
			b.Refs["refs/replace/"+evil.String()] = good
			return b.chain(evil, b.A, 1)
		})},
		{Name: "replaced-by-evil", build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 1)
			evil, good := b.chain(c, b.C, 1), b.chain(c, b.A, 1)
			b.Refs["refs/replace/"+good.String()] = evil
			return b.chain(good, b.A, 1)
		})},
		{Name: "alternates", Codes: []string{"not-descendant", "object-missing"}, Stricter: "what a repository says of other places is not followed; an operator may name them", build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 2)
			end := b.chain(c, b.A, 1)
			b.Other = NewRepo()
			b.Other.Objects[c] = b.Objects[c]
			delete(b.Objects, c)
			return end
		})},
		{Name: "object-is-another", Codes: []string{"not-descendant", "object-malformed"}, build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 1)
			evil, good := b.chain(c, b.C, 1), b.chain(c, b.A, 1)
			b.Objects[evil] = b.Objects[good] // a good commit under the id of an evil one
			return b.chain(evil, b.A, 1)
		})},
		{Name: "object-is-cut", Codes: []string{"not-descendant", "object-malformed"}, Endless: true, build: to(func(b *Builder) git.ID {
			c := b.chain(b.Intro, b.A, 1)
			b.Objects[c] = b.Objects[c][:len(b.Objects[c])-20]
			return b.chain(c, b.A, 1)
		})},
		{Name: "hooks-and-config", build: to(func(b *Builder) git.ID {
			evil := []byte("#!/bin/sh\ntouch hooked\n")
			for _, hook := range []string{"pre-push", "post-merge", "post-checkout", "reference-transaction"} {
				b.Repo.Files["hooks/"+hook] = evil
			}
			b.Repo.Files["config"] = []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n\tfsmonitor = touch hooked\n\tsshCommand = touch hooked\n\thooksPath = hooks\n" +
				"[alias]\n\tcat-file = !touch hooked\n[uploadpack]\n\tpackObjectsHook = touch hooked\n")
			return b.chain(b.Intro, b.A, 1)
		})},
	}
}

// withList makes a case of a commit with a list of another kind, and a commit after it.
func withList(mode uint32, id func(b *Builder) git.ID) func(b *Builder) History {
	return to(func(b *Builder) git.ID {
		c := b.Commit(Spec{Tree: b.Tree(Entry{mode, ".guix-authorizations", id(b)}), Parents: []git.ID{b.Intro}, Signer: b.A})
		return b.Commit(Spec{Same: "after", Parents: []git.ID{c}, Signer: b.A})
	})
}
