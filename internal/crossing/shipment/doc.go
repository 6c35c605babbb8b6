// Package shipment is the format in which software crosses the gap: the volume, its manifest and the slip that travels
// another way. docs/spec/shipment.md is the format, byte for byte; this package writes it, and judges what claims to be it.
//
// # Vocabulary
//
// A shipment is one signed, numbered delivery from one outside to one enclave. Its volume is a directory: the manifest, one file an item, sums
// that coreutils can check and minisign signatures of them. The manifest is a signed note that says what is offered; what is allowed
// is the allowlist's business (package trust). The slip is the manifest's digest on paper.
//
// # Writing
//
//	m := &shipment.Manifest{Enclave: "demo", Number: 1, Date: now, Items: items}
//	note, err := m.Sign(collectorKey)
//	err = shipment.Write(ctx, dir, note, open, sumsKey)
//	slip := shipment.NewSlip(m, note)
//
// # Judging
//
// [Verify] reads a volume once, front to back, hashing everything as it passes, hands each item's bytes to a [Sink], and lists
// everything that is wrong. Nothing is parsed before it is authenticated: the manifest's bytes must have the slip's digest before its signature is looked
// at, and a collector's signature before its lines are; the sums are never parsed at all but printed anew from what was read, and compared.
//
// # Bounds
//
// [MaxManifest], [MaxItems], [MaxItem], [MaxFiles]. Memory does not grow with the size of items.
package shipment
