// Package build realises one derivation on this machine, alone and unreachable, with results byte-identical to guix-daemon's.
//
// # What it does
//
//	result, err := build.Run(ctx, build.Job{...})
//	defer result.Close()
//
// [Run] lays out a root directory in Job.WorkDir with the closure of the inputs and nothing else, runs the derivation's builder
// in it (package sandbox says how it is confined), judges each output as the daemon does before it registers one, makes
// the outputs canonical, hashes them and finds their references. It registers nothing: the caller takes the trees away ([Output.Move])
// before it closes the result, which deletes all that is left.
//
// Job.StoreDir, the inputs' completeness, and that the derivation is the one that was allowed are the caller's to assure.
// A main function that builds calls [MaybeChild] first.
//
// # The surroundings
//
// Set first, and overridden by the variables of the derivation:
//
//	PATH=/path-not-set  HOME=/homeless-shelter  NIX_STORE=/gnu/store  NIX_BUILD_CORES=Job.Cores
//
// Set last, whatever the derivation says, to the build directory /tmp/guix-build-NAME.drv-0:
//
//	NIX_BUILD_TOP  TMPDIR  TEMPDIR  TMP  TEMP  PWD
//
// and, for a fixed output, each variable named in impureEnvVars to its value in Job.Getenv. The block is sorted by name.
// argv[0] is the last component of the builder as written; what is executed is the file it resolves to.
//
//	/                       0555
//	/dev                    full null random tty urandom zero (kvm if the host has it), shm, pts and ptmx, fd stdin stdout stderr
//	/etc                    passwd group hosts; for a fixed output also the host's services and nsswitch.conf
//	/gnu/store              01775; each input a read-only mount; the outputs are made here
//	/proc                   its own
//	/tmp                    01777
//	/tmp/guix-build-*       0700, the builder's own; files that exportReferencesGraph asks for
//
// As root, the builder is Job.UID and Job.GID (30001 and 30000 unless given; give builds that run at once different
// ones) and / and the store belong to root. As an ordinary user the builder and the owner of everything are that user, who shows as 30001 and
// 30000, which is what a daemon without root does; /, /etc and /dev are read-only to it by mode.
//
// # Where this departs from the daemon
//
//   - A fixed output has no network at all, as under a daemon without slirp4netns: lo is down. The host's hosts and resolv.conf, useless then, are
//     not shown; /etc/hosts is the one that other builds have. Builders that begin with "builtin:" are refused (code [CodeBuiltin]).
//   - The builder has no_new_privs, a system call filter, no supplementary group (but its own), and no core dumps: see package sandbox. Job.UserNamespaces
//     lets a derivation whose test suite insists make user namespaces.
//   - The daemon copies a fixed output to a fresh tree in case a process of the builder has kept a descriptor. Here nothing of the build runs any
//     more when an output is looked at; there is no such process.
//   - Extended attributes and access lists are removed from outputs: a nar does not hold them, so they would be unhashed content.
//   - A build's log has a limit by default.
//   - exportReferencesGraph does not take closures that hold a derivation; the daemon adds the outputs of each from its database.
//   - All outputs are judged and every fault is reported, not only the first.
//
// # Judgement of outputs
//
// In this order, each fault a [trust.Refusal] whose subject is the output's path:
//
//	output-missing            the builder did not make it
//	output-suspicious         the top is writable by group or others, or not the builder's
//	output-not-flat           a flat fixed output is no regular file, or is executable
//	output-type               a fifo, socket or device in it
//	output-owner              a file that is neither the builder's nor a hard link to one
//	output-hash               a fixed output is not what the derivation says
//	output-unarchivable       no nar can hold it (a name or path too long, too deep)
//	reference-not-allowed     allowedReferences, allowedRequisites
//	reference-disallowed      disallowedReferences, disallowedRequisites
//	reference-cycle           outputs refer to one another in a circle (to itself is fine)
//
// Canonical are: modes 0444 and 0555 (by the owner's execute bit; directories 0555), mtime 1, root or the user as owner. References are the candidates
// (closure of the inputs, and all outputs) whose hash part occurs in the nar.
//
// A builder that fails is a [Failure]. Everything else is an error of this machine.
//
// # Strays
//
// What the builder left outside its outputs and its build directory, in /gnu/store, /tmp, /dev/shm or wherever it found a way to write, is
// listed in Result.Strays and deleted with the rest. The daemon deletes it too, silently.
//
// # Crashes
//
// A build works in a slot, WorkDir/N, locked by WorkDir/N.lock. When the process dies, even by SIGKILL, its builds die with it, and
// the next Run on the same WorkDir deletes what they left.
//
// # Bounds
//
// [DefaultTimeout], [DefaultMaxSilent], [DefaultMaxLog], [MaxStrays], [MaxSlots] and those of package nar. Disk and memory are bounded by
// what the host gives the process (quota, control group).
//
// # Source
//
// nix/libstore/build.cc and nix/libutil/spawn.cc of GNU Guix 1.5.0. Verified against results recorded from its daemon.
package build
