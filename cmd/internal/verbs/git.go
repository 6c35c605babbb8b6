package verbs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/guix/channel"
	"sallyport/guix/channel/openpgp"
	"sallyport/guix/scheme"
	"sallyport/internal/judge/authenticate"
	"sallyport/internal/judge/authenticate/signed"
	"sallyport/internal/trust"
)

func gitNoun(env *frame.Env) *cobra.Command {
	return noun("git", "signed tags and commits of repositories that are no channels", gitVerify(env))
}

// maxKeyFiles bounds a directory of keys.
const maxKeyFiles = 10000

func gitVerify(env *frame.Env) *cobra.Command {
	var (
		repository, keyring, allowed, principal string
		fingerprints, alternates                []string
	)
	c := &cobra.Command{
		Use:   "verify [flags] (--keyring FILE --fingerprint FPR ... | --allowed-signers FILE) OBJECT...",
		Short: "check the signatures of tags and commits",
		Long: `Check the signature of each OBJECT: a tag, a branch, or the id of a tag or commit. Signatures of OpenPGP count if a key of the keyring made them whose
fingerprint is named; those of SSH, if the file of allowed signers (ssh-keygen(1)) lets their key sign for git at that time. A tag must have the name by
which it was asked for, and what it leads to must be there.

FILE of --keyring holds public keys as gpg --export writes them, with or without --armor; if it is a directory, all of its files that end in .key, .asc, .gpg
or .pgp do. Nothing in it counts but the keys that --fingerprint names; a primary key stands for its subkeys that are for signing.

Neither git, gpg nor ssh-keygen is run, and nothing of the repository's configuration is read. It is stricter than git: hashes like SHA-1, RSA keys
below 2048 bits, lightweight tags, text after a signature and the like are refused.`,
		Example: `  sallyport git verify --repository hello --keyring maintainers.asc --fingerprint "8A8A 4F52 04B6 6FC9 6F0D  2E0D 4A3B 0C9A 3B5A 7B21" v2.12
  sallyport git verify --repository age --allowed-signers signers --principal release@example.org v1.2.0 v1.2.1
  sallyport git verify --repository hello --keyring keys/ --fingerprint 8A8A4F52... --json 795475e6346adfb76a3bb33df70ab3f8ef68ae42 | jq .signer`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			by := signed.By{Principal: principal}
			switch {
			case (keyring == "") == (allowed == ""):
				return frame.Usage("give either --keyring and --fingerprint, or --allowed-signers")
			case keyring != "" && len(fingerprints) == 0:
				return frame.Usage("a keyring says nothing by itself: name with --fingerprint whose signatures count")
			case keyring == "" && len(fingerprints) > 0, allowed == "" && principal != "":
				return frame.Usage("--fingerprint goes with --keyring, --principal with --allowed-signers")
			case allowed != "":
				text, err := frame.ReadBounded(allowed, signed.MaxAllowed)
				if err != nil {
					return err
				}
				if by.Allowed, err = signed.ParseAllowedSigners(allowed, text, time.Local); err != nil {
					return err
				}
			default:
				for _, f := range fingerprints {
					print, err := scheme.ParseFingerprint(f)
					if err != nil {
						return frame.Usage("%q is not a fingerprint: 40 hexadecimal digits (quote it if it has spaces)", f)
					}
					by.Fingerprints = append(by.Fingerprints, openpgp.Fingerprint(print))
				}
				var err error
				if by.Keyring, err = readKeys(keyring); err != nil {
					return err
				}
				for _, f := range by.Fingerprints {
					if by.Keyring.ByFingerprint(f) == nil {
						env.Say("note: the keyring has no key %s", f)
					}
				}
			}
			return runGitVerify(env, repository, alternates, by, args)
		},
	}
	f := c.Flags()
	f.StringVarP(&repository, "repository", "r", ".", "the repository, bare or with a working tree")
	f.StringVarP(&keyring, "keyring", "k", "", "a file of OpenPGP keys, or a directory of such files")
	f.StringArrayVarP(&fingerprints, "fingerprint", "f", nil, "a key whose signatures count; may be given several times")
	f.StringVar(&allowed, "allowed-signers", "", "a file of allowed signers of SSH")
	f.StringVar(&principal, "principal", "", "who of the allowed signers has to have signed (default: any)")
	f.StringArrayVar(&alternates, "alternate", nil, "a directory of objects to use beside the repository's own (what the repository names is not followed)")
	return c
}

