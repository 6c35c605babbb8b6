// Command liar is a reader for tests: confined as the real one is, it does what the name of an item says.
package main

import (
	"io"
	"os"
	"syscall"

	"sallyport/internal/confine"
)

func main() {
	conf, err := confine.Enter()
	if err != nil {
		confine.Fail(os.Stdout, err)
		os.Exit(1)
	}
	err = confine.Serve(os.Stdin, os.Stdout, conf, func(req confine.Request, body io.Reader, answers *confine.Answers) (int64, int64) {
		switch req.Name {
		case "crash":
			panic("an exploit that failed")
		case "call":
			syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		case "lie":
			io.Copy(io.Discard, body)
			os.Stdout.WriteString("{\"type\":\"result\",\"files\":1,\"bytes\":1,\"verdict\":\"admitted\"}\n")
		case "code":
			answers.Refuse(confine.Refusal{Code: "Fine, \x1b[2J", Detail: "x"})
		}
		n, _ := io.Copy(io.Discard, body)
		return 1, n
	})
	if err != nil {
		os.Exit(1)
	}
}
