package verbs

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/cmd/internal/frame"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/trust"
)

// Shipment returns the noun with the verbs of both sides.
func Shipment(env *frame.Env) *cobra.Command {
	return noun("shipment", "volumes, manifests and slips", shipmentVerify(env), shipmentSlip(env), shipmentList(env))
}

// openVolume opens a volume: a directory.
func openVolume(dir string) (*os.Root, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, trust.Refuse("volume-type", dir, "it is %s, not a directory", st.Mode().Type()).WithHint("give the directory at which the disc is mounted, or a copy of it")
	}
	return os.OpenRoot(dir)
}

// OpenVolume opens a volume for the verbs of one side.
func OpenVolume(dir string) (*os.Root, error) { return openVolume(dir) }

// ReadSlip reads a slip file.
func ReadSlip(file string) (*shipment.Slip, error) {
	if file == "" {
		return nil, frame.Usage("no slip: give --slip FILE, as it came by the other way")
	}
	text, err := frame.ReadBounded(file, shipment.MaxSlip)
	if err != nil {
		return nil, err
	}
	return shipment.ParseSlip(text)
}

func shipmentVerify(env *frame.Env) *cobra.Command {
	var roots, fingerprint, slipFile string
	c := &cobra.Command{
		Use:     "verify --root FILE --fingerprint DIGEST --slip FILE VOLUME",
		Short:   "judge a volume without taking it in",
		Example: "  sallyport shipment verify --root root-1 --fingerprint 5f3c... --slip slip-1.txt volume-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := OpenRoots(roots, fingerprint)
			if err != nil {
				return err
			}
			slip, err := ReadSlip(slipFile)
			if err != nil {
				return err
			}
			vol, err := openVolume(args[0])
			if err != nil {
				return err
			}
			defer vol.Close()
			p := env.Progress("reading", slip.Bytes)
			defer p.Done()
			v, err := shipment.Verify(cmd.Context(), vol, shipment.Options{Root: root, Slip: slip, Progress: p.Add})
			if err != nil {
				return err
			}
			return env.Result(map[string]any{"shipment": v.Manifest.Number, "manifest": v.Digest.String(), "items": len(v.Manifest.Items), "bytes": v.Bytes, "collectors": v.Signers}, func(w io.Writer) {
				fmt.Fprintf(w, "shipment %d: %s, %s, signed by %s: good\n", v.Manifest.Number, trust.Count(len(v.Manifest.Items), "item"), frame.Bytes(v.Bytes), strings.Join(v.Signers, ", "))
			})
		},
	}
	c.Flags().StringVar(&roots, "root", "", "the enclave's root note, or a directory of them named 1, 2, ...")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "digest of root version 1, from paper")
	c.Flags().StringVar(&slipFile, "slip", "", "the slip")
	return c
}

// readManifest reads a volume's manifest without judging who signed it.
func readManifest(dir string) (*shipment.Manifest, []byte, error) {
	vol, err := openVolume(dir)
	if err != nil {
		return nil, nil, err
	}
	defer vol.Close()
	file, err := shipment.ReadManifest(vol)
	if err != nil {
		return nil, nil, err
	}
	text, _, err := trust.SplitNote("manifest", file, shipment.MaxManifest)
	if err != nil {
		return nil, nil, err
	}
	m, err := shipment.ParseManifest(text)
	return m, file, err
}

func shipmentSlip(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "slip VOLUME",
		Short:   "outside: print a volume's slip again (never make one from the disc that you are to judge)",
		Example: "  sallyport shipment slip volume-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, file, err := readManifest(args[0])
			if err != nil {
				return err
			}
			s := shipment.NewSlip(m, file)
			return env.Result(map[string]any{"enclave": s.Enclave, "shipment": s.Number, "manifest": s.Manifest.String(), "items": s.Items, "bytes": s.Bytes}, func(w io.Writer) { w.Write(s.Text()) })
		},
	}
}

func shipmentList(env *frame.Env) *cobra.Command {
	return &cobra.Command{
		Use:     "list VOLUME",
		Short:   "list what a volume claims to offer; nothing of it is judged",
		Example: "  sallyport shipment list volume-1",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, _, err := readManifest(args[0])
			if err != nil {
				return err
			}
			for _, it := range m.Items {
				err := env.Result(map[string]any{"type": "item", "sha256": it.SHA256.String(), "size": it.Size, "kind": it.Kind, "name": it.Name}, func(w io.Writer) {
					fmt.Fprintf(w, "%-10s %12d  %s\n", it.Kind, it.Size, it.Name)
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// Severities prints counts by severity, the worst first.
func Severities(findings map[string]int64) string {
	order := []string{"block", "high", "review", "info"}
	var b strings.Builder
	for _, s := range order {
		if n := findings[s]; n > 0 || s == "block" {
			fmt.Fprintf(&b, " %d %s", n, s)
		}
	}
	for s := range findings {
		if !slices.Contains(order, s) {
			fmt.Fprintf(&b, " %d %s", findings[s], s)
		}
	}
	return b.String()
}
