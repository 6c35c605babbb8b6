package verbs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

func narNoun(env *frame.Env) *cobra.Command {
	return noun("nar", "Guix's archive format", narHash(env), narList(env), narVerify(env))
}

// A counter counts what goes through.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// digest is the hash and the size of a nar as --json prints them, with what is beside them.
func digest(sum []byte, size int64, more map[string]any) map[string]any {
	more["sha256"], more["base32"], more["size"] = hex.EncodeToString(sum), storepath.EncodeBase32(sum), size
	return more
}

// dump writes the nar of a file or tree to w and returns its hash and size.
func dump(ctx context.Context, env *frame.Env, path string, w io.Writer) ([]byte, int64, error) {
	root, name, err := tree(path)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	sum, size, p := sha256.New(), new(counter), env.Progress("archiving "+path, 0)
	defer p.Done()
	if err := nar.Dump(&watch{ctx: ctx, p: p, w: io.MultiWriter(sum, size, w)}, root.FS(), name); err != nil {
		return nil, 0, dumping(path, err)
	}
	return sum.Sum(nil), size.n, nil
}

func narHash(env *frame.Env) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "hash PATH",
		Short: "print the SHA-256 of the nar of a file or tree, as 'guix hash -S nar' does",
		Long: "Print the SHA-256 of the nar of a file or tree, as 'guix hash -S nar' does. A link is hashed as a link, unless a slash follows its name. A file that\n" +
			"can be in no nar (a pipe, a socket, a device) is refused.",
		Example: "  sallyport nar hash ./hello\n  sallyport nar hash --format hex /usr/share/doc/bash\n  sallyport nar hash --json ./hello | jq -r .sha256",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "base32" && format != "hex" {
				return frame.Usage("--format %q: want base32 or hex", format)
			}
			sum, size, err := dump(cmd.Context(), env, args[0], io.Discard)
			if err != nil {
				return err
			}
			text := storepath.EncodeBase32(sum)
			if format == "hex" {
				text = hex.EncodeToString(sum)
			}
			return env.Result(digest(sum, size, map[string]any{"path": args[0]}), func(w io.Writer) { fmt.Fprintln(w, text) })
		},
	}
	c.Flags().StringVar(&format, "format", "base32", "base32 (Guix's) or hex")
	return c
}

func narCreate(env *frame.Env) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:   "create PATH",
		Short: "write the nar of a file or tree",
		Long: "Write the nar of a file or tree, to standard output or to the file that --output names, which must not be there yet. A link is archived as a link,\n" +
			"unless a slash follows its name.",
		Example: "  sallyport nar create --output hello.nar ./hello\n  sallyport nar create ./hello | zstd > hello.nar.zst",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var sum []byte
			var size int64
			err := output(env, name, func(w io.Writer) (err error) {
				sum, size, err = dump(cmd.Context(), env, args[0], w)
				return err
			})
			if err != nil {
				return err
			}
			return result(env, name, digest(sum, size, map[string]any{"file": name, "path": args[0]}), fmt.Sprintf("%d bytes, sha256 %s", size, storepath.EncodeBase32(sum)))
		},
	}
	c.Flags().StringVarP(&name, "output", "o", "", "file to write, which must not be there (default standard output)")
	return c
}

// eachNode reads a nar and refuses what is not one, trailing bytes included.
func eachNode(ctx context.Context, env *frame.Env, file string, each func(*nar.Header) error) error {
	f, err := input(ctx, env, file)
	if err != nil {
		return err
	}
	defer f.Close()
	r := nar.NewReader(f)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return ends(file, f, r.Offset())
		}
		if err != nil {
			return judged(file, err)
		}
		if err := each(h); err != nil {
			return err
		}
	}
}

// ends refuses what goes on after a nar of the given size.
func ends(file string, r io.Reader, size int64) error {
	switch _, err := io.ReadFull(r, make([]byte, 1)); err {
	case nil:
		return trust.Refuse("nar-trailing", file, "bytes behind the end of the archive").At(size)
	case io.EOF:
		return nil
	default:
		return fmt.Errorf("%s: %w", file, err)
	}
}

