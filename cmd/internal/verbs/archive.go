package verbs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/archive"
	"sallyport/guix/daemon"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

func archiveNoun(env *frame.Env) *cobra.Command {
	return noun("archive", "streams of store items, as 'guix archive' writes them", archiveVerify(env), archiveList(env), archiveExport(env), archiveImport(env))
}

// itemJSON is an item as --json prints it.
func itemJSON(item *archive.Item) map[string]any {
	return map[string]any{"type": "item", "path": item.Path.String(), "nar_sha256": hex.EncodeToString(item.NarHash[:]), "nar_size": item.NarSize,
		"references": names(item.References), "deriver": item.Deriver.String()}
}

// eachItem reads the stream in a file.
func eachItem(ctx context.Context, env *frame.Env, file string, each func(*archive.Item) error) error {
	f, err := input(ctx, env, file)
	if err != nil {
		return err
	}
	defer f.Close()
	z := archive.NewReader(f)
	for {
		if _, err := z.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return judged(file, err)
		}
		item, err := z.Item()
		if err != nil {
			return judged(file, err)
		}
		if err := each(item); err != nil {
			return err
		}
	}
}

// verifier returns what checks the signature of an item, in strict mode or not.
func verifier(acl signature.ACL, strict bool) func(*archive.Item) (signature.PublicKey, error) {
	return func(item *archive.Item) (key signature.PublicKey, err error) {
		if strict {
			key, err = item.VerifyStrict(acl)
		} else {
			key, err = item.Verify(acl)
		}
		if err != nil {
			err = judged(item.Path.String(), err)
		}
		return key, err
	}
}

func archiveVerify(env *frame.Env) *cobra.Command {
	var aclFile string
	var strict bool
	c := &cobra.Command{
		Use:   "verify --acl FILE ARCHIVE",
		Short: "check every item and signature of an export stream",
		Long: "Check that a file is one well-formed export stream and that each item of it was signed by a key of the list. ARCHIVE may be - for standard\n" +
			"input. A signature says who vouches for an item; nothing in a stream ties contents to a path. With --strict signatures have to be spelled as\n" +
			"Guix spells them, to the byte.",
		Example: "  sallyport archive verify --acl /etc/guix/acl hello.nar\n  guix archive --export -r hello | sallyport archive verify --acl signing-key.pub -",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			acl, err := readACL(cmd.Context(), env, aclFile)
			if err != nil {
				return err
			}
			type good struct {
				item *archive.Item
				key  signature.PublicKey
			}
			var all []good
			var rs trust.Refusals
			check := verifier(acl, strict)
			err = eachItem(cmd.Context(), env, args[0], func(item *archive.Item) error {
				key, err := check(item)
				if err != nil {
					return rs.Merge(err)
				}
				item.Signature = nil
				all = append(all, good{item, key})
				return nil
			})
			if err = rs.Merge(err); err != nil {
				return err
			}
			if err := rs.Err(); err != nil {
				return err
			}
			for _, g := range all {
				out := itemJSON(g.item)
				out["key"] = keyName(g.key)
				err := env.Result(out, func(w io.Writer) {
					fmt.Fprintf(w, "%s: good signature by %.16s, nar sha256 %s, %d bytes\n", g.item.Path, keyName(g.key), storepath.EncodeBase32(g.item.NarHash[:]), g.item.NarSize)
				})
				if err != nil {
					return err
				}
			}
			env.Say("%s, all signed", trust.Count(len(all), "item"))
			return nil
		},
	}
	c.Flags().StringVar(&aclFile, "acl", "", aclHelp)
	c.Flags().BoolVar(&strict, "strict", false, strictHelp)
	return c
}

func archiveList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "list ARCHIVE",
		Short:   "list the items of an export stream, unverified",
		Long:    "List the items of an export stream: what it says of itself, without a look at the signatures. ARCHIVE may be - for standard input.",
		Example: "  sallyport archive list hello.nar\n  sallyport archive list --json hello.nar | jq -r '.references[]'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return eachItem(cmd.Context(), env, args[0], func(item *archive.Item) error {
				return env.Result(itemJSON(item), func(w io.Writer) {
					fmt.Fprintf(w, "%12d %s\n", item.NarSize, item.Path)
				})
			})
		},
	}
}

// once returns paths in their order, each once.
func once(paths []storepath.Path) []storepath.Path {
	seen := make(map[storepath.Path]bool)
	return slices.DeleteFunc(slices.Clone(paths), func(p storepath.Path) bool {
		again := seen[p]
		seen[p] = true
		return again
	})
}

