package verbs

import (
	"encoding/hex"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/internal/trust"
)

func narinfoNoun(env *frame.Env) *cobra.Command {
	return noun("narinfo", "what substitute servers say of items", narinfoVerify(env))
}

func narinfoVerify(env *frame.Env) *cobra.Command {
	var aclFile string
	c := &cobra.Command{
		Use:     "verify --acl FILE NARINFO",
		Short:   "check a narinfo's signature against an access-control list or one public key",
		Example: "  sallyport narinfo verify --acl /etc/guix/acl x.narinfo\n  sallyport narinfo verify --acl dev.narinfo.pub x.narinfo",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if aclFile == "" {
				return frame.Usage("no key to check with: give --acl FILE")
			}
			data, err := frame.ReadBounded(aclFile, 1<<20)
			if err != nil {
				return err
			}
			acl, err := signature.ParseACL(data)
			if err != nil {
				key, keyErr := signature.ParsePublicKey(data)
				if keyErr != nil {
					return fmt.Errorf("%s is neither an access-control list (%w) nor a public key (%w)", aclFile, err, keyErr)
				}
				acl = signature.NewACL(key)
			}
			body, err := frame.ReadBounded(args[0], 1<<20)
			if err != nil {
				return err
			}
			n, err := narinfo.Verify(body, acl)
			if err != nil {
				return trust.Refuse("narinfo-refused", args[0], "%v", err)
			}
			return env.Result(map[string]any{"store_path": n.StorePath.String(), "nar_sha256": hex.EncodeToString(n.NarHash[:]), "nar_size": n.NarSize}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: good signature, nar sha256 %s, %d bytes\n", n.StorePath, hex.EncodeToString(n.NarHash[:]), n.NarSize)
			})
		},
	}
	c.Flags().StringVar(&aclFile, "acl", "", "access-control list (/etc/guix/acl) or a public key file")
	return c
}
