// Command sallyport carries software across an air gap into a GNU Guix enclave, and proves it: the whole, for the outside, for staging, and for one
// machine that plays both sides. Inside an enclave, sallyport-station has the same verbs without the code that fetches.
package main

import (
	"os"

	"sallyport/cmd/internal/frame"
	"sallyport/cmd/internal/verbs"
	"sallyport/cmd/internal/verbs/inside"
	"sallyport/cmd/internal/verbs/outside"
	"sallyport/internal/inside/build"
)

func main() {
	build.MaybeChild()
	env := frame.System("sallyport")
	shipment := verbs.Shipment(env)
	shipment.AddCommand(inside.Series(env))
	nouns := append(verbs.Both(env), shipment)
	nouns = append(nouns, outside.Nouns(env, shipment)...)
	nouns = append(nouns, inside.Nouns(env)...)
	root := frame.Root(env, "carry software across an air gap into a GNU Guix enclave, and prove it",
		"Sallyport carries software across an air gap into a GNU Guix enclave and proves, at every step and afterwards, what was carried, by whom, why it was let in, and that nothing changed on the way.",
		"  sallyport init --kind outside --enclave demo outside\n  sallyport collect --zone outside request.toml\n"+
			"  sallyport shipment create --zone outside --key carol.manifest.key --sums-key carol.sums.key --slip slip.txt volume", nouns...)
	ctx, stop := frame.Interruptible()
	code := frame.Run(ctx, env, root, os.Args[1:])
	stop()
	os.Exit(code)
}
