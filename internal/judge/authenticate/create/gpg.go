package create

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sallyport/guix/channel/openpgp"
	"sallyport/internal/trust"
)

// maxGPG bounds what gpg may say.
const maxGPG = 1 << 20

// A GPG is the program gpg, run as the user who has the key, with his agent.
type GPG struct {
	Path string
	Env  []string // as for exec.Cmd: nil for that of this process
}

// FindGPG looks for the program in the directories of path.
func FindGPG(path string) (*GPG, error) {
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			continue
		}
		name := filepath.Join(dir, "gpg")
		if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() && st.Mode().Perm()&0o111 != 0 {
			return &GPG{Path: name}, nil
		}
	}
	return nil, errors.New("gpg is missing (install GnuPG, or have a new key made)")
}

// A gpgKey is one that gpg has.
type gpgKey struct {
	gpg    *GPG
	print  openpgp.Fingerprint
	public []byte
}

// Key returns the signer for a key or subkey that gpg has the secret of.
func (g *GPG) Key(ctx context.Context, print openpgp.Fingerprint) (Signer, error) {
	public, err := g.run(ctx, nil, "--batch", "--armor", "--export-options", "export-minimal", "--export", hexOf(print))
	if err != nil {
		return nil, err
	}
	const hint = "gpg --list-secret-keys --with-subkey-fingerprint lists those it has"
	if len(public) == 0 {
		return nil, trust.Refuse("key-missing", print.String(), "gpg has no such key").WithHint(hint)
	}
	ring := openpgp.NewKeyring()
	if err := ring.Add("gpg", public); err != nil {
		return nil, trust.Refuse("key-unusable", print.String(), "%v: Guix cannot read the certificate that gpg exports", err)
	}
	k := ring.ByFingerprint(print)
	switch {
	case k == nil:
		return nil, trust.Refuse("key-missing", print.String(), "gpg exports another key").WithHint(hint)
	case k.Bits == 0:
		return nil, trust.Refuse("key-unusable", print.String(), "it is of an algorithm that Guix cannot verify: RSA, DSA and Ed25519 are those it can").WithHint(hint)
	}
	return &gpgKey{g, print, public}, nil
}

func (k *gpgKey) Fingerprint() openpgp.Fingerprint { return k.print }
func (k *gpgKey) Public() []byte                   { return k.public }

// Sign has gpg sign: with this key, and not with another one of its certificate.
func (k *gpgKey) Sign(ctx context.Context, data []byte) ([]byte, error) {
	return k.gpg.run(ctx, data, "--local-user", hexOf(k.print)+"!", "--armor", "--detach-sign")
}

func hexOf(f openpgp.Fingerprint) string { return strings.ToUpper(f.Hex()) }

// run runs gpg. It has the terminal of this process for its agent's sake, and waits as long as a person takes to find his card.
func (g *GPG) run(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, g.Path, append([]string{"--no-greeting", "--quiet"}, args...)...)
	cmd.Env = g.Env
	cmd.Stdin = bytes.NewReader(stdin)
	var stdout, stderr bounded
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("gpg: %w: %.1000q", err, bytes.TrimSpace(stderr.b))
	}
	return stdout.b, nil
}

// bounded keeps what it is given, up to a bound.
type bounded struct{ b []byte }

func (w *bounded) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > maxGPG {
		return 0, fmt.Errorf("more than %d bytes", maxGPG)
	}
	w.b = append(w.b, p...)
	return len(p), nil
}
