// Package peer compares Sallyport with the programs whose formats it speaks:
// GNU Guix 1.5.0 and Nix 2.34, as Debian packages them, on this machine.
//
// All of it is tests, behind the build tag peer, because they want root on
// Debian, the network the first time, and minutes:
//
//	make test-peer
//
// or, of one of them,
//
//	contrib/peer/peer up && go test -tags peer ./peer -v -run TestBuilds
//
// The script contrib/peer/peer sets up the real programs in a directory of
// their own and runs guix-daemon in it. Where it cannot, the tests say that they
// were skipped and why; a run without the peer proves nothing, and passes for
// nothing.
//
// # What is compared
//
//	TestSignatures    what `guix authenticate` signs and what we sign are the same bytes; each believes the other
//	TestRSASignatures what it signs with an older key, we verify in strict mode
//	TestExport        `guix archive --import` takes our streams; what --export gives, we read, verify and write again to the same bytes
//	TestVerdicts      the recorded verdicts of vectors/archives, with the daemon that runs now
//	TestDanger        the one verdict that costs a daemon its store, with a daemon made for that, in a whole system of its own in memory
//	TestCage          that system, opened in five ways: nothing is run in it then
//	TestNarinfos      the recorded verdicts of vectors/narinfo, with the program that fetches substitutes
//	TestSubstitute    `guix build` takes what our narinfo and nar offer, and refuses another key and other contents
//	TestNarHash       nar hashes of random trees, with `guix hash -S nar`, `nix-hash` and `nix-store --dump`
//	TestClosure       thousands of derivations, whose paths and bytes we compute again
//	TestBuilds        the cases of vectors/builds, made by guix-daemon and by our sandbox
//	TestScheme        what guix/scheme reads and prints, with Guile
//	TestDaemon        guix/daemon drives guix-daemon: additions, a build, queries, deletion
//	TestHost          inside/host judges the daemon's store beside it: items, roots, generations, a recall, and all of it read again
//	TestChannelVerdicts  hostile histories of channels, judged by `guix git authenticate` and by us: one verdict, but where ours is stricter and says why
//	TestRealChannels  real channels, where SALLYPORT_PEER_GUIX and SALLYPORT_PEER_NONGUIX name mirrors of them: the same verdict
//	TestChannelHost   a channel that we create is authentic to `guix git authenticate`, after `git clone` from our host; Guix pulls the commits of each release from there
//	TestRealChannelHost  Guix pulls a real channel from our host and authenticates it, where SALLYPORT_PEER_NONGUIX names a mirror
//	TestDemo          a depot of the demo feeds the real daemon, which builds what our builders built
//
// Whatever is to leave no trace runs beside an empty store in memory
// (contrib/peer/peer fresh); what destroys the system it runs in, in a copy of it all, from which nothing else can be reached (contrib/peer/peer throwaway).
package peer
