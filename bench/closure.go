package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
)

// asked is of how many derivations the closure is that has to load in closureTime.
const (
	asked       = 4536
	closureTime = 300 * time.Millisecond
)

// closures loads real derivations, recomputes every path, and lists the sources. Without the peer there is only the closure of hello.
func closures(p *peer, top string, runs int) error {
	fmt.Println()
	if p.root == "" {
		dir := filepath.Join(top, "vectors", "drv-hello", "drv")
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		var roots []storepath.Path
		for _, e := range entries {
			if path, err := storepath.ParseBase(e.Name()); err == nil && strings.HasSuffix(e.Name(), "hello-2.12.2.drv") {
				roots = append(roots, path)
			}
		}
		return closure(dir, "the closure of hello (NO PEER: nothing larger was computed)", roots, runs, "")
	}
	dir := filepath.Join(p.root, "gnu", "store")
	roots, err := p.derivations()
	if err != nil {
		return err
	}
	what := strings.Join(packages, ", ")
	if err := closure(dir, what, roots[:len(packages)], runs, ""); err != nil {
		return err
	}
	if err := closure(dir, "these and an operating system", roots, runs, ""); err != nil {
		return err
	}
	// In the order in which they can be built, any beginning of a closure is a closure.
	g, err := derivation.LoadClosure(os.DirFS(dir), roots...)
	if err != nil {
		return err
	}
	if g.Len() < asked {
		fmt.Printf("closure of %d derivations: NOT MEASURED: Guix computed only %d\n", asked, g.Len())
		return nil
	}
	var some []storepath.Path
	for n := range g.Nodes() {
		if len(some) < asked {
			some = append(some, n.Path)
		}
	}
	return closure(dir, fmt.Sprintf("of these the first %d that can be built", asked), some, runs, fmt.Sprintf("   reach: under %s", closureTime))
}

// closure measures one closure.
func closure(dir, what string, roots []storepath.Path, runs int, reach string) error {
	n, sources := 0, 0
	took, err := repeat(timed(func() error {
		g, err := derivation.LoadClosure(os.DirFS(dir), roots...)
		if err != nil {
			return err
		}
		n, sources = g.Len(), len(g.Sources())
		return nil
	}), runs)
	if err != nil {
		return err
	}
	fmt.Printf("closure of %d derivations, loaded, every path recomputed, %d sources listed: %s%s   (%s)\n", n, sources, took.Round(time.Millisecond), reach, what)
	return nil
}
