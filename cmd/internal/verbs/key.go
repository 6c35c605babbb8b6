package verbs

import (
	"context"
	"encoding/base64"
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
	return noun("key", "signing keys of persons, tracks and zones", keyGenerate(env), keyRenew(env), keyShow(env), keyAgent(env))
}

func keyGenerate(env *frame.Env) *cobra.Command {
	var open bool
	var kind string
	c := &cobra.Command{
		Use:   "generate NAME FILE",
		Short: "make a key that signs in one context",
		Long: `Make a key that signs in one context, and write it to FILE; its public half, a line for a root, to FILE.pub.

NAME is PERSON/CONTEXT; the contexts are root, order, manifest, sums, allowlist, statement and witness. TRACK/narinfo makes a track's Guix key, as
'guix archive --generate-key' does. A key of kind mldsa87 (ML-DSA-87) signs manifests beside another key, never instead of one. Keys on cards, in FIDO2 keys
and of OpenSSH are not made here: 'key agent' enrols them. See docs/spec/keys.md.`,
		Example: "  sallyport key generate alice/allowlist alice.allowlist.key\n  sallyport key generate --kind mldsa87 carol/manifest carol.mldsa.key\n" +
			"  sallyport key generate dev/narinfo dev.narinfo.key\n" +
			"  SALLYPORT_PASSPHRASE_FILE=pass sallyport key generate carol/manifest carol.manifest.key",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, file := args[0], args[1]
			for _, f := range []string{file, file + ".pub"} {
				if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
					return frame.WithHint(fmt.Errorf("%s is there already; a key is never overwritten", f), "'key show --line FILE' prints the public half of a secret key again")
				}
			}
			secret, public, err := generate(env, trust.KeyKind(kind), name, file, open)
			defer clear(secret)
			if err != nil {
				return err
			}
			// The secret half first: the public one can be had from it again, if the machine stops in between.
			if err := frame.WriteNew(file, secret, 0o400); err != nil {
				return err
			}
			if err := frame.WriteNew(file+".pub", []byte(public.Line()+"\n"), 0o644); err != nil {
				return errors.Join(err, os.Remove(file))
			}
			out, err := describe(public)
			if err != nil {
				return err
			}
			out["name"], out["file"], out["public"] = name, file, public.Line()
			delete(out, "type")
			return env.Result(out, func(w io.Writer) { fmt.Fprintln(w, public.Line()) })
		},
	}
	c.Flags().BoolVar(&open, "no-passphrase", false, "do not encrypt the key: whoever reads the file can sign")
	c.Flags().StringVar(&kind, "kind", "", "ed25519 or mldsa87 (default: what the context asks for, an Ed25519 key)")
	return c
}

// generate returns a new key's file and its public line.
func generate(env *frame.Env, kind trust.KeyKind, name, file string, open bool) (secret []byte, public trust.RootKey, err error) {
	if track, ok := strings.CutSuffix(name, "/"+string(trust.ContextNarinfo)); ok {
		if err := trust.CheckWord(track); err != nil {
			return nil, public, frame.Usage("track: %v", err)
		}
		if kind != "" {
			return nil, public, frame.Usage("a track's key is always Guix's: --kind has no meaning for it")
		}
		k, err := signature.GenerateKey(env.Rand)
		if err != nil {
			return nil, public, err
		}
		if !open {
			env.Say("note: Guix's key format has no passphrase; keep %s where only the signer reads it", file)
		}
		return k.Bytes(), trust.RootKey{Context: trust.ContextNarinfo, Owner: track, Key: k.Public().Hex()}, nil
	}
	var k *trust.Key
	switch kind {
	case "", trust.KeyEd25519: // which a witness and sums have in another form
		k, err = trust.GenerateKey(env.Rand, name)
	case trust.KeyMLDSA87:
		k, err = trust.GenerateKeyOf(env.Rand, kind, name)
	default:
		return nil, public, frame.Usage("--kind %q: want ed25519 or mldsa87; keys of the other kinds are enrolled with 'key agent'", string(kind))
	}
	if err != nil {
		return nil, public, frame.Usage("%v", err)
	}
	var passphrase []byte
	if open {
		env.Say("WARNING: %s is not encrypted; whoever reads it can sign as %s", file, name)
	} else {
		if passphrase, err = env.NewPassphrase(file); err != nil {
			return nil, public, err
		}
		env.Say("encrypting %s: this takes seconds and 1 GiB of memory, so that guessing a passphrase does, too", file)
	}
	defer clear(passphrase)
	secret, err = k.Marshal(env.Rand, passphrase)
	return secret, k.RootKey(), err
}

// describe says all that there is to say of a public line, for --json.
func describe(k trust.RootKey) (map[string]any, error) {
	out := map[string]any{"type": "key", "context": string(k.Context), "owner": k.Owner, "public": k.Key}
	if k.Context == trust.ContextNarinfo {
		out["kind"] = string(trust.KeyGuix)
		return out, nil
	}
	sum := trust.Sum([]byte(k.Line() + "\n"))
	out["sha256"], out["fingerprint"] = sum.String(), trust.Fingerprint(sum)
	v, err := k.VKey()
	if err != nil {
		return nil, err
	}
	out["kind"] = string(v.Kind())
	switch v.Kind() {
	case trust.KeyMinisign:
		if out["id"], err = trust.SumsKeyID(k.Key); err != nil {
			return nil, err
		}
	default:
		out["id"] = v.ID()
	}
	if wire, err := v.SSHPublic(); err == nil {
		out["ssh_public"], out["ssh_fingerprint"] = sshLine(wire), trust.SSHFingerprint(wire)
	}
	if pem, err := v.PEM(); err == nil {
		out["pem"] = string(pem)
	}
	return out, nil
}

