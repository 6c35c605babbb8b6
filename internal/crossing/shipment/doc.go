// Package shipment is the format in which software crosses the gap: the volume, its manifest and the slip that travels
// another way. docs/spec/shipment.md is the format, byte for byte; this package writes it, and judges what claims to be it.
//
// # Vocabulary
//
// A shipment is one signed, numbered delivery from one outside to one enclave. Its volume is a directory: the manifest, one file for each
// content, sums that coreutils can check and minisign signatures of them. The manifest is a signed note that says what is offered; what is
// allowed is the allowlist's business (package trust). The slip is the manifest's digest on paper.
//
//	sallyport manifest v1
//	enclave demo
//	shipment 2
//	date 2026-03-02T09:00:00Z
//	previous 5c9e…
//	recent 1 2026-03-01T09:00:00Z
//	item 2cf2…9824 5120 source 0c0…x1i-hello-2.12.tar.gz
//
//	— carol/manifest bx0kF…
//
// # Writing
//
// [Manifest.Sign] makes the manifest file, [Write] the volume around it, [NewSlip] the slip. A volume has its name only when it is whole
// and durable: whatever kills a run, the next one begins again.
//
// # Judging
//
// [Verify] reads every file of a volume once, hashes it as it passes, hands each item's bytes to a [Sink], and lists everything that is wrong.
// (Only an item that is named twice is read twice, if there is a sink.) Nothing is parsed before it is authenticated: the manifest must have the
// slip's digest before its signature is looked at, and a collector's signature before its lines are. No path is ever taken from the
// volume: which files there must be follows from the manifest, and the lines of the sums are only compared with that.
//
// A fault is named once, where it shows first. An item whose content is not the manifest's is refused as item-digest, and its lines in the
// sums, which then cannot agree with it either, are not held against it again.
//
// # Bounds
//
// [MaxManifest], [MaxNumber], [MaxRecent], [MaxFiles], [MaxReadme], [MaxSlip], and those of package trust on items. Memory does not grow with the size of
// items, only with their number; no file is read further than what it may have.
package shipment
