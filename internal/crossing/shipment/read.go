package shipment

import "os"

// ReadManifest reads the manifest file of a volume, of at most [MaxManifest] bytes, and judges nothing.
func ReadManifest(vol *os.Root) ([]byte, error) { return readFile(vol, fileManifest, MaxManifest) }
