package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The package comment lists every file, each after those it needs, and does not lie about their size.
func TestGuide(t *testing.T) {
	main, err := os.ReadFile("main.go")
	must(t, err)
	comment, _, _ := strings.Cut(string(main), "\npackage main\n")
	said := map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^//\t(\w+\.go) +(\d+)  \S`).FindAllStringSubmatch(comment, -1) {
		said[m[1]], _ = strconv.Atoi(m[2])
	}
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		data, err := os.ReadFile(name)
		must(t, err)
		if n := strings.Count(string(data), "\n"); n > said[name]+60 || n < said[name]-60 {
			t.Errorf("main.go says that %s has %d lines; it has %d", name, said[name], n)
		}
		delete(said, name)
	}
	for name := range said {
		t.Errorf("main.go tells of %s, which is not there", name)
	}
}
