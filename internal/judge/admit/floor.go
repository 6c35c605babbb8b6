package admit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"sallyport/internal/store/durable"
	"sallyport/internal/trust"
)

// Raise raises the floor in a file to the view's documents, durably, or refuses them. A file that is not there yet is the lowest floor; a damaged one is an error:
// it must not read as a lower one. Several processes may share a floor: none lowers what another has raised.
func Raise(path string, v *View) error {
	if err := durable.MkdirAll(durable.OS{}, filepath.Dir(path), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := durable.Lock(lock, syscall.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", lock.Name(), err)
	}
	before, err := os.ReadFile(path)
	var now trust.Floor
	if err == nil {
		now, err = trust.ParseFloor(before)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	next, err := now.AcceptRoot(v.Root)
	if err == nil {
		err = next.CheckOrders(v.Orders)
	}
	if err == nil && v.Orders != nil {
		next, err = next.AcceptOrders(v.Orders)
	}
	if err == nil {
		next, err = next.AcceptAllowlist(v.List)
	}
	if err != nil {
		return err
	}
	data, err := next.Marshal()
	if err != nil || bytes.Equal(before, data) {
		return err
	}
	return durable.WriteAll(durable.OS{}, filepath.Dir(path), durable.File{Path: path, Data: data, Perm: 0o644})
}
