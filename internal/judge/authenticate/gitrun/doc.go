// Package gitrun runs the program git on repositories that nobody trusts, for what Sallyport does not do itself: making and reading bundles,
// fsck over everything, serving. Authentication does not need it.
//
//	g, err := gitrun.Find(ctx, os.Getenv("PATH"))
//	view, err := g.View(tmp, gitrun.Repository{Objects: dir + "/objects", Refs: refs})
//	err = g.Run(ctx, view, gitrun.Command{Args: []string{"fsck", "--full", "--strict"}, Stdout: w})
//
// # What git sees
//
// Never the repository's own directory. A [View] is a git directory of ours with a configuration of ours, with the references that the caller
// hands in, and with the objects of the repository (GIT_OBJECT_DIRECTORY). So the repository's configuration, hooks, attributes, grafts,
// replacements, shallow boundary and worktrees are not there to be read. Its commit graphs are switched off; the alternates that its objects may name lie
// behind Landlock.
//
// The environment is written here in full: no system or user configuration, no replacement of objects, no lazy fetching, no prompt, no protocol but
// file and that only from one path to another within the sandbox, and a PATH that holds git alone.
//
// # What git can do
//
// It runs in user, network, PID, IPC, UTS and mount namespaces of its own, without a network but a loopback that is down; with Landlock, under which it can read
// the programs and libraries of the system, the objects and what else the caller names, and write the view and what the caller names; with
// no_new_privs, limits on memory, files, descriptors and output, and a deadline. It dies with its parent. A layer that the kernel does not offer is an
// error that names it; there is no lesser mode.
//
// What a git that was taken over could still do: answer what it likes. What it says is therefore a claim: objects that it wrote are read again by
// guix/channel/git, which hashes them.
package gitrun
