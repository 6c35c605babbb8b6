package verbs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/signature"
	"sallyport/internal/trust"
)

func key(env *frame.Env) *cobra.Command {
	return noun("key", "signing keys of persons and tracks", keyGenerate(env), keyShow(env))
}

func keyGenerate(env *frame.Env) *cobra.Command {
	var open bool
	c := &cobra.Command{
		Use:   "generate NAME FILE",
		Short: "make a key that signs in one context",
		Long: `Make a key that signs in one context, and write it to FILE; its public half, a line for a root, to FILE.pub.

NAME is PERSON/CONTEXT; the contexts are root, manifest, sums, allowlist, statement and witness. TRACK/narinfo makes
a track's Guix key, as 'guix archive --generate-key' does. See docs/spec/trust.md.`,
		Example: "  sallyport key generate alice/allowlist alice.allowlist.key\n  sallyport key generate dev/narinfo dev.narinfo.key\n" +
			"  SALLYPORT_PASSPHRASE_FILE=pass sallyport key generate carol/manifest carol.manifest.key",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, file := args[0], args[1]
			for _, f := range []string{file, file + ".pub"} {
				if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("%s is there already; a key is never overwritten", f)
				}
			}
			secret, public, err := generate(env, name, file, open)
			if err != nil {
				return err
			}
			if err := frame.WriteNew(file, secret, 0o400); err != nil {
				return err
			}
			if err := frame.WriteNew(file+".pub", []byte(public+"\n"), 0o644); err != nil {
				return err
			}
			return env.Result(map[string]string{"name": name, "file": file, "public": public}, func(w io.Writer) { fmt.Fprintln(w, public) })
		},
	}
	c.Flags().BoolVar(&open, "no-passphrase", false, "do not encrypt the key: whoever reads the file can sign")
	return c
}

// generate returns a new key's file and its public line, CONTEXT OWNER KEY, as it stands in a root.
func generate(env *frame.Env, name, file string, open bool) (secret []byte, public string, err error) {
	if track, ok := strings.CutSuffix(name, "/"+string(trust.ContextNarinfo)); ok {
		if err := trust.CheckWord(track); err != nil {
			return nil, "", frame.Usage("track: %v", err)
		}
		k, err := signature.GenerateKey(env.Rand)
		if err != nil {
			return nil, "", err
		}
		if !open {
			env.Say("note: Guix's key format has no passphrase; keep %s where only the signer reads it", file)
		}
		return k.Bytes(), fmt.Sprintf("%s %s %s", trust.ContextNarinfo, track, k.Public().Hex()), nil
	}
	k, err := trust.GenerateKey(env.Rand, name)
	if err != nil {
		return nil, "", frame.Usage("%v", err)
	}
	var passphrase []byte
	if open {
		env.Say("WARNING: %s is not encrypted; whoever reads it can sign as %s", file, name)
	} else if passphrase, err = env.NewPassphrase(file); err != nil {
		return nil, "", err
	}
	defer clear(passphrase)
	secret, err = k.Marshal(env.Rand, passphrase)
	line := k.RootKey()
	return secret, fmt.Sprintf("%s %s %s", line.Context, line.Owner, line.Key), err
}

func keyShow(env *frame.Env) *cobra.Command {
	var asGuix bool
	c := &cobra.Command{
		Use:   "show FILE...",
		Short: "print the public lines in .pub files",
		Long: "Print the public lines in .pub files of 'key generate', and in files signing-key.pub of Guix. With --guix the keys of tracks are printed in Guix's form, for\n" +
			"'guix archive --authorize' and /etc/guix/signing-key.pub.",
		Example: "  sallyport key show *.pub\n  sallyport key show --guix dev.narinfo.key.pub | guix archive --authorize",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, f := range args {
				k, guix, err := readAnyPublic(f)
				if err != nil {
					return err
				}
				if asGuix && guix == (signature.PublicKey{}) {
					return frame.Usage("%s is a key of context %s: only keys of tracks (narinfo) are Guix's", f, k.Context)
				}
				out := map[string]string{"type": "key", "file": filepath.Base(f), "context": string(k.Context), "owner": k.Owner, "public": k.Key}
				if guix != (signature.PublicKey{}) {
					out["guix"] = guix.String()
				}
				err = env.Result(out, func(w io.Writer) {
					if asGuix {
						fmt.Fprint(w, guix)
						return
					}
					fmt.Fprintf(w, "%-11s %-16s %s\n", k.Context, k.Owner, k.Key)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asGuix, "guix", false, "print keys of tracks in Guix's form")
	return c
}

// readAnyPublic reads a .pub file, or a public key of Guix, which names no owner. guix is zero for a key that is not Guix's.
func readAnyPublic(file string) (k trust.RootKey, guix signature.PublicKey, err error) {
	data, err := frame.ReadBounded(file, signature.MaxText)
	if err != nil {
		return k, guix, err
	}
	if strings.HasPrefix(string(data), "(") {
		guix, err = signature.ParsePublicKey(data)
		if err != nil {
			return k, guix, fmt.Errorf("%s: %w", file, err)
		}
		return trust.RootKey{Context: trust.ContextNarinfo, Owner: "-", Key: keyName(guix)}, guix, nil
	}
	k, err = readPublic(file)
	if err == nil && k.Context == trust.ContextNarinfo {
		guix, err = signature.ParsePublicKeyHex(k.Key)
	}
	return k, guix, err
}

// readPublic reads a .pub file: CONTEXT OWNER KEY.
func readPublic(file string) (trust.RootKey, error) {
	data, err := frame.ReadBounded(file, 4096)
	if err != nil {
		return trust.RootKey{}, err
	}
	f := strings.Split(strings.TrimSuffix(string(data), "\n"), " ")
	if len(f) != 3 {
		return trust.RootKey{}, fmt.Errorf("%s: want one line, CONTEXT OWNER KEY, as 'key generate' writes it", file)
	}
	context, err := trust.ParseContext(f[0])
	if err != nil {
		return trust.RootKey{}, fmt.Errorf("%s: %w", file, err)
	}
	return trust.RootKey{Context: context, Owner: f[1], Key: f[2]}, nil
}
