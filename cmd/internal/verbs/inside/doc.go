// Package inside has the verbs of the high side: gate, review, depot, builders, quorum.
package inside

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/store"
	"sallyport/internal/trust"
	"sallyport/internal/trust/statement"
)

// Nouns returns the nouns of the inside.
func Nouns(env *frame.Env) []*cobra.Command {
	return []*cobra.Command{importVerb(env), reviewNoun(env), depotNoun(env), builderNoun(env), buildVerb(env), quorumNoun(env), releaseNoun(env), recall(env), hostNoun(env), noun("channel", "", channelServe(env), channelSubmit(env))}
}

func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(verbs...)
	return c
}

// enclave opens the inside zone and its root.
func enclave(ctx context.Context, env *frame.Env) (*store.Zone, *trust.Root, error) {
	z, err := env.Zone(ctx, store.Inside)
	if err != nil {
		return nil, nil, err
	}
	r, err := z.Root()
	if err != nil {
		z.Close()
		return nil, nil, frame.WithHint(err, "'%s trust init' makes the enclave's first root", env.Program)
	}
	return z, r, nil
}

// pinned is enclave for verbs that sign or serve by the root: its fingerprint comes from paper, not from the zone.
var errNoFingerprint = errors.New("no fingerprint: give --root FINGERPRINT, of the enclave's first root, from paper")

func pinned(ctx context.Context, env *frame.Env, fingerprint string) (*store.Zone, *trust.Root, error) {
	if fingerprint == "" {
		return nil, nil, frame.Usage("%v", errNoFingerprint)
	}
	paper, err := trust.ParsePin(fingerprint)
	if err != nil {
		return nil, nil, frame.Usage("--root: %v", err)
	}
	z, r, err := enclave(ctx, env)
	if err != nil {
		return nil, nil, err
	}
	if err := z.CheckPin(ctx, paper); err != nil {
		return nil, nil, errors.Join(z.Refused(ctx, "root", statement.Subject{Name: "root", SHA256: r.Digest()}, err), z.Close())
	}
	return z, r, nil
}
