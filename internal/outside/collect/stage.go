package collect

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A tree is where a source's content lies: name below root.
type tree struct {
	root *os.Root
	name string
}

func (t *tree) Close() error { return t.root.Close() }

// open finds a source's content on this machine. stage is an empty directory of the zone for what has to be put together first.
func (s *Source) open(ctx context.Context, base, stage string) (*tree, error) {
	path := s.Path
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(base, path)
	}
	switch s.From {
	case "go-toolchain":
		goroot, version, err := toolchain(ctx)
		if err != nil {
			return nil, err
		}
		if s.Name == "" {
			s.Name = "go-" + version
		}
		path = goroot
	case "go-module":
		if err := stageModule(ctx, path, stage); err != nil {
			return nil, fmt.Errorf("source %q: %w", s.Label, err)
		}
		path = stage
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return &tree{root, filepath.Base(path)}, nil
}

// toolchain asks the installed Go where it lies. Its go program must be static: in a build there is no dynamic loader.
func toolchain(ctx context.Context) (goroot, version string, err error) {
	out, err := run(ctx, ".", "go", "env", "GOROOT", "GOVERSION")
	if err != nil {
		return "", "", err
	}
	goroot, version, _ = strings.Cut(strings.TrimSpace(string(out)), "\n")
	version = strings.TrimPrefix(version, "go")
	// The directory itself, not a link to it, is what is collected.
	if goroot, err = filepath.EvalSymlinks(goroot); err != nil {
		return "", "", err
	}
	f, err := elf.Open(filepath.Join(goroot, "bin", "go"))
	if err != nil {
		return "", "", fmt.Errorf("the Go toolchain in %s: %w", goroot, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return "", "", fmt.Errorf("%s/bin/go is linked dynamically and cannot run in a build; use the Go of the Go project's own archive", goroot)
		}
	}
	return goroot, version, nil
}

// stageModule copies the files of a Go module that are under version control, as they lie in the work tree, to stage, and vendors its modules
// there.
func stageModule(ctx context.Context, dir, stage string) error {
	files, err := moduleFiles(ctx, dir)
	if err != nil {
		return err
	}
	src, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenRoot(stage)
	if err != nil {
		return err
	}
	defer dst.Close()
	for _, f := range files {
		if err := copyFile(dst, src, f); err != nil {
			return err
		}
	}
	_, err = run(ctx, stage, "go", "mod", "vendor")
	return err
}

// moduleFiles lists a module's files: those that git tracks, or, where there is no git repository, all but hidden ones and build results.
func moduleFiles(ctx context.Context, dir string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return nil, fmt.Errorf("not a Go module: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
		out, err := run(ctx, dir, "git", "-c", "core.fsmonitor=false", "-c", "safe.directory=*", "ls-files", "-z", "--cached")
		if err != nil {
			return nil, err
		}
		var files []string
		for _, f := range strings.Split(string(out), "\x00") {
			// A file that was removed but not committed so is not there any more.
			if _, err := os.Lstat(filepath.Join(dir, f)); f != "" && err == nil {
				files = append(files, f)
			}
		}
		return files, nil
	}
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		switch {
		case err != nil || rel == ".":
			return err
		case strings.HasPrefix(d.Name(), ".") || d.IsDir() && (rel == "build" || rel == "vendor" || rel == "demo-zones"):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		files = append(files, rel)
		return nil
	})
	return files, err
}

func copyFile(dst, src *os.Root, name string) error {
	st, err := src.Lstat(name)
	if err != nil {
		return err
	}
	if err := dst.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := src.Readlink(name)
		if err != nil {
			return err
		}
		return dst.Symlink(target, name)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file nor a link", name)
	}
	in, err := src.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, st.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// maxOutput bounds what is kept of a program's output.
const maxOutput = 64 << 20

// run runs a program of this machine and returns what it printed.
func run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOTOOLCHAIN=local", "GIT_OPTIONAL_LOCKS=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, fmt.Errorf("program %s is missing: install it", name)
		}
		text := strings.TrimSpace(stderr.String())
		return nil, fmt.Errorf("%s %s: %w: %.2000s", name, strings.Join(args, " "), err, text)
	}
	if len(out) > maxOutput {
		return nil, fmt.Errorf("%s: more than %d bytes of output", name, maxOutput)
	}
	return out, nil
}
