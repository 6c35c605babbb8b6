package verbs

import (
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
	return noun("nar", "Guix's archive format", narHash(env), narVerify(env), narList(env))
}

func narHash(env *frame.Env) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "hash PATH",
		Short:   "print the SHA-256 of the nar of a file or tree, as 'guix hash -S nar' does",
		Example: "  sallyport nar hash ./hello\n  sallyport nar hash --format hex /usr/share/doc/bash",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "base32" && format != "hex" {
				return frame.Usage("--format %q: want base32 or hex", format)
			}
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			root, err := os.OpenRoot(filepath.Dir(path))
			if err != nil {
				return err
			}
			defer root.Close()
			digest, _, err := nar.Sum(root.FS(), filepath.Base(path))
			if err != nil {
				return err
			}
			sum := digest[:]
			text := storepath.EncodeBase32(sum)
			if format == "hex" {
				text = hex.EncodeToString(sum)
			}
			return env.Result(map[string]string{"sha256": hex.EncodeToString(sum), "base32": storepath.EncodeBase32(sum), "path": args[0]},
				func(w io.Writer) { fmt.Fprintln(w, text) })
		},
	}
	c.Flags().StringVar(&format, "format", "base32", "base32 (Guix's) or hex")
	return c
}

// readNar walks a nar file and refuses what is not one, trailing bytes included.
func readNar(file string, each func(*nar.Header)) (files, bytes int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	r := nar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return files, bytes, asRefusal(file, err)
		}
		if each != nil {
			each(h)
		}
		if h.Type == nar.Regular {
			files++
			n, err := io.Copy(io.Discard, r)
			bytes += n
			if err != nil {
				return files, bytes, asRefusal(file, err)
			}
		}
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 {
		return files, bytes, trust.Refuse("nar-trailing", file, "bytes behind the end of the archive").At(r.Offset())
	}
	return files, bytes, nil
}

// asRefusal turns a format's error into a refusal that names the file.
func asRefusal(subject string, err error) error {
	var n *nar.Error
	if errors.As(err, &n) {
		return trust.Refuse("nar-"+n.Code, subject, "%s", n.Detail).At(n.Offset)
	}
	return fmt.Errorf("%s: %w", subject, err)
}

func narVerify(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "verify FILE",
		Short:   "check that a file is one well-formed nar, or say at which byte it is not",
		Example: "  sallyport nar verify hello.nar",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, bytes, err := readNar(args[0], nil)
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"file": args[0], "files": files, "bytes": bytes}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: well-formed, %d files, %d bytes\n", args[0], files, bytes)
			})
		},
	}
}

func narList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "list FILE",
		Short:   "list what a nar holds",
		Example: "  sallyport nar list hello.nar\n  sallyport nar list --json hello.nar | jq -r .path",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, _, err := readNar(args[0], func(h *nar.Header) {
				kind := map[nar.Type]string{nar.Regular: "regular", nar.Directory: "directory", nar.Symlink: "symlink"}[h.Type]
				err := env.Result(map[string]any{"type": kind, "path": h.Path, "size": h.Size, "executable": h.Executable, "target": h.Target}, func(w io.Writer) {
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
				if err != nil {
					env.Say("%v", err)
				}
			})
			return err
		},
	}
}
