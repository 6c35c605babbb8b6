package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
)

// maxFindings is how many findings are kept for printing; more are only counted.
const maxFindings = 1000

// fault is one reason why something is refused. Any other error means that judging itself failed.
type fault struct {
	Code    string `json:"code"`
	Subject string `json:"subject"`
	Detail  string `json:"detail"`
}

func (f *fault) Error() string { return fmt.Sprintf("%s %s: %s", f.Code, f.Subject, f.Detail) }

func refuse(code, subject, format string, args ...any) *fault {
	return &fault{code, subject, fmt.Sprintf(format, args...)}
}

// report is what a run found. As JSON it is one object; members are only ever added.
type report struct {
	Type         string            `json:"type"`
	Command      string            `json:"command"`
	Verdict      string            `json:"verdict"` // good, refused, failed
	Enclave      string            `json:"enclave,omitempty"`
	RootVersion  int64             `json:"root-version,omitempty"`
	RootDigest   string            `json:"root-digest,omitempty"`
	Origin       string            `json:"origin,omitempty"`
	Size         int64             `json:"size,omitempty"`
	Tree         string            `json:"tree,omitempty"`
	Tiles        int64             `json:"tiles,omitempty"`
	Statements   map[string]int64  `json:"statements,omitempty"`
	Unchecked    int64             `json:"unchecked-signatures,omitempty"`
	Witnesses    []witnessReport   `json:"witnesses,omitempty"`
	Allowlists   []allowlistReport `json:"allowlists,omitempty"`
	Derivations  int64             `json:"agreed-derivations,omitempty"`
	Shipment     int64             `json:"shipment,omitempty"`
	Manifest     string            `json:"manifest,omitempty"`
	Collectors   []string          `json:"collectors,omitempty"`
	Items        int64             `json:"items,omitempty"`
	Bytes        int64             `json:"bytes,omitempty"`
	Refused      []fault           `json:"refused"`
	RefusedTotal int64             `json:"refused-total"`
	Notes        []fault           `json:"notes"`
	NotesTotal   int64             `json:"notes-total"`
}

type witnessReport struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Time string `json:"time"`
}

type allowlistReport struct {
	Track   string   `json:"track"`
	Version int64    `json:"version"`
	Digest  string   `json:"digest"`
	Items   int      `json:"items"`
	Persons []string `json:"persons"`
}

// add records a refusal.
func (r *report) add(f *fault) {
	if r.RefusedTotal++; len(r.Refused) < maxFindings {
		r.Refused = append(r.Refused, *f)
	}
}

func (r *report) refuse(code, subject, format string, args ...any) {
	r.add(refuse(code, subject, format, args...))
}

// note records something that a person should know but that no page of the specification refuses.
func (r *report) note(code, subject, format string, args ...any) {
	if r.NotesTotal++; len(r.Notes) < maxFindings {
		r.Notes = append(r.Notes, *refuse(code, subject, format, args...))
	}
}

// judge records err if it is a judgement, and returns it if it is a failure.
func (r *report) judge(err error) error {
	var f *fault
	if errors.As(err, &f) {
		r.add(f)
		return nil
	}
	return err
}

func (r *report) finish(err error) {
	switch r.Verdict = "good"; {
	case err != nil:
		r.Verdict = "failed"
	case r.RefusedTotal > 0:
		r.Verdict = "refused"
	}
	// Empty, not null.
	r.Refused, r.Notes = append([]fault{}, r.Refused...), append([]fault{}, r.Notes...)
}

func (r *report) json(w io.Writer) error { return json.NewEncoder(w).Encode(r) }

func (r *report) text(w io.Writer) (err error) {
	line := func(format string, args ...any) {
		if _, werr := fmt.Fprintf(w, format+"\n", args...); werr != nil {
			err = werr
		}
	}
	if r.Enclave != "" {
		line("enclave     %s, root %d %s", r.Enclave, r.RootVersion, r.RootDigest)
	}
	if r.Origin != "" {
		line("ledger      %s, %d entries, %d tiles and bundles, tree %s", r.Origin, r.Size, r.Tiles, r.Tree)
	}
	for _, kind := range slices.Sorted(maps.Keys(r.Statements)) {
		line("statements  %-10s %d", kind, r.Statements[kind])
	}
	if r.Unchecked > 0 {
		line("unchecked   %d signatures of statements, by keys not given", r.Unchecked)
	}
	if r.Derivations > 0 {
		line("agreed      %d derivations", r.Derivations)
	}
	for _, a := range r.Allowlists {
		line("allowlist   %s %d, %d items, by %q, %s", a.Track, a.Version, a.Items, a.Persons, a.Digest)
	}
	for _, t := range r.Witnesses {
		line("witness     %s, %d of %d entries, %s", t.Name, t.Size, r.Size, t.Time)
	}
	if r.Manifest != "" {
		line("shipment    %d, %d items, %d bytes, by %q, manifest %s", r.Shipment, r.Items, r.Bytes, r.Collectors, r.Manifest)
	}
	// Subjects and details quote what came from outside already, where they were made.
	for _, f := range r.Notes {
		line("note        %s %s: %s", f.Code, f.Subject, f.Detail)
	}
	for _, f := range r.Refused {
		line("refused     %s %s: %s", f.Code, f.Subject, f.Detail)
	}
	if more := r.RefusedTotal - int64(len(r.Refused)); more > 0 {
		line("refused     and %d more", more)
	}
	line("verdict     %s", r.Verdict)
	return err
}

// The reading of files, and the spellings that all documents share.

// readFile reads a regular file of at most limit bytes. What lies there is hostile: a link, a pipe, a device or an endless
// file is a fault with the area's name in its code, before it is opened.
func readFile(dir *os.Root, name string, limit int64, area string) ([]byte, error) {
	f, size, err := openFile(dir, name, area)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, refuse(area+"-size", strconv.Quote(name), "%d bytes, more than %d", size, limit)
	}
	data := make([]byte, 0, size+1) // one more, so that the end is seen without growing
	for len(data) <= int(size) {
		n, err := f.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if err == io.EOF {
			return data, nil
		} else if err != nil {
			return nil, err
		}
	}
	return nil, refuse(area+"-size", strconv.Quote(name), "grew while it was read")
}

// absent tells that nothing has this name, a file where a directory should be on the way to it included.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

func openFile(dir *os.Root, name, area string) (*os.File, int64, error) {
	info, err := dir.Lstat(name)
	if absent(err) {
		return nil, 0, refuse(area+"-missing", strconv.Quote(name), "is not there")
	} else if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, refuse(area+"-type", strconv.Quote(name), "is no regular file: %s", info.Mode().Type())
	}
	f, err := dir.Open(name)
	return f, info.Size(), err
}

// listDir lists a directory by name, with at most limit entries. A missing one has no entries.
func listDir(dir *os.Root, name string, limit int, area string) ([]fs.DirEntry, error) {
	info, err := dir.Lstat(name)
	if absent(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, refuse(area+"-type", strconv.Quote(name), "is no directory: %s", info.Mode().Type())
	}
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	list, err := f.ReadDir(limit + 1)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(list) > limit {
		return nil, refuse(area+"-size", strconv.Quote(name), "more than %d entries", limit)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	return list, nil
}
