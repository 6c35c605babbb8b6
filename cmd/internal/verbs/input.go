package verbs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sallyport/cmd/internal/frame"
)

// input opens a file, a pipe, or standard input for "-". Reading ends when the operator stops the program, however long a pipe is silent, and long reading
// shows progress.
func input(ctx context.Context, env *frame.Env, name string) (io.ReadCloser, error) {
	in := &source{watch: watch{ctx: ctx}}
	size := int64(0)
	if name == "-" {
		in.r = waitFor(ctx, func() (io.ReadCloser, error) { return io.NopCloser(env.Stdin), nil })
	} else {
		st, err := os.Stat(name)
		switch {
		case err != nil:
			return nil, err
		case st.IsDir():
			return nil, fmt.Errorf("%s is a directory, want a file", name)
		case st.Mode().IsRegular():
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			in.r, in.file, size = f, f, st.Size()
		default:
			// Even to open a pipe may take for ever.
			in.r = waitFor(ctx, func() (io.ReadCloser, error) { return os.Open(name) })
		}
	}
	in.p = env.Progress("reading "+name, size)
	return in, nil
}

type source struct {
	watch
	file io.Closer
}

func (s *source) Close() error {
	s.p.Done()
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// waitFor reads in a goroutine of its own, which is left behind if it still waits when ctx ends: the program ends then, too.
func waitFor(ctx context.Context, open func() (io.ReadCloser, error)) io.Reader {
	out, in := io.Pipe()
	go func() {
		r, err := open()
		if err == nil {
			_, err = io.Copy(in, r)
			r.Close()
		}
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { in.CloseWithError(context.Cause(ctx)) })
	return out
}

// A watch is a reader or a writer of long work: it fails once the operator has stopped the program, and shows how far it is.
type watch struct {
	ctx context.Context
	p   *frame.Progress
	r   io.Reader
	w   io.Writer
}

func (w *watch) Read(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.r.Read(b)
	w.p.Add(int64(n))
	return n, err
}

func (w *watch) Write(b []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.w.Write(b)
	w.p.Add(int64(n))
	return n, err
}

// readAll reads something small.
func readAll(ctx context.Context, env *frame.Env, name string, limit int64) ([]byte, error) {
	f, err := input(ctx, env, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return data, nil
}

// tree opens what is to be archived: a directory by itself, everything else by its name in the directory it is in, so that a link is not followed. name is
// what to dump in root.
func tree(path string) (root *os.Root, name string, err error) {
	if path == "" {
		return nil, "", frame.Usage("an empty PATH")
	}
	st, err := os.Lstat(path)
	if err != nil {
		return nil, "", err
	}
	if st.IsDir() {
		root, err = os.OpenRoot(path)
		return root, ".", err
	}
	root, err = os.OpenRoot(filepath.Dir(path))
	return root, filepath.Base(path), err
}
