// Package sallyport_test keeps the walls of the house: the import graph is the map of the air gap, and this test is what makes that
// true. It runs offline and names the arrow that breaks a wall.
package sallyport_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "sallyport"

// bench makes whole enclaves for tests. It stands on the rooms up to the crossing; the tests of any room may stand on it, and nothing else may.
const bench = module + "/internal/enclavetest"

// floors lists the rooms from the ground up. A room imports its own floor's packages only within itself, and rooms that stand lower.
var floors = []struct {
	room string
	// alone: packages of this floor's rooms never import one another (stages meet in the store).
	alone bool
}{
	{room: "guix"},
	{room: "internal/trust"},
	{room: "internal/store"},
	{room: "internal/serve"},
	{room: "internal/confine"},
	{room: "internal/judge"},
	{room: "internal/crossing"},
	{room: "internal/keep"},
	{room: "internal/enclavetest"},
	{room: "internal/outside", alone: true},
	{room: "internal/inside", alone: true},
	{room: "internal/evidence"},
	{room: "cmd/internal"},
	{room: "cmd"},
	{room: "demo"},
	{room: "e2e"},
	{room: "peer"},
}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Standard     bool
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps,Standard"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// floor returns how high a package of ours stands, and its room's path; -1 if it is in no room.
func floor(path string) (int, string) {
	rel, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return -1, ""
	}
	best := -1
	for i, f := range floors {
		if rel == f.room || strings.HasPrefix(rel, f.room+"/") {
			if best < 0 || len(f.room) > len(floors[best].room) {
				best = i
			}
		}
	}
	if best < 0 {
		return -1, rel
	}
	return best, floors[best].room
}

// stage is the package below a floor's room: internal/inside/gate of internal/inside/gate/x.
func stage(path, room string) string {
	rest := strings.TrimPrefix(path, module+"/"+room+"/")
	return strings.SplitN(rest, "/", 2)[0]
}

func TestArrowsPointDown(t *testing.T) {
	pkgs := list(t, "-tags=peer", "./...")
	if len(pkgs) < 10 {
		t.Fatalf("go list found %d packages; the test looks at the wrong place", len(pkgs))
	}
	for _, p := range pkgs {
		if p.ImportPath == module {
			continue
		}
		from, room := floor(p.ImportPath)
		if from < 0 {
			t.Errorf("%s is in no room: say in walls_test.go on which floor it stands", p.ImportPath)
			continue
		}
		imports := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		for _, dep := range imports {
			to, toRoom := floor(dep)
			if to < 0 {
				continue
			}
			if dep == bench {
				if slices.Contains(p.Imports, dep) {
					t.Errorf("%s -> %s: what tests stand on is in no program", p.ImportPath, dep)
				}
				continue
			}
			if to > from {
				t.Errorf("%s -> %s: the arrow points up (%s stands above %s)", p.ImportPath, dep, toRoom, room)
			}
			if to == from && floors[from].alone && stage(p.ImportPath, room) != stage(dep, room) {
				t.Errorf("%s -> %s: stages of %s never import each other; they meet in the store", p.ImportPath, dep, room)
			}
		}
	}
}

func TestOutsideAndInsideNeverMeet(t *testing.T) {
	for _, side := range [][2]string{{"outside", "inside"}, {"inside", "outside"}} {
		for _, p := range list(t, "./internal/"+side[0]+"/...") {
			for _, dep := range p.Deps {
				if strings.HasPrefix(dep, module+"/internal/"+side[1]+"/") || strings.HasPrefix(dep, module+"/cmd/internal/verbs/"+side[1]) {
					t.Errorf("%s reaches %s: the two sides of the gap never meet, not even through a third room", p.ImportPath, dep)
				}
			}
		}
	}
	for _, p := range list(t, "./internal/crossing/...") {
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, module+"/internal/outside") || strings.HasPrefix(dep, module+"/internal/inside") {
				t.Errorf("%s reaches %s: what crosses knows neither side", p.ImportPath, dep)
			}
		}
	}
}

