// Command tool is what derivations in tests run: it writes its arguments' contents, where they are files, and itself otherwise, to the output.
package main

import (
	"os"
)

func main() {
	var all []byte
	for _, a := range os.Args[1:] {
		if data, err := os.ReadFile(a); err == nil {
			all = append(all, data...)
		} else {
			all = append(all, a...)
		}
		all = append(all, '\n')
	}
	if len(os.Args) > 1 && os.Args[1] == "stray" {
		if err := os.WriteFile("/stray", nil, 0o644); err != nil {
			os.Stderr.WriteString(err.Error())
		}
	}
	if err := os.WriteFile(os.Getenv("out"), all, 0o644); err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
}
