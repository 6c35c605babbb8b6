// Package e2e has no code. Its tests drive the real programs as processes, as persons and services would: two zones, a folder as the medium,
// depots, builders, and somebody at every place who means harm.
//
//	kill_test.go     kill -9 at random moments; the same command again; the end is that of an undisturbed twin
//	input_test.go    volumes that are cut, empty, of the wrong type or lie about sizes; a disk that is full
//	stream_test.go   2 GB pass through in bounded memory
//	network_test.go  what a build cannot reach, and what it cannot leave behind
//	persons_test.go  a malicious person in every role, one at a time
//	catalog_test.go  the catalog made again, a zone backed up and put back
//	codes_test.go    exit codes, --json, configuration, numbers
//
// The goods are small: trees of a few files, and derivations whose builder is the static program in vectors/builds/builder. Everything is made when
// the tests run; the four programs are built once.
//
// Random moments come from one seed, which a failing test prints; SALLYPORT_E2E_SEED sets it. What cannot be tried on a machine is skipped, and says
// what is missing. The tests need neither root nor a network, only user namespaces.
package e2e