// TestGroundIsPure: the formats open nothing and know no clock.
func TestGroundIsPure(t *testing.T) {
	allowed := []string{"golang.org/x/crypto/", "filippo.io/edwards25519", "github.com/ProtonMail/go-crypto", module + "/guix/"}
	for _, p := range list(t, "./guix/...") {
		for _, dep := range p.Imports {
			switch {
			case dep == "syscall" && p.ImportPath == module+"/guix/nar":
				// It reads a tree below the *os.Root that its caller opened, and follows nothing out of it.
			case dep == "os/exec" || dep == "net/http" || dep == "log" || dep == "log/slog" || dep == "syscall":
				t.Errorf("%s imports %s: guix/ is values and bytes", p.ImportPath, dep)
			case strings.Contains(strings.SplitN(dep, "/", 2)[0], ".") || strings.HasPrefix(dep, module+"/"):
				if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(dep, a) }) {
					t.Errorf("%s imports %s: guix/ takes only the standard library, x/crypto, edwards25519 and OpenPGP", p.ImportPath, dep)
				}
			}
		}
	}
}

// TestTrustOpensNothing: documents and keys are judged from bytes. An ssh-agent's socket is opened in one package, which alone sees the SSH library.
func TestTrustOpensNothing(t *testing.T) {
	const agent = module + "/internal/trust/agent"
	for _, p := range list(t, "./...") {
		for _, dep := range p.Imports {
			if strings.HasPrefix(dep, "golang.org/x/crypto/ssh") && p.ImportPath != agent {
				t.Errorf("%s imports %s: SSH's keys and signatures have one spelling here, and package trust reads it", p.ImportPath, dep)
			}
			opens := dep == "os" || dep == "net" || dep == "syscall" || strings.HasPrefix(dep, "os/") || strings.HasPrefix(dep, "net/")
			if opens && strings.HasPrefix(p.ImportPath, module+"/internal/trust") && p.ImportPath != agent {
				t.Errorf("%s imports %s: trust opens nothing", p.ImportPath, dep)
			}
		}
	}
}

// TestMains holds each program to what it may link.
func TestMains(t *testing.T) {
	tests := []struct {
		main   string
		never  []string
		reason string
	}{
		{"sallyport-station", []string{module + "/internal/outside", module + "/cmd/internal/verbs/outside"}, "the enclave's program has no code that can fetch"},
		{"sallyport-reader", []string{"net/http", "database/sql", "modernc.org/", module + "/internal/trust", module + "/internal/store", module + "/internal/crossing", module + "/internal/inside", module + "/internal/outside", module + "/cmd/internal"},
			"the child that parses hostile bytes is a handful of packages"},
		{"sallyport-verify", []string{module + "/guix", module + "/internal", module + "/cmd/internal", "net", "os/exec"}, "the auditor's program shares no code with the writer"},
	}
	for _, tt := range tests {
		t.Run(tt.main, func(t *testing.T) {
			pkgs := list(t, "./cmd/"+tt.main)
			if len(pkgs) != 1 {
				t.Fatalf("%d packages", len(pkgs))
			}
			for _, dep := range pkgs[0].Deps {
				for _, n := range tt.never {
					if dep == n || strings.HasPrefix(dep, n+"/") || strings.HasSuffix(n, "/") && strings.HasPrefix(dep, n) {
						t.Errorf("links %s: %s", dep, tt.reason)
					}
				}
			}
		})
	}
	for _, dep := range list(t, "./cmd/sallyport-verify")[0].Deps {
		if strings.Contains(strings.SplitN(dep, "/", 2)[0], ".") && !strings.HasPrefix(dep, "golang.org/x/mod/") && !strings.HasPrefix(dep, "vendor/") {
			t.Errorf("sallyport-verify links %s: the standard library and golang.org/x/mod only", dep)
		}
	}
}
