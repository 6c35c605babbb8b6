package scheme_test

import (
	"errors"
	"fmt"

	"sallyport/guix/scheme"
)

func ExampleChannels() {
	channels, err := scheme.Channels([]byte(`
(use-modules (guix ci))
;; The enclave's own packages, then Guix.
(cons (channel
        (name 'enclave)
        (url "https://git.enclave.example/packages.git")
        (branch "main")
        (introduction
          (make-channel-introduction
            "897c1a470da759236cc11798f4e0a5f7d4d59fbc"
            (openpgp-fingerprint "2A39 3FFF 68F4 EF7A 3D29  12AF 6F51 20A0 22FB B2D5"))))
      %default-channels)`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, c := range channels {
		fmt.Println(c.Name, c.URL, c.Branch, c.Introduction.Signer)
	}
	// Output:
	// enclave https://git.enclave.example/packages.git main 2A39 3FFF 68F4 EF7A 3D29  12AF 6F51 20A0 22FB B2D5
	// guix https://git.guix.gnu.org/guix.git master BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA
}

// A file that would have to be run is refused, at the place where that begins.
func ExampleError() {
	_, err := scheme.Channels([]byte("(map (lambda (c)\n       (channel (inherit c)))\n     %default-channels)"))
	fmt.Println(err)
	var e *scheme.Error
	fmt.Println(errors.As(err, &e) && e.Code == scheme.CodeForm)
	// Output:
	// scheme: line 1, column 1: scheme-form: (map ...) would have to be evaluated
	// true
}

func ExampleSpecifications() {
	specs, err := scheme.Specifications([]byte(`(specifications->manifest (list "hello" "gcc-toolchain@12:static"))`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range specs {
		fmt.Printf("%q %q %q\n", s.Name, s.Version, s.Output)
	}
	// Output:
	// "hello" "" ""
	// "gcc-toolchain" "12" "static"
}

func ExamplePrintChannels() {
	pinned := scheme.DefaultChannel()
	pinned.Commit = "4c4222f32a2906b7bcab74fab70ff2c2f152e8eb"
	fmt.Printf("%s", scheme.PrintChannels([]scheme.Channel{pinned}))
	// Output:
	// (list (channel
	//        (name 'guix)
	//        (url "https://git.guix.gnu.org/guix.git")
	//        (branch "master")
	//        (commit "4c4222f32a2906b7bcab74fab70ff2c2f152e8eb")
	//        (introduction
	//         (make-channel-introduction
	//          "9edb3f66fd807b096b48283debdcddccfea34bad"
	//          (openpgp-fingerprint
	//           "BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA")))))
}