// sshLine prints an SSH public key as OpenSSH's files have it: ALGORITHM BASE64.
func sshLine(wire []byte) string {
	return trust.SSHAlgorithm(wire) + " " + base64.StdEncoding.EncodeToString(wire)
}

func keyShow(env *frame.Env) *cobra.Command {
	var asGuix, asPEM, asSSH, asLine bool
	c := &cobra.Command{
		Use:   "show FILE...",
		Short: "print what is in .pub files, and the public halves of key files",
		Long: `Print what is in .pub files of 'key generate' and 'key agent', and in files signing-key.pub of Guix. Of a secret key file, whose passphrase is asked for, the public
half is shown, so that a lost .pub file can be had again.

The fingerprint is of the .pub file: the first 160 bits of what sha256sum prints for it. It is what is compared with paper before a key is enrolled.

  --guix  a track's key in Guix's form, for 'guix archive --authorize' and /etc/guix/signing-key.pub
  --line  exactly the line of the .pub file
  --pem   for OpenSSL (docs/spec/keys.md section 5)
  --ssh   a line for the file of allowed signers that ssh-keygen -Y verify takes, with the namespace of the key's context`,
		Example: "  sallyport key show *.pub\n  sallyport key show --guix dev.narinfo.key.pub | guix archive --authorize\n  sallyport key show --pem carol.mldsa.key.pub > carol.pem\n" +
			"  sallyport key show --json alice.allowlist.pub | jq -r .ssh_fingerprint\n  sallyport key show --line alice.allowlist.key > alice.allowlist.key.pub",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			forms := 0
			for _, form := range []bool{asGuix, asPEM, asSSH, asLine} {
				if form {
					forms++
				}
			}
			if forms > 1 {
				return frame.Usage("--guix, --line, --pem and --ssh are one or the other")
			}
			for _, f := range args {
				k, guix, err := readAnyPublic(cmd.Context(), env, f)
				if err != nil {
					return err
				}
				if asGuix && guix == (signature.PublicKey{}) {
					return frame.Usage("%s is a key of context %s: only keys of tracks (narinfo) are Guix's", f, k.Context)
				}
				var out map[string]any
				if k.Owner == noOwner {
					out = map[string]any{"type": "key", "context": string(k.Context), "owner": k.Owner, "public": k.Key, "kind": string(trust.KeyGuix)}
				} else if out, err = describe(k); err != nil {
					return fmt.Errorf("%s: %w", f, err)
				}
				out["file"] = filepath.Base(f)
				if guix != (signature.PublicKey{}) {
					out["guix"] = guix.String()
				}
				pem, _ := out["pem"].(string)
				ssh, _ := out["ssh_public"].(string)
				if asPEM && pem == "" || asSSH && ssh == "" {
					return frame.Usage("%s: a key of kind %s has no such form", f, out["kind"])
				}
				err = env.Result(out, func(w io.Writer) {
					switch {
					case asGuix:
						fmt.Fprint(w, guix)
					case asLine:
						fmt.Fprintln(w, k.Line())
					case asPEM:
						fmt.Fprint(w, pem)
					case asSSH:
						fmt.Fprintf(w, "%s namespaces=\"sallyport-%s\" %s\n", k.Owner, k.Context, ssh)
					default:
						fmt.Fprintf(w, "%-11s %-16s %s\n", k.Context, k.Owner, k.Key)
						if k.Context != trust.ContextNarinfo {
							fmt.Fprintf(w, "%-11s %s, %s, fingerprint %s\n", "", out["kind"], out["id"], out["fingerprint"])
						}
					}
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asGuix, "guix", false, "print keys of tracks in Guix's form")
	c.Flags().BoolVar(&asLine, "line", false, "print the line of the .pub file")
	c.Flags().BoolVar(&asPEM, "pem", false, "print the public key in PEM")
	c.Flags().BoolVar(&asSSH, "ssh", false, "print a line of allowed signers for ssh-keygen -Y verify")
	return c
}

// noOwner stands for whom a key of Guix's belongs to: its file does not say.
const noOwner = "-"

// readAnyPublic reads a .pub file, the public half of a secret key file, or a public key of Guix, which names no owner. guix is zero for a key that is not Guix's.
func readAnyPublic(ctx context.Context, env *frame.Env, file string) (k trust.RootKey, guix signature.PublicKey, err error) {
	data, err := frame.ReadBounded(file, signature.MaxText)
	if err != nil {
		return k, guix, err
	}
	defer clear(data) // it may be a secret
	switch {
	case strings.HasPrefix(string(data), "("):
		guix, err = signature.ParsePublicKey(data)
		if err != nil {
			return k, guix, fmt.Errorf("%s: %w", file, err)
		}
		return trust.RootKey{Context: trust.ContextNarinfo, Owner: noOwner, Key: keyName(guix)}, guix, nil
	case strings.HasPrefix(string(data), "untrusted comment:") && strings.Contains(firstLine(data), "secret key"):
		s, err := env.Key(ctx, file)
		if err != nil {
			return k, guix, err
		}
		return s.RootKey(), guix, nil
	}
	k, err = readPublic(file)
	if err == nil && k.Context == trust.ContextNarinfo {
		guix, err = signature.ParsePublicKeyHex(k.Key)
	}
	return k, guix, err
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

// readPublic reads a .pub file: CONTEXT OWNER KEY.
func readPublic(file string) (trust.RootKey, error) { return frame.ReadPublic(file) }
