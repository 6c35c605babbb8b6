package verbs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/trust"
	"sallyport/internal/trust/agent"
)

func keyAgent(env *frame.Env) *cobra.Command {
	var name, fingerprint, public, out string
	var wrap bool
	c := &cobra.Command{
		Use:   "agent [--name PERSON/CONTEXT [--fingerprint SHA256:...] [--sshsig] --out FILE.pub]",
		Short: "list the keys of the ssh-agent, or enrol one: a card, a FIDO2 key, a key of OpenSSH",
		Long: `List the keys that the ssh-agent at SSH_AUTH_SOCK holds; with --name enrol one of them: write its public half, a line for a root, to --out. From then on
'--key agent:FILE.pub' signs with it, wherever a --key is asked for. The secret half stays where it is.

The agent signs a proof first, so that a key that cannot sign here is found now and not when a root has it: a FIDO2 key wants to be touched.

ssh-ed25519 and ecdsa-sha2-nistp256 keys sign texts as they are. An agent takes at most 255 KiB at once, so for allowlists and manifests of more than about 1,500
items give --sshsig: then the agent signs a hash, in OpenSSH's own format. FIDO2 keys (sk-...) always sign so. A key that ssh-keygen -Y sign is to sign with wants
--sshsig, too. --ssh-public enrols from a public key file of OpenSSH, without an agent and without a proof.

A card behind PKCS#11 is added to the agent by 'ssh-add -s LIBRARY', a FIDO2 key made by 'ssh-keygen -t ed25519-sk'. A key that signs here should sign nothing else:
no logins, and no agent that is forwarded.`,
		Example: "  sallyport key agent\n" +
			"  sallyport key agent --name alice/allowlist --sshsig --out alice.allowlist.pub\n" +
			"  sallyport key agent --name olga/root --fingerprint SHA256:0hT5... --out olga.root.pub\n" +
			"  sallyport key agent --name bob/allowlist --sshsig --ssh-public bob_ed25519.pub --out bob.allowlist.pub",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			if name == "" {
				if fingerprint != "" || public != "" || out != "" || wrap {
					return frame.Usage("to enrol a key give --name PERSON/CONTEXT")
				}
				return listAgent(ctx, env)
			}
			if out == "" {
				return frame.Usage("no place for the public half: give --out FILE.pub")
			}
			if _, err := os.Lstat(out); !errors.Is(err, fs.ErrNotExist) {
				return frame.WithHint(fmt.Errorf("%s is there already; a key is never overwritten", out), "give another --out")
			}
			line, id, err := enrolAgent(ctx, env, name, fingerprint, public, wrap)
			if err != nil {
				return err
			}
			if err := frame.WriteNew(out, []byte(line.Line()+"\n"), 0o644); err != nil {
				return err
			}
			v, err := line.VKey()
			if err != nil {
				return err
			}
			if kind := v.Kind(); (kind == trust.KeyEd25519 || kind == trust.KeyP256) && (line.Context == trust.ContextAllowlist || line.Context == trust.ContextManifest) {
				env.Say("note: an ssh-agent signs texts of up to %d KiB with this key; longer lists, from about 1,500 items on, want a key that was enrolled with --sshsig", agent.MaxMessage>>10)
			}
			o, err := describe(line)
			if err != nil {
				return err
			}
			o["name"], o["file"], o["public"], o["proved"] = name, out, line.Line(), id.Wire != nil
			delete(o, "type")
			return env.Result(o, func(w io.Writer) { fmt.Fprintln(w, line.Line()) })
		},
	}
	f := c.Flags()
	f.StringVar(&name, "name", "", "whose key it is and what it signs: PERSON/CONTEXT")
	f.StringVar(&fingerprint, "fingerprint", "", "which key of the agent, SHA256:..., if it holds several")
	f.BoolVar(&wrap, "sshsig", false, "sign in OpenSSH's own format, a hash of the text instead of the text")
	f.StringVar(&public, "ssh-public", "", "take the public key from a file of OpenSSH instead of the agent")
	f.StringVarP(&out, "out", "o", "", "where to write the public half")
	return c
}

// enrolAgent returns the public line of a key, and the identity of the agent that proved that it can sign; no identity if none was asked.
func enrolAgent(ctx context.Context, env *frame.Env, name, fingerprint, public string, wrap bool) (line trust.RootKey, id agent.Identity, err error) {
	if public != "" {
		if fingerprint != "" {
			return line, id, frame.Usage("--fingerprint is of a key in the agent; --ssh-public names a file")
		}
		data, err := frame.ReadBounded(public, trust.MaxKeyLine)
		if err != nil {
			return line, id, err
		}
		wire, err := trust.ParseSSHPublicFile(data)
		if err != nil {
			return line, id, fmt.Errorf("%s: %w", public, err)
		}
		line, err = trust.FromSSH(name, wire, wrap)
		if err != nil {
			return line, id, frame.Usage("%v", err)
		}
		return line, id, nil
	}
	a, err := env.Agent()
	if err != nil {
		return line, id, err
	}
	if id, err = a.Find(ctx, fingerprint); err != nil {
		return line, id, err
	}
	if line, err = trust.FromSSH(name, id.Wire, wrap); err != nil {
		return line, id, frame.Usage("%v", err)
	}
	k, err := a.Key(ctx, line)
	if err != nil {
		return line, id, err
	}
	env.Say("the agent signs a proof with %s; touch or confirm if it asks", id)
	return line, id, k.Prove()
}

// listAgent prints what the agent holds.
func listAgent(ctx context.Context, env *frame.Env) error {
	a, err := env.Agent()
	if err != nil {
		return err
	}
	list, err := a.List(ctx)
	if err != nil {
		return err
	}
	for _, id := range list {
		o := map[string]any{"type": "agent-key", "fingerprint": id.Fingerprint, "algorithm": id.Algorithm, "comment": id.Comment, "usable": true}
		why := ""
		if err := id.Usable(); err != nil {
			why = "; cannot sign here: " + err.Error()
			o["usable"], o["reason"] = false, err.Error()
		}
		if err := env.Result(o, func(w io.Writer) { fmt.Fprintf(w, "%s%s\n", id, why) }); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		env.Say("the ssh-agent holds no keys: add one with ssh-add FILE, or ssh-add -s LIBRARY for a card; a locked one shows none (ssh-add -X)")
	}
	return nil
}
