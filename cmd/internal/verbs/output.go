package verbs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/term"

	"sallyport/cmd/internal/frame"
)

// output runs write with the file that --output names, which must not be there and is gone again after a failure, or with standard output if
// there is no name. Then nothing else goes there, so --json wants a name.
func output(env *frame.Env, name string, write func(w io.Writer) error) (err error) {
	if name == "" {
		if env.JSON {
			return frame.Usage("--json needs --output FILE: standard output would carry the archive")
		}
		if f, ok := env.Stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return frame.Usage("standard output is a terminal: give --output FILE")
		}
		w := bufio.NewWriterSize(env.Stdout, 1<<20)
		if err := write(w); err != nil {
			return err
		}
		return w.Flush()
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(name))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	if err := write(w); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// result prints a result that output went before: to standard error if the output went to standard output.
func result(env *frame.Env, name string, v any, text string) error {
	if name == "" {
		env.Say("%s", text)
		return nil
	}
	return env.Result(v, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", name, text) })
}
