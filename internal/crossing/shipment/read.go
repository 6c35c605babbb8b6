package shipment

import (
	"errors"
	"io/fs"
	"os"

	"sallyport/internal/trust"
)

// ReadManifest reads the manifest file of a volume, of at most [MaxManifest] bytes, and judges nothing in it: nobody stands for these bytes. That it is
// missing, too long or no regular file is a refusal.
func ReadManifest(vol *os.Root) ([]byte, error) {
	file, err := readFile(vol, fileManifest, MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, trust.Refuse("volume-missing", fileManifest, "no file %s", fileManifest).
			WithHint("a volume is a directory with a file \"manifest\"; see docs/spec/shipment.md")
	}
	return file, err
}
