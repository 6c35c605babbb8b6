package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate/create"
	"sallyport/internal/trust"
)

// maxCertificate bounds the file of a committer's certificate.
const maxCertificate = 1 << 20

func channelCreate(env *frame.Env) *cobra.Command {
	var (
		o                 create.Options
		keyFile, gpgPrint string
		open              bool
		committers        []string
	)
	c := &cobra.Command{
		Use:   "create --name NAME --url URL --author 'NAME <ADDRESS>' (--key FILE | --gpg FINGERPRINT) DIR",
		Short: "make a channel of one's own, with a signed introduction",
		Long: `Make a channel of one's own: a git repository in DIR with .guix-channel, .guix-authorizations, the branch keyring with the public keys, and a first commit
that is signed, the introduction. What is printed is what others need: the introduction, a channels.scm, and the command by which officers have the
enclave take the channel. --json has the order itself, as a line of the orders without its reason.

With --key, a new OpenPGP key is made and written to FILE, which gpg imports; its passphrase is asked for. With --gpg, the program gpg signs with a key or
subkey that it has, with its agent. Whichever it is, DIR is set up so that further commits are ordinary ones that git has gpg sign: git commit -m ...

--url is the one URL under which the channel is known everywhere. Those who may sign beside the author are named with --committer: the file of a
certificate, and the fingerprint of the subkey that signs, if it is not the primary key. Name one at the least: if the only key is lost, so is the channel.`,
		Example: `  sallyport channel create --name enclave-packages --url https://git.enclave.example/packages.git --author 'Alice Example <alice@enclave.example>' --key alice.openpgp.key packages
  gpg --import alice.openpgp.key
  sallyport channel create --name tools --url https://git.enclave.example/tools.git --author 'Bob <bob@enclave.example>' --gpg 3CE464558A84FDC69DB40CFB090B11993D9AEBB5 --committer alice.asc tools
  SALLYPORT_PASSPHRASE_FILE=pass sallyport channel create --json --name ... --key alice.openpgp.key packages | jq -r .order`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Date = env.Clock()
			wrong := o.Check()
			if (keyFile == "") == (gpgPrint == "") {
				wrong = errors.Join(wrong, errors.New("give either --key FILE, for a new key, or --gpg FINGERPRINT, for one that gpg has"))
			}
			if wrong != nil {
				return frame.Usage("%v", wrong)
			}
			for _, text := range committers {
				one, err := committer(text)
				if err != nil {
					return err
				}
				o.Committers = append(o.Committers, one)
			}
			if _, err := os.Lstat(args[0]); !errors.Is(err, fs.ErrNotExist) {
				return frame.WithHint(fmt.Errorf("%s is there already", args[0]), "a channel is made in a new directory")
			}
			if gpgPrint != "" {
				return createWithGPG(cmd.Context(), env, args[0], o, gpgPrint)
			}
			return createWithKey(cmd.Context(), env, args[0], o, keyFile, open)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Name, "name", "", "the channel's name")
	f.StringVar(&o.URL, "url", "", "the one URL under which it is known")
	f.StringVar(&o.Branch, "branch", "master", "its branch")
	f.StringVar(&o.Author, "author", "", "who makes it: NAME <ADDRESS>")
	f.StringVarP(&o.Message, "message", "m", "", "of the introduction")
	f.StringVar(&keyFile, "key", "", "make a new OpenPGP key, and write its secret half to this file")
	f.BoolVar(&open, "no-passphrase", false, "with --key: do not encrypt the key; whoever reads the file can sign")
	f.StringVar(&gpgPrint, "gpg", "", "sign with this key or subkey of gpg: its fingerprint")
	f.StringArrayVar(&committers, "committer", nil, "FILE or FILE=FINGERPRINT: a certificate whose owner may sign, too")
	return c
}

