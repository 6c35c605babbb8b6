// Package trust has the documents that say who may do what, and the keys that
// sign them: the formats of docs/spec/trust.md and the item lines of
// docs/spec/shipment.md. What people and machines say they did is in package
// statement, and whether builders agree in package quorum, below this one.
//
// # Words
//
// A person holds keys, each in one [Context]: a key that signs allowlists signs
// nothing else. The root ([Root]) is the numbered document that lists persons,
// their roles and keys, the thresholds and the policies of an enclave. The orders
// ([Orders]) are the numbered state of what its officers ordered: recalls, which
// are never taken back, and the rest. The allowlist ([Allowlist]) is the numbered
// list of what a track may use. All three are
// signed notes ([Note]): text, an empty line, a line for each signature. A
// [Floor] remembers the newest versions that a verifier has accepted, so that
// nothing older, and nothing different of the same number, is accepted again. What a track
// may use in the end is [Allowed]: the list, less what is recalled, and what officers let
// in for a while.
//
// Thresholds count seats ([Root.Seat]): distinct persons, a deputy and the principal being
// one, with distinct public keys ([VKey.Raw]). A key may have bounds; what counts is the date of what it signed.
//
// # Keys
//
// A public key ([VKey]) is of a kind ([KeyKind]), which says what its bytes are, what its signatures are, and in
// which contexts it may sign; docs/spec/keys.md has the table. Of each key and each signature there is one spelling.
// [VKey.Verify] takes any bytes. Whatever a person signs takes a [Signer]: a [Key] from a file, or what
// package agent makes of an ssh-agent's. [FromSSHKeygen] takes what was signed with ssh-keygen alone.
//
// # Text
//
// Documents are printable ASCII in lines that end in LF; fields are separated
// by one space; a number, a date, a digest has one spelling. Whatever a parser
// here accepts prints back to the same bytes. An allowlist in full:
//
//	sallyport allowlist v1
//	enclave citadel
//	track dev
//	version 1
//	date 2026-03-01T09:00:00Z
//	root 1
//	orders 0
//	previous -
//	class 3 kind=source,severity<=review 1 8d0f…51ac
//	item 2cf2…9824 5120 source 0c0…x1i-hello-2.12.tar.gz
//
//	— alice/allowlist bx0kF…
//	— bob/allowlist 7QfW2…
//
// # From bytes to trust
//
// [ParseRoot], [ParseOrders] and [ParseAllowlist] check the form of a text and nothing else.
// Trust comes only from [OpenRoot] (version 1, by the fingerprint handed over on
// paper), [Root.Next] (version n+1, by the thresholds of n and of n+1),
// [OpenChain] (all of them), and from [OpenOrders] and [OpenAllowlist], which take nothing
// but a root that was opened in one of these ways. What was opened is not to be changed; a copy of it is not opened.
//
//	pin, err := trust.ParsePin("jdtp-lzno-fleu-q2nc-ecpl-jjwz-66go-ac5o")
//	root, err := trust.OpenChain(notes, pin)
//	floor, err = floor.AcceptRoot(root)
//	orders, officers, err := trust.OpenOrders(note, root)
//	floor, err = floor.AcceptOrders(orders)
//	list, reviewers, err := trust.OpenAllowlist(note, root, orders)
//	floor, err = floor.AcceptAllowlist(list)
//	allowed := trust.Allowed{Root: root, Orders: orders, List: list, Now: now}
//	item, glass, err := allowed.ByName("0c0…x1i-hello-2.12.tar.gz")
//
// The form of a note and of its text is judged before its signatures: which keys count depends on the date in it.
//
// # Refusals
//
// What was judged and found wanting is a [Refusal] with a stable code, the
// document's word first: root-threshold, allowlist-rollback. A check that finds several faults returns them all
// as [Refusals]. Other errors are accidents or wrong use.
//
// # Bounds
//
// A root has at most [MaxRootLines] lines of body and [MaxRootSize] bytes, a
// list [MaxItems] items, [MaxClasses] classes and [MaxListSize] bytes, orders [MaxOrders] lines and
// [MaxOrdersSize] bytes, a note [MaxSignatures]
// signatures. A size is at most [MaxSize]. More is refused, never cut.
//
// The package opens no file and no socket and reads no clock.
package trust