// readKeys reads a file of keys, or those of a directory.
func readKeys(name string) (*openpgp.Keyring, error) {
	ring := openpgp.NewKeyring()
	files := []string{name}
	if st, err := os.Stat(name); err != nil {
		return nil, err
	} else if st.IsDir() {
		entries, err := os.ReadDir(name)
		if err != nil {
			return nil, err
		}
		files = nil
		for _, e := range entries {
			switch filepath.Ext(e.Name()) {
			case ".key", ".asc", ".gpg", ".pgp":
				files = append(files, filepath.Join(name, e.Name()))
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%s: no file in it ends in .key, .asc, .gpg or .pgp", name)
		}
		if len(files) > maxKeyFiles {
			return nil, fmt.Errorf("%s: more than %d files of keys", name, maxKeyFiles)
		}
	}
	var refused trust.Refusals
	for _, file := range files {
		data, err := frame.ReadBounded(file, openpgp.MaxFile)
		if err != nil {
			return nil, err
		}
		if err := ring.Add(file, data); err != nil {
			var bad *openpgp.Error
			if !errors.As(err, &bad) {
				return nil, err
			}
			refused.Add(trust.Refuse(channel.CodeKeyring, file, "%s", channel.Escape(bad.Error())).WithHint("gpg --export KEY writes a file that can be read"))
		}
	}
	return ring, refused.Err()
}

func runGitVerify(env *frame.Env, dir string, alternates []string, by signed.By, names []string) error {
	repository, err := authenticate.Open(dir, authenticate.Options{Alternates: alternates})
	if err != nil {
		return err
	}
	defer repository.Close()
	if ignored := repository.Ignored(); len(ignored) > 0 {
		env.Say("note: the repository has %s: ignored", strings.Join(ignored, " and "))
	}
	var refused trust.Refusals
	for _, name := range names {
		result, err := signed.Verify(repository, name, by, env.Clock())
		if err != nil {
			if err := refused.Merge(err); err != nil {
				return errors.Join(err, refused.Err())
			}
			continue
		}
		if err := printVerified(env, name, result); err != nil {
			return err
		}
	}
	return refused.Err()
}

func printVerified(env *frame.Env, name string, r *signed.Result) error {
	when := ""
	if r.Signed > 0 {
		when = time.Unix(r.Signed, 0).UTC().Format(time.RFC3339)
	}
	out := struct {
		Type       string   `json:"type"`
		Name       string   `json:"name"`
		Object     string   `json:"object"`
		Kind       string   `json:"kind"`
		Ref        string   `json:"ref,omitempty"`
		Tag        string   `json:"tag,omitempty"`
		Target     string   `json:"target"`
		TargetKind string   `json:"target_kind"`
		Format     string   `json:"format"`
		Key        string   `json:"key"`
		Signer     string   `json:"signer"`
		Signed     string   `json:"signed,omitempty"`
		Notes      []string `json:"notes,omitempty"`
	}{"verified", name, r.Object.String(), r.Kind.String(), r.Ref, r.Tag, r.Target.String(), r.Leads.String(), r.Format, r.Key, r.Signer, when, r.Notes}
	return env.Result(out, func(w io.Writer) {
		what := fmt.Sprintf("%s %s", r.Kind, r.Object)
		if r.Tag != "" {
			what = fmt.Sprintf("tag %s, of %s %s", r.Tag, r.Leads, r.Target)
		}
		fmt.Fprintf(w, "verified %s: signed by %s, key %s", what, r.Signer, r.Key)
		if when != "" {
			fmt.Fprintf(w, ", at %s", when)
		}
		fmt.Fprintln(w)
		for _, n := range r.Notes {
			fmt.Fprintf(w, "note: %s\n", n)
		}
	})
}
