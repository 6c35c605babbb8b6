// Package verbs has the verbs that both sides of the gap use, one file a noun. The verbs of one side alone are in the packages outside and inside
// below it; each main assembles what it may have. A verb reads flags, calls one room, and prints.
package verbs

import (
	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
)

// noun makes a command that only holds verbs.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() }}
	c.AddCommand(verbs...)
	return c
}

// with adds verbs to a noun.
func with(c *cobra.Command, verbs ...*cobra.Command) *cobra.Command {
	c.AddCommand(verbs...)
	return c
}

// Both returns the nouns of both sides.
func Both(env *frame.Env) []*cobra.Command {
	return []*cobra.Command{
		initZone(env), config(env), key(env), trustNoun(env), orderNoun(env), with(ledgerNoun(env), ledgerRepublish(env)), catalogNoun(env), backupNoun(env), with(narNoun(env), narRestore(env), narCreate(env)),
		with(derivationNoun(env), derivationClosure(env)), narinfoNoun(env), archiveNoun(env), channelNoun(env), gitNoun(env), storeNoun(env), inspect(env), doctor(env),
	}
}
