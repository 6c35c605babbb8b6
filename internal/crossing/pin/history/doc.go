// Package history knows which pins the tracks of an enclave have, in the order in which they got them, and holds the commits behind them.
//
//	h, err := history.Of(ctx, zone, list, orders, repositories)
//	newest, ok := h.Newest("guix")
//	r, err := repositories.Open(ctx, "guix")
//
// # Which pin is the newest
//
// A track's allowlist only grows, but for what is recalled: it has every pin that the track ever had. The newest is the one that came last: which items a version
// of the list has added is seen from the version before, whose digest it names, and so on back to the first. Of several that one version adds it is the one that
// descends from the others. A pin that is recalled is none; then it is the one before.
//
// So a track goes back in one of two ways. Officers recall the pin that it should not have had. Or they order a downgrade, and a pin of an earlier commit, or of one
// beside, is brought, approved, and has come last.
//
// # Repositories
//
// ZONE/channels/NAME.git has the objects of all channel items of the zone whose shipment was not rejected, from their bundles. It is a cache: what is missing is
// unpacked again from the cas. Nothing is believed because it lies there. An object is what its id says, and the ids come from pins, whose items have their digest in
// signed documents; package guix/channel/git hashes what it reads.
//
// Each item brings a pack. When there are more than MaxPacks, git puts the small ones together, in its cage and under the lock of the repositories: see [pin.Consolidate]. The
// same is done while a repository is made anew and, in the gate, with what one shipment brings. The new pack is there before the old ones go, so who is killed leaves all
// objects in place; who reads meanwhile lists again when a pack that was listed is gone. If the packs cannot be put together because one is damaged, the repository is made
// anew.
package history
