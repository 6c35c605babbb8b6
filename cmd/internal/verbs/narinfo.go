package verbs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/narinfo"
	"sallyport/guix/sexp"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
	"sallyport/internal/trust"
)

func narinfoNoun(env *frame.Env) *cobra.Command {
	return noun("narinfo", "what substitute servers say of items", narinfoVerify(env))
}

const (
	aclHelp    = "whom to believe: an access-control list (/etc/guix/acl), a public key of Guix, or a .pub file of 'key generate TRACK/narinfo'"
	strictHelp = "refuse what Guix spells otherwise, even if it says the same"
)

// readACL reads an access-control list, or one public key, in Guix's form or in that of 'key generate'.
func readACL(ctx context.Context, env *frame.Env, file string) (signature.ACL, error) {
	if file == "" {
		return signature.ACL{}, frame.Usage("no key to check with: give --acl FILE")
	}
	data, err := readAll(ctx, env, file, sexp.MaxSize)
	if err != nil {
		return signature.ACL{}, err
	}
	text := strings.TrimLeft(string(data), " \t\n\v\f\r")
	switch {
	case strings.HasPrefix(text, "(acl"):
		acl, err := signature.ParseACL(data)
		if err != nil {
			return signature.ACL{}, fmt.Errorf("%s: %w", file, err)
		}
		return acl, nil
	case strings.HasPrefix(text, "("):
		k, err := signature.ParsePublicKey(data)
		if err != nil {
			return signature.ACL{}, fmt.Errorf("%s: %w", file, err)
		}
		return signature.NewACL(k), nil
	}
	if words := strings.Fields(text); len(words) == 3 && words[0] == string(trust.ContextNarinfo) {
		k, err := signature.ParsePublicKeyHex(words[2])
		if err != nil {
			return signature.ACL{}, fmt.Errorf("%s: %w", file, err)
		}
		return signature.NewACL(k), nil
	}
	return signature.ACL{}, frame.WithHint(fmt.Errorf("%s is neither an access-control list nor a public key that signs narinfos", file), "--acl wants %s", strings.TrimPrefix(aclHelp, "whom to believe: "))
}

// keyName is what a key is called in results: its point, or the hash of an RSA key.
func keyName(k signature.PublicKey) string {
	if !k.RSA() {
		return k.Hex()
	}
	sum := sha256.Sum256([]byte(k.String()))
	return "rsa-" + hex.EncodeToString(sum[:])
}

func narinfoVerify(env *frame.Env) *cobra.Command {
	var aclFile, item string
	var strict bool
	c := &cobra.Command{
		Use:   "verify --acl FILE NARINFO",
		Short: "check a narinfo's signature against an access-control list or one public key",
		Long: "Check that a file is one well-formed narinfo and that a key of the list signed it. Guix and this verb cannot know what a server was asked for: a server may\n" +
			"answer with the narinfo of another item, properly signed; --item compares. With --strict the narinfo has to be spelled as 'guix publish' spells it,\n" +
			"to the byte. NARINFO may be - for standard input.",
		Example: "  sallyport narinfo verify --acl /etc/guix/acl x.narinfo\n  sallyport narinfo verify --acl dev.narinfo.key.pub x.narinfo\n" +
			"  curl -s https://depot.example/cs56i9digj9qg1bd383cmxc6xrfpdn9n.narinfo |\n    sallyport narinfo verify --acl signing-key.pub --item cs56i9digj9qg1bd383cmxc6xrfpdn9n -",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			acl, err := readACL(cmd.Context(), env, aclFile)
			if err != nil {
				return err
			}
			hash := item
			if _, err := storepath.DecodeBase32(item, 20); err != nil && item != "" {
				paths, err := itemsOf([]string{item})
				if err != nil {
					return err
				}
				hash = paths[0].Hash()
			}
			body, err := readAll(cmd.Context(), env, args[0], narinfo.MaxSize)
			if err != nil {
				return err
			}
			verify := narinfo.Verify
			if strict {
				verify = narinfo.VerifyStrict
			}
			n, err := verify(body, acl)
			if err != nil {
				return judged(args[0], err)
			}
			if hash != "" {
				if err := n.Answers(hash); err != nil {
					return judged(args[0], err)
				}
			}
			sig, err := signature.Parse(n.Signature.Text)
			if err != nil {
				return err
			}
			k, err := sig.PublicKey()
			if err != nil {
				return err
			}
			files := []map[string]any{}
			for _, f := range n.Files {
				files = append(files, map[string]any{"url": f.URL, "compression": f.Compression, "size": f.FileSize})
			}
			return env.Result(map[string]any{"store_path": n.StorePath.String(), "nar_sha256": hex.EncodeToString(n.NarHash[:]), "nar_size": n.NarSize,
				"references": names(n.References), "deriver": n.Deriver.String(), "key": keyName(k), "files": files}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: good signature by %.16s, nar sha256 %s, %d bytes\n", n.StorePath, keyName(k), storepath.EncodeBase32(n.NarHash[:]), n.NarSize)
			})
		},
	}
	c.Flags().StringVar(&aclFile, "acl", "", aclHelp)
	c.Flags().StringVar(&item, "item", "", "item that it has to describe: a store path, its last component, or its hash part")
	c.Flags().BoolVar(&strict, "strict", false, strictHelp)
	return c
}
