// Sallyport-reader parses untrusted bytes, confined.
//
// It is started by the other programs of Sallyport, never by hand: package confine says how, what is taken from it first, and
// what is spoken over its standard input and output. It prints nothing for people, has no flags and reads no configuration.
//
// Kinds of request:
//
//	nar         the archive is parsed strictly (package nar); every file, link and name goes through the rules of package inspect
//	derivation  the .drv file is parsed strictly (package derivation) and handed back in its strings
//	flat        one file, through the rules
//
// A fault in an item is a refusal with the parser's reason code and offset: nar-CODE, drv-CODE.
//
// This program is small on purpose. The packages that it links are listed, with the reason, in its test.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/judge/inspect"
)

func main() {
	conf, err := confine.Enter()
	if err != nil {
		confine.Fail(os.Stdout, err)
		os.Exit(1)
	}
	if err := confine.Serve(os.Stdin, os.Stdout, conf, read); err != nil {
		fmt.Fprintln(os.Stderr, "sallyport-reader:", err)
		os.Exit(1)
	}
}

// read answers one request.
func read(req confine.Request, body io.Reader, answers *confine.Answers) (files, bytes int64) {
	switch req.Kind {
	case confine.KindNar:
		return readNar(req, body, answers)
	case confine.KindDerivation:
		return readDerivation(req, body, answers)
	case confine.KindFlat:
		return readFlat(req, body, answers)
	}
	answers.Refuse(confine.Refusal{Code: "request-kind", Detail: confine.Escape(req.Kind, 100)})
	return 0, 0
}

func readNar(req confine.Request, body io.Reader, answers *confine.Answers) (files, bytes int64) {
	archive := nar.NewReader(body)
	in := inspect.New()
	place := ""
	var err error
	for {
		var h *nar.Header
		if h, err = archive.Next(); err != nil {
			break
		}
		place = h.Path
		if req.Rules == confine.RulesStructure {
			if h.Type == nar.Regular {
				files++
				bytes += h.Size
			}
			continue
		}
		switch h.Type {
		case nar.Regular:
			if h.Path == "" {
				// A nar of one file: the item's name says what it is for.
				err = in.Whole(itemName(req.Name), h.Size, archive)
			} else {
				err = in.File(h.Path, h.Size, archive)
			}
		case nar.Directory:
			in.Directory(h.Path)
		case nar.Symlink:
			in.Symlink(h.Path, h.Target)
		}
		if err != nil {
			break
		}
	}
	if err == io.EOF {
		err = trailing(archive.Offset(), req.Size)
	}
	if err != nil {
		refuse(answers, place, err)
	}
	if req.Rules == confine.RulesStructure {
		return files, bytes
	}
	send(answers, in)
	return in.Files(), in.Bytes()
}

// itemName is the name without the hash that a store path's base name begins with.
func itemName(name string) string {
	if p, err := storepath.ParseBase(name); err == nil {
		return p.Name()
	}
	return name
}

// trailing: an item is its archive and nothing else.
func trailing(end, size int64) error {
	if end != size {
		return &nar.Error{Offset: end, Code: "trailing", Detail: fmt.Sprintf("%d bytes after the archive", size-end)}
	}
	return nil
}

func readFlat(req confine.Request, body io.Reader, answers *confine.Answers) (files, bytes int64) {
	if req.Rules == confine.RulesStructure {
		return 1, req.Size
	}
	in := inspect.New()
	if err := in.Whole(itemName(req.Name), req.Size, body); err != nil {
		refuse(answers, req.Name, err)
	}
	send(answers, in)
	return in.Files(), in.Bytes()
}

func readDerivation(req confine.Request, body io.Reader, answers *confine.Answers) (files, bytes int64) {
	if req.Size > derivation.MaxSize {
		refuse(answers, "", &derivation.Error{Code: derivation.CodeLimit, Detail: fmt.Sprintf("%d bytes, more than %d", req.Size, derivation.MaxSize)})
		return 0, 0
	}
	data, err := io.ReadAll(body)
	if err != nil {
		refuse(answers, "", err)
		return 0, 0
	}
	d, err := derivation.Parse(data)
	if err != nil {
		refuse(answers, "", err)
		return 1, req.Size
	}
	if _, err := d.References(); err != nil {
		refuse(answers, "", err)
		return 1, req.Size
	}
	answers.Derivation(d)
	return 1, req.Size
}

// refuse tells why an item is not well-formed.
func refuse(answers *confine.Answers, place string, err error) {
	r := confine.Refusal{Code: "item-unreadable", Place: confine.Escape(place, confine.MaxText), Detail: confine.Escape(err.Error(), 1024)}
	var n *nar.Error
	var d *derivation.Error
	switch {
	case errors.As(err, &n):
		r.Code, r.Offset, r.Detail = "nar-"+n.Code, max(n.Offset, 0), confine.Escape(n.Detail, 1024)
	case errors.As(err, &d):
		r.Code, r.Offset, r.Detail = d.Code, max(d.Offset, 0), confine.Escape(d.Detail, 1024)
	}
	answers.Refuse(r)
}

func send(answers *confine.Answers, in *inspect.Inspector) {
	for _, f := range in.Findings() {
		g := confine.Finding{
			Rule: f.Rule, Severity: string(f.Severity), Place: confine.Escape(f.Place, confine.MaxText), Count: f.Count,
			Detail: confine.Escape(f.Detail, 1024),
		}
		for _, e := range f.Examples {
			g.Examples = append(g.Examples, confine.Escape(e, confine.MaxText))
		}
		answers.Finding(g)
	}
}
