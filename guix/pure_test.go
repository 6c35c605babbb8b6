// Package guix_test holds the packages below to their first promise: the language of Guix is values and bytes. Nothing in it opens a file or a connection, starts a
// program, prints, or looks at a clock or at the environment; who calls it passes an fs.FS, an *os.Root or a net.Conn.
package guix_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
)

// allowed is what may be used of the packages that could do such things. syscall is in one place, see nar/folder_linux.go.
var allowed = map[string][]string{
	"os":      {"Root", "File", "O_CREATE", "O_EXCL", "O_WRONLY"},
	"net":     {"Conn"},
	"time":    {"Time", "Duration", "Unix", "Second", "Millisecond", "Minute", "UTC", "RFC3339"},
	"syscall": nil,
}

var forbidden = []string{"os/exec", "os/signal", "os/user", "net/http", "log", "log/slog", "flag", "plugin", "unsafe", "C"}

func TestNothingIsOpened(t *testing.T) {
	files := 0
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(path.Dir(name), "test") { // what only tests stand on may
			return err
		}
		files++
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		watched := make(map[string]string) // local name to package
		for _, spec := range file.Imports {
			dep, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			for _, f := range forbidden {
				if dep == f {
					t.Errorf("%s imports %s", name, dep)
				}
			}
			if _, ok := allowed[dep]; ok {
				local := path.Base(dep)
				if spec.Name != nil {
					local = spec.Name.Name
				}
				watched[local] = dep
			}
		}
		ast.Inspect(file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			if x.Name == "fmt" && strings.HasPrefix(sel.Sel.Name, "Print") {
				t.Errorf("%s prints", name)
			}
			dep, ok := watched[x.Name]
			if !ok || dep == "syscall" && name == "nar/folder_linux.go" {
				return true
			}
			for _, use := range allowed[dep] {
				if use == sel.Sel.Name {
					return true
				}
			}
			t.Errorf("%s uses %s.%s", name, dep, sel.Sel.Name)
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 40 {
		t.Errorf("only %d files: the test looks at the wrong place", files)
	}
}
