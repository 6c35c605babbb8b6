// Command sallyport-station is the enclave's program: gate, review, depot, builders, quorum. It links not one package of the outside: it has no code
// that collects from anywhere.
package main

import (
	"os"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/cmd/internal/verbs/inside"
	"sallyport/internal/inside/build"
)

func main() {
	build.MaybeChild()
	env := frame.System("sallyport-station")
	shipment := verbs.Shipment(env)
	shipment.AddCommand(inside.Series(env))
	nouns := append(verbs.Both(env), shipment)
	nouns = append(nouns, inside.Nouns(env)...)
	root := frame.Root(env, "the enclave's side of Sallyport",
		"The enclave's side of Sallyport: it judges what comes in, lets persons decide, builds, and serves. It has no code that fetches anything from outside.",
		"  sallyport-station init --kind inside --enclave demo inside\n  sallyport-station import --zone inside --slip slip.txt --key dave.statement.key /media/disc\n"+
			"  sallyport-station review approve --zone inside --track dev --key alice.allowlist.key 1", nouns...)
	ctx, stop := frame.Interruptible()
	code := frame.Run(ctx, env, root, os.Args[1:])
	stop()
	os.Exit(code)
}
