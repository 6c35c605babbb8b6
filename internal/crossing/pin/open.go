package pin

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"sallyport/guix/nar"
	"sallyport/internal/trust"
)

// CodeItem is the code of a nar that is not one of a channel.
const CodeItem = "channel-item"

// Names of the two files.
const (
	bundleName = "bundle"
	pinName    = "pin"
)

// Open reads an item. What follows the bundle's header goes to pack as it passes, and is unverified, as is all of it if an error is returned. What is wrong with the
// item is a trust.Refusals.
func Open(item io.Reader, pack io.Writer) (*Pin, *Header, error) {
	var bad trust.Refusals
	refuse := func(format string, args ...any) (*Pin, *Header, error) {
		bad.Add(trust.Refuse(CodeItem, "item", format, args...))
		return nil, nil, bad
	}
	z := nar.NewReader(item)
	// fault tells what is wrong with the nar from what is wrong with reading.
	fault := func(err error) (*Pin, *Header, error) {
		var e *nar.Error
		switch {
		case errors.As(err, &e):
			return refuse("%v", e)
		case err == io.EOF:
			return refuse("it ends before its two files")
		}
		return nil, nil, err
	}
	next := func(path string, most int64) (*nar.Header, error) {
		h, err := z.Next()
		switch {
		case err != nil:
			return nil, err
		case h.Path != path || h.Type != nar.Regular || h.Executable:
			return nil, trust.Refuse(CodeItem, "item", "%q is a %s: want the regular file %s", h.Path, h.Type, path)
		case h.Size > most:
			return nil, trust.Refuse(CodeItem, "item", "%s has %d bytes, more than %d", path, h.Size, most)
		}
		return h, nil
	}
	if h, err := z.Next(); err != nil {
		return fault(err)
	} else if h.Type != nar.Directory {
		return refuse("it is a %s: want a directory", h.Type)
	}
	file, err := next(bundleName, MaxHeader+MaxPack)
	if err != nil {
		if bad.Merge(err) == nil {
			return nil, nil, bad
		}
		return fault(err)
	}
	// The header is short. What was read beyond it belongs to the pack.
	start := make([]byte, min(file.Size, MaxHeader))
	if _, err := io.ReadFull(z, start); err != nil {
		return fault(err)
	}
	header, n, err := ParseHeader(start)
	if err != nil {
		bad.Merge(err)
		return nil, nil, bad
	}
	if _, err := pack.Write(start[n:]); err != nil {
		return nil, nil, err
	}
	if _, err := z.WriteTo(pack); err != nil {
		return fault(err)
	}
	if _, err = next(pinName, MaxPin); err != nil {
		if bad.Merge(err) == nil {
			return nil, nil, bad
		}
		return fault(err)
	}
	var text bytes.Buffer
	if _, err := z.WriteTo(&text); err != nil {
		return fault(err)
	}
	switch h, err := z.Next(); {
	case err == nil:
		return refuse("a third file, %q", h.Path)
	case err != io.EOF:
		return fault(err)
	}
	var one [1]byte
	switch n, err := io.ReadFull(item, one[:]); {
	case n > 0:
		return refuse("it goes on after its end, at byte %d", z.Offset())
	case err != io.EOF:
		return nil, nil, err
	}
	p, err := Parse(text.Bytes())
	if err := bad.Merge(err); err != nil {
		return nil, nil, err
	}
	if p != nil {
		bad.Add(header.matches(p)...)
	}
	if len(bad) > 0 {
		return nil, nil, bad
	}
	return p, header, nil
}

// write writes the nar of an item.
func write(w io.Writer, p *Pin, h *Header, pack io.Reader, size int64) error {
	z := nar.NewWriter(w)
	head, text := h.Text(), p.Text()
	if err := z.WriteHeader(&nar.Header{Type: nar.Directory}); err != nil {
		return err
	}
	if err := z.WriteHeader(&nar.Header{Path: bundleName, Type: nar.Regular, Size: int64(len(head)) + size}); err != nil {
		return err
	}
	if _, err := z.Write(head); err != nil {
		return err
	}
	if n, err := io.Copy(z, pack); err != nil {
		return err
	} else if n != size {
		return fmt.Errorf("the pack had %d bytes and now has %d", size, n)
	}
	if err := z.WriteHeader(&nar.Header{Path: pinName, Type: nar.Regular, Size: int64(len(text))}); err != nil {
		return err
	}
	if _, err := z.Write(text); err != nil {
		return err
	}
	return z.Close()
}
