// Package confine runs the reading of untrusted bytes in a child process that can do nothing else.
//
// Everything that arrives from beyond the gap is first parsed by sallyport-reader, a small program with its own main and a
// short, tested list of packages. [Start] starts it; the first thing it does is [Enter], which takes from it what a parser
// does not need; [Serve] is its loop. One child reads one volume or one source, not one file: a child costs some ten milliseconds.
//
// # What is in force
//
// All of it or nothing. A layer that the kernel or the host's policy does not offer is a [*FeatureError] that names the
// feature and the remedy; there is no lesser mode.
//
//   - Own user, mount, PID, network, IPC and UTS namespaces. The child has no capability anywhere. Started by root it changes to
//     the unprivileged user 65534; started by anybody else it keeps that user's identity, with no name for it inside.
//   - No descriptors but the three standard ones (pipes), and an empty environment but for settings of the Go runtime.
//   - Resource limits: address space, 16 descriptors, and no file may grow by a byte.
//   - Landlock with no rule at all, so that nothing in any file system may be opened, at the highest version that both the kernel and this
//     package know (at least 1; what was handled is part of the report).
//   - seccomp with a list of allowed calls: those of the Go runtime and of reading and writing open descriptors. New threads are allowed,
//     new processes are not; no new memory is executable. A handful of calls that a runtime may try in good faith is answered EPERM; every
//     other call ends the process, which its parent reports as code reader-forbidden-call.
//
// The parent does not take the child's word for it: before a byte is sent, it compares the capability sets, the seccomp mode and the
// no-new-privileges flag of every thread as the kernel shows them in /proc. What was in force is [Child.Confinement], to be recorded with the verdict.
//
// # Protocol
//
// Over the child's standard input and output. Lines are JSON objects with the members in the order of the Go types, without white space, ended by LF.
//
//	child:   {"type":"ready",...}                      or {"type":"failed","feature":F,"detail":D,"remedy":R} and exit
//	parent:  {"kind":K,"name":N,"size":S,"rules":R}    then exactly S bytes
//	child:   {"type":"finding",...}                    any number, up to MaxFindings
//	         {"type":"refusal",...}                    any number, up to MaxRefusals
//	         {"type":"derivation",...} {"type":"text",...}*   for kind derivation: counts, then every string of it in order
//	         {"type":"result","files":F,"bytes":B}     exactly one, after the S bytes are consumed
//
// The kinds are nar, derivation and flat (one file as it is). A bad item is an answer with refusals, and the child goes on to the next one.
//
// # Hostile answers
//
// A parser that was taken over answers what it likes. The parent therefore accepts: a line of at most MaxLine bytes, which decodes with no
// member too many, printed again gives the same bytes, and whose strings are printable ASCII within their bounds (the child escapes what
// it found as [Escape] does); at most MaxFindings findings; answers within a deadline that follows from the size. Anything else is an
// [*AnswerError], and the child is killed. A child that dies is a [*DeathError]. After either, or after a source that failed, the child answers nothing more.
// None of these is ever a pass. What a taken-over child can still do is lie in form: say that an item is clean. So nothing about an item's
// identity is taken from here; hashes are computed by the parent.
package confine
