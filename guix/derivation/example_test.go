package derivation_test

import (
	"fmt"
	"os"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

func ExampleLoadClosure() {
	root, err := storepath.Parse("/gnu/store/2nfg943asrl9dv64zrr1a4kpb25mfafd-hello-2.12.2.drv")
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := derivation.LoadClosure(os.DirFS("../../vectors/drv-hello/drv"), root)
	if err != nil {
		fmt.Println(err) // everything that is wrong, a line each
		return
	}
	fixed := 0
	for range g.Fixed() {
		fixed++
	}
	hello, _ := g.Node(root)
	out, _ := hello.Derivation.Output("out")
	fmt.Println(g.Len(), "derivations,", fixed, "of them fixed,", len(g.Sources()), "sources")
	fmt.Println(out.Path)
	// Output:
	// 228 derivations, 108 of them fixed, 173 sources
	// /gnu/store/cs56i9digj9qg1bd383cmxc6xrfpdn9n-hello-2.12.2
}

func ExampleHasher_Fill() {
	known := make(map[string]*derivation.Derivation)
	h := derivation.NewHasher(func(path string) (*derivation.Derivation, error) { return known[path], nil })

	tarball := &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out", HashAlgo: "sha256", Hash: "325c26860ad4bba8558356c4ab914ac57e7b415dac6f5aae86b9b05ccb7ed282"}},
		System:  "x86_64-linux",
		Builder: "builtin:download",
		Env:     []derivation.Variable{{Name: "url", Value: `"mirror://gnu/bash/bash-5.2-patches/bash52-019"`}},
	}
	if err := h.Fill("bash52-019", tarball); err != nil {
		fmt.Println(err)
		return
	}
	path, err := tarball.Path("bash52-019")
	if err != nil {
		fmt.Println(err)
		return
	}
	known[path.String()] = tarball

	build := &derivation.Derivation{
		Outputs: []derivation.Output{{ID: "out"}},
		Inputs:  []derivation.Input{{Path: path.String(), Outputs: []string{"out"}}},
		System:  "x86_64-linux",
		Builder: tarball.Outputs[0].Path,
	}
	if err := h.Fill("built", build); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(tarball.Outputs[0].Path)
	fmt.Printf("%s\n", build.Bytes()[:67])
	// Output:
	// /gnu/store/yw1vfd8x1f5pqqmvc27rxqgrdpf44179-bash52-019
	// Derive([("out","/gnu/store/wb5al3la4z05qqhg9y256zvawgjl4igz-built",
}

func ExampleParse() {
	_, err := derivation.Parse([]byte(`Derive([("out","/gnu/store/..","","")],[],[],"x","y",[],[])`))
	fmt.Println(err)
	// Output:
	// derivation: drv-path at byte 15: "/gnu/store/..": store path: path-length at byte 13: want 32 characters of hash and a dash
}
