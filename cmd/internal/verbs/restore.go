package verbs

import (
	"bufio"
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

// A counter counts what goes through.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

func narCreate(env *frame.Env) *cobra.Command {
	var name string
	c := &cobra.Command{
		Use:     "create PATH",
		Short:   "write the nar of a file or tree",
		Example: "  sallyport nar create --output hello.nar ./hello\n  sallyport nar create ./hello | zstd > hello.nar.zst",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			root, err := os.OpenRoot(filepath.Dir(path))
			if err != nil {
				return err
			}
			defer root.Close()
			sum, size := sha256.New(), new(counter)
			err = output(env, name, func(w io.Writer) error {
				return nar.Dump(io.MultiWriter(w, sum, size), root.FS(), filepath.Base(path))
			})
			if err != nil {
				return err
			}
			h := sum.Sum(nil)
			return result(env, name, map[string]any{"file": name, "path": args[0], "size": size.n, "sha256": hex.EncodeToString(h), "base32": storepath.EncodeBase32(h)},
				fmt.Sprintf("%d bytes, sha256 %s", size.n, storepath.EncodeBase32(h)))
		},
	}
	c.Flags().StringVarP(&name, "output", "o", "", "file to write, which must not be there (default standard output)")
	return c
}

func narRestore(env *frame.Env) *cobra.Command {
	var want string
	c := &cobra.Command{
		Use:   "restore FILE TARGET",
		Short: "make the tree that a nar holds",
		Long: "Make the tree that a nar holds, as TARGET, which must not be there. Nothing is written outside of it, and nothing is left if the nar is\n" +
			"malformed, goes on after its end, or has another hash than --hash says. FILE may be - for standard input.",
		Example: "  sallyport nar restore hello.nar ./hello\n  sallyport nar restore --hash 1q8p4x... hello.nar ./hello",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			wanted, err := parseHash(want)
			if err != nil {
				return err
			}
			f, err := input(env, args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			target, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			root, err := os.OpenRoot(filepath.Dir(target))
			if err != nil {
				return err
			}
			defer root.Close()
			sum, size, base := sha256.New(), new(counter), filepath.Base(target)
			in := bufio.NewReader(f)
			if err := nar.Restore(root, base, io.TeeReader(in, io.MultiWriter(sum, size))); err != nil {
				return asRefusal(args[0], err)
			}
			h := sum.Sum(nil)
			var refusal error
			switch _, err := in.ReadByte(); {
			case err == nil:
				refusal = trust.Refuse("nar-trailing", args[0], "bytes behind the end of the archive").At(size.n)
			case err != io.EOF:
				refusal = fmt.Errorf("%s: %w", args[0], err)
			case wanted != nil && hex.EncodeToString(wanted) != hex.EncodeToString(h):
				refusal = trust.Refuse("nar-digest", args[0], "the SHA-256 of the nar is %s", storepath.EncodeBase32(h))
			}
			if refusal != nil {
				return errors.Join(refusal, nar.Remove(root, base))
			}
			return env.Result(map[string]any{"file": args[0], "path": args[1], "size": size.n, "sha256": hex.EncodeToString(h), "base32": storepath.EncodeBase32(h)}, func(w io.Writer) {
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