func narVerify(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "verify FILE",
		Short: "check that a file is one well-formed nar, or say at which byte it is not",
		Long: "Check that a file is one well-formed nar, or say at which byte it is not. guix-daemon and the other readers of Guix take nars that are refused here:\n" +
			"names out of order or twice, names that lead elsewhere, padding that is not zero. FILE may be - for standard input.",
		Example: "  sallyport nar verify hello.nar\n  zstd -dc hello.nar.zst | sallyport nar verify -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var nodes, files, size int64
			err := eachNode(cmd.Context(), env, args[0], func(h *nar.Header) error {
				nodes++
				if h.Type == nar.Regular {
					files++
					size += h.Size
				}
				return nil
			})
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"file": args[0], "nodes": nodes, "files": files, "bytes": size}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: well-formed, %s, %s\n", args[0], trust.Count(files, "file"), trust.Count(size, "byte"))
			})
		},
	}
}

func narList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:   "list FILE",
		Short: "list what a nar holds",
		Long: "List what a nar holds. FILE may be - for standard input. What was listed before a fault was found is worth nothing: the exit status tells. Names are\n" +
			"bytes; with --json, one that is not UTF-8 is also given in hexadecimal.",
		Example: "  sallyport nar list hello.nar\n  sallyport nar list --json hello.nar | jq -r .path",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachNode(cmd.Context(), env, args[0], func(h *nar.Header) error {
				out := map[string]any{"type": h.Type.String(), "path": h.Path, "size": h.Size, "executable": h.Executable, "target": h.Target}
				if !h.UTF8() {
					out["path_hex"], out["target_hex"] = hex.EncodeToString([]byte(h.Path)), hex.EncodeToString([]byte(h.Target))
				}
				return env.Result(out, func(w io.Writer) {
					switch h.Type {
					case nar.Regular:
						mode := "-r--r--r--"
						if h.Executable {
							mode = "-r-xr-xr-x"
						}
						fmt.Fprintf(w, "%s %12d %q\n", mode, h.Size, h.Path)
					case nar.Directory:
						fmt.Fprintf(w, "dr-xr-xr-x %12s %q\n", "", h.Path)
					case nar.Symlink:
						fmt.Fprintf(w, "lrwxrwxrwx %12s %q -> %q\n", "", h.Path, h.Target)
					}
				})
			})
		},
	}
}

func narRestore(env *frame.Env) *cobra.Command {
	var want string
	c := &cobra.Command{
		Use:   "restore FILE TARGET",
		Short: "make the tree that a nar holds",
		Long: "Make the tree that a nar holds, as TARGET, which must not be there. Nothing is written outside of it, and nothing is left if the nar is\n" +
			"malformed, goes on after its end, or has another hash than --hash says. FILE may be - for standard input.",
		Example: "  sallyport nar restore hello.nar ./hello\n  sallyport nar restore --hash 1q8p4x... hello.nar ./hello\n  zstd -dc hello.nar.zst | sallyport nar restore - ./hello",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := parseHash(want)
			if err != nil {
				return err
			}
			target, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			if _, err := os.Lstat(target); err == nil {
				return fmt.Errorf("%s is there already", args[1])
			}
			f, err := input(cmd.Context(), env, args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			root, err := os.OpenRoot(filepath.Dir(target))
			if err != nil {
				return err
			}
			defer root.Close()
			sum, size, base := sha256.New(), new(counter), filepath.Base(target)
			if err := nar.Restore(root, base, io.TeeReader(f, io.MultiWriter(sum, size))); err != nil {
				return judged(args[0], err)
			}
			h := sum.Sum(nil)
			err = ends(args[0], f, size.n)
			if err == nil && wanted != nil && !bytes.Equal(wanted, h) {
				err = trust.Refuse("nar-digest", args[0], "the SHA-256 of the nar is %s", storepath.EncodeBase32(h))
			}
			if err != nil {
				return errors.Join(err, nar.Remove(root, base))
			}
			return env.Result(digest(h, size.n, map[string]any{"file": args[0], "path": args[1]}), func(w io.Writer) {
				fmt.Fprintf(w, "%s: restored from %d bytes, sha256 %s\n", args[1], size.n, storepath.EncodeBase32(h))
			})
		},
	}
	c.Flags().StringVar(&want, "hash", "", "SHA-256 that the nar must have, base32 or hex")
	return c
}

// parseHash reads a SHA-256 in base32 or hex; "" is none.
func parseHash(s string) ([]byte, error) {
	if s == "" {
		return nil, nil
	}
	if b, err := hex.DecodeString(s); err == nil && len(b) == sha256.Size {
		return b, nil
	}
	b, err := storepath.DecodeBase32(s, sha256.Size)
	if err != nil {
		return nil, frame.Usage("--hash %q is no SHA-256 in base32 or hex", s)
	}
	return b, nil
}
