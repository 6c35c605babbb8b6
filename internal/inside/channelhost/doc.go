// Package channelhost serves the channels of one track to unmodified Guix and git clients: repositories that can be cloned and fetched from, and a channels.scm for each
// release of the track. It holds no key: it can withhold, and cannot forge.
//
// # Routes
//
//	GET  /git/NAME/info/refs?service=git-upload-pack   git's smart protocol over HTTP, versions 0, 1 and 2
//	POST /git/NAME/git-upload-pack
//	GET  /TRACK/channels.scm                           the newest release's channels
//	GET  /TRACK/releases/N/channels.scm                those of release N, which is version N of the track's allowlist
//
// A channel is also found under the host and the path of its own URL, as the header Host names the one: then a proxy that ends TLS has nothing to rewrite. To push
// is refused with 403, git's older protocol of plain files with 404. Where something was refused the header Sallyport-Reason has the code.
//
// # What is served
//
// Of each channel one commit with its history, and the keyring that belongs to it, as refs/heads/BRANCH and refs/heads/keyring. Which one follows from signed
// documents alone: the track's allowlists, each found by its digest from the one in force, and the orders ([admit.View]). It is the pin that came onto the list last, as long as
// the list has all that it stands on; of several that came together the one that descends from the others. No row of a catalog is asked.
//
// Each repository is made from the items' bytes, which have the digests that stand in the list, and then packed from these two references: so it
// holds what they lead to and nothing else. A release that only goes on from the one before is put beside its packs. That matters, because a client of version 2 may ask for any object that is there by its id. It lies in a
// directory that is named for what it was made of, and is moved into its place when it is whole and durable; what a host that was killed has begun is swept by the next.
//
// # When that changes
//
// Before every answer the published checkpoint is looked at. A recall is in force from the first request after it: the repositories that hold what was recalled
// are gone at once, answers that are under way are cut, and what is left is made from what is left. What is new is made in the background, while that
// which was served before is served on, and put in its place in one step, with its channels.scm. Where the root asks that witnesses cosign the track, a list that
// they have not is not acted on yet; its recalls are.
//
// A release's channels.scm is made of its list and nothing later: it has one text for ever. It is refused, not changed, when something in it was recalled, and when
// the track went back behind it.
//
// If a document does not verify any more, or the ledger is not the one that is signed, the host says so in its log, once, and answers 503 to everything
// until that is mended.
//
// # Git
//
// `git upload-pack` runs in the cage of internal/judge/authenticate/gitrun: no network, no file but the objects and a directory that is made for this one run. What a
// taken-over git could do is answer what it likes, to clients that check every hash.
//
// A request is read whole before a child is started, and what the child answers is kept in a file while it is sent: so a client that is slow, hangs or leaves
// holds no child. Requests that are equal, as those of many clients who pull the same news are, get one answer between them.
//
// # Bounds
//
// In limits.go: so many children at a time (an option; by default one a processor), so many requests that wait, so many connections, so many bytes in a request and
// in an answer; so long for a request and a child. What a client may take for the head of a request and for each piece of an answer is package serve's.
package channelhost