// committer reads FILE or FILE=FINGERPRINT.
func committer(text string) (create.Committer, error) {
	file, print, named := strings.Cut(text, "=")
	data, err := frame.ReadBounded(file, maxCertificate)
	if err != nil {
		return create.Committer{}, err
	}
	ring := openpgp.NewKeyring()
	if err := ring.Add(file, data); err != nil {
		return create.Committer{}, frame.WithHint(fmt.Errorf("%s: %w", file, err), "gpg --export FINGERPRINT writes a certificate that can be read")
	}
	if named {
		f, err := scheme.ParseFingerprint(print)
		if err != nil {
			return create.Committer{}, frame.Usage("--committer %s: %q is not a fingerprint: 40 hexadecimal digits", file, print)
		}
		return create.Committer{Key: openpgp.Fingerprint(f), Public: data}, nil
	}
	var primary []*openpgp.Key
	for _, k := range ring.Keys() {
		if !k.Subkey {
			primary = append(primary, k)
		}
	}
	if len(primary) != 1 {
		return create.Committer{}, frame.Usage("--committer %s: the file has %d certificates, not one: name the key, FILE=FINGERPRINT", file, len(primary))
	}
	return create.Committer{Key: primary[0].Fingerprint, Public: data}, nil
}

func createWithGPG(ctx context.Context, env *frame.Env, dir string, o create.Options, print string) error {
	f, err := scheme.ParseFingerprint(print)
	if err != nil {
		return frame.Usage("--gpg %q is not a fingerprint: 40 hexadecimal digits (quote it if it has spaces)", print)
	}
	gpg, err := create.FindGPG(env.Getenv("PATH"))
	if err != nil {
		return err
	}
	key, err := gpg.Key(ctx, openpgp.Fingerprint(f))
	if err != nil {
		return err
	}
	made, err := create.Repository(ctx, dir, o, key)
	if err != nil {
		return err
	}
	return printCreated(env, dir, "", made)
}

// createWithKey makes a key and, once that is on the disk, the channel: an introduction whose key is lost would be of no use.
func createWithKey(ctx context.Context, env *frame.Env, dir string, o create.Options, file string, open bool) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return frame.WithHint(fmt.Errorf("%s is there already; a key is never overwritten", file), "gpg --import it, and create the channel with --gpg FINGERPRINT")
	}
	key, err := create.NewKey(env.Rand, o.Date, o.Author)
	if err != nil {
		return err
	}
	defer key.Wipe()
	var passphrase []byte
	if open {
		env.Say("WARNING: %s is not encrypted; whoever reads it can sign as %s", file, o.Author)
	} else if passphrase, err = env.NewPassphrase(file); err != nil {
		return err
	}
	defer clear(passphrase)
	secret, err := key.Secret(env.Rand, passphrase, open)
	if err != nil {
		return err
	}
	defer clear(secret)
	if err := frame.WriteNew(file, secret, 0o400); err != nil {
		return err
	}
	made, err := create.Repository(ctx, dir, o, key)
	if err != nil {
		// Nothing was signed with it that anybody has.
		return errors.Join(err, os.Remove(file))
	}
	return printCreated(env, dir, file, made)
}

func printCreated(env *frame.Env, dir, file string, made *create.Made) error {
	order := made.Order
	line := fmt.Sprintf("channel %s %s %s %s %s %s", order.Name, order.URL, order.Branch, order.Commit, order.Signer, trust.FormatDate(order.Date))
	channels := string(scheme.PrintChannels([]scheme.Channel{made.Channel()}))
	out := struct {
		Type         string `json:"type"`
		Dir          string `json:"dir"`
		Introduction string `json:"introduction"`
		Signer       string `json:"signer"`
		Keyring      string `json:"keyring"`
		KeyFile      string `json:"key_file,omitempty"`
		Channels     string `json:"channels"`
		Order        string `json:"order"`
	}{"created", dir, order.Commit, made.Signer.String(), made.Keyring.String(), file, channels, line}
	return env.Result(out, func(w io.Writer) {
		fmt.Fprintf(w, "channel %s is in %s\n\nintroduction %s\nsigned by    %s\n\nfor channels.scm:\n%s\n", order.Name, dir, order.Commit, made.Signer, channels)
		fmt.Fprintf(w, "officers have the enclave take it, once they have the introduction by a way that they trust:\nsallyport-station order channel --reason REASON %s %s %s %s %s\n", order.Name, order.URL, order.Branch, order.Commit, order.Signer)
		if file != "" {
			fmt.Fprintf(w, "\nto sign further commits:\ngpg --import %s\n", file)
		}
	})
}