// order returns items and all that they refer to, references first. It is not recursive: chains are as long as somebody made them.
func order(ctx context.Context, c *daemon.Client, roots []storepath.Path) ([]storepath.Path, error) {
	type visit struct {
		path storepath.Path
		refs []storepath.Path
	}
	var all []storepath.Path
	seen := make(map[storepath.Path]bool)
	var stack []visit
	enter := func(p storepath.Path) error {
		if seen[p] {
			return nil
		}
		seen[p] = true
		refs, err := c.References(ctx, p)
		stack = append(stack, visit{p, refs})
		return err
	}
	for _, root := range roots {
		if err := enter(root); err != nil {
			return nil, err
		}
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			if len(top.refs) == 0 {
				all = append(all, top.path)
				stack = stack[:len(stack)-1]
				continue
			}
			next := top.refs[0]
			top.refs = top.refs[1:]
			if err := enter(next); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func archiveExport(env *frame.Env) *cobra.Command {
	var name string
	var recursive bool
	c := &cobra.Command{
		Use:   "export ITEM...",
		Short: "write items of the store as an export stream, signed by guix-daemon",
		Long: "Write items of the store as an export stream, each signed with the key of this machine (/etc/guix/signing-key.sec), which only guix-daemon\n" +
			"reads. With --recursive all that they refer to comes along, references first, as the other side needs it.",
		Example: "  sallyport archive export --recursive --output hello.nar /gnu/store/...-hello-2.12.2",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withItems(cmd.Context(), env, args, func(c *daemon.Client, items []storepath.Path) (err error) {
				if recursive {
					if items, err = order(cmd.Context(), c, items); err != nil {
						return err
					}
				} else {
					items = once(items)
				}
				var done []*archive.Item
				err = output(env, name, func(w io.Writer) error {
					done, err = c.Export(cmd.Context(), w, items...)
					return err
				})
				if err != nil {
					return err
				}
				size := int64(0)
				paths := []string{}
				for _, item := range done {
					size += item.NarSize
					paths = append(paths, item.Path.String())
				}
				return result(env, name, map[string]any{"file": name, "items": paths, "nar_bytes": size}, fmt.Sprintf("%s, %d bytes of nars", trust.Count(len(done), "item"), size))
			})
		},
	}
	c.Flags().StringVarP(&name, "output", "o", "", "file to write, which must not be there (default standard output)")
	c.Flags().BoolVarP(&recursive, "recursive", "r", false, "also all that the items refer to")
	return c
}

func archiveImport(env *frame.Env) *cobra.Command {
	var aclFile string
	var strict bool
	c := &cobra.Command{
		Use:   "import [--acl FILE] ARCHIVE",
		Short: "add the items of an export stream to the store, through guix-daemon",
		Long: "Add the items of an export stream to the store. guix-daemon wants each to be signed by a key of its own list; with --acl each must also be\n" +
			"signed by a key of that file. The daemon gets the end of an item only after all of it was read and checked here, because it would itself\n" +
			"take items whose names destroy the store. Items before one that is refused are in the store by then. ARCHIVE may be - for standard input.",
		Example: "  sallyport archive import --acl signing-key.pub hello.nar\n  sallyport archive import hello.nar",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var check func(*archive.Item) (signature.PublicKey, error)
			switch {
			case aclFile != "":
				acl, err := readACL(cmd.Context(), env, aclFile)
				if err != nil {
					return err
				}
				check = verifier(acl, strict)
			case strict:
				return frame.Usage("--strict is about the signatures that --acl checks")
			}
			f, err := input(cmd.Context(), env, args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			c, err := dial(cmd.Context(), env)
			if err != nil {
				return err
			}
			defer c.Close()
			passed := 0
			paths, err := c.Import(cmd.Context(), f, func(item *archive.Item) error {
				if check != nil {
					if _, err := check(item); err != nil {
						return err
					}
				}
				passed++
				return nil
			})
			if err != nil {
				if passed > 0 {
					env.Say("before that %s went to guix-daemon and may be in the store", trust.Count(passed, "item"))
				}
				var said *daemon.Error
				if errors.As(err, &said) && strings.Contains(said.Message, "unauthorized public key") {
					return frame.WithHint(err, "guix-daemon believes the keys in /etc/guix/acl; 'guix archive --authorize < KEY.pub' adds one")
				}
				return judged(args[0], err)
			}
			for _, p := range paths {
				if err := env.Result(map[string]string{"type": "item", "path": p.String()}, func(w io.Writer) { fmt.Fprintln(w, p) }); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&aclFile, "acl", "", aclHelp)
	c.Flags().BoolVar(&strict, "strict", false, strictHelp)
	return c
}
