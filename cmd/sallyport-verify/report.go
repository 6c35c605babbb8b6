package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// maxFindings is how many refusals are kept for printing; more are only counted.
const maxFindings = 1000

// fault is one reason why something is refused.
type fault struct {
	Code    string `json:"code"`
	Subject string `json:"subject"`
	Detail  string `json:"detail"`
}

// faults is the error of what was judged and refused. Any other error means that judging itself failed.
type faults []fault

func (f *faults) add(code, subject, format string, args ...any) {
	*f = append(*f, fault{code, subject, fmt.Sprintf(format, args...)})
}

// unless adds what a document lacks.
func (f *faults) unless(ok bool, h *header, code, format string, args ...any) {
	if !ok {
		f.add(h.area+"-"+code, h.subject, format, args...)
	}
}

// sorted is for faults that were found in the random order of a map.
func (f faults) sorted() faults {
	slices.SortFunc(f, func(a, b fault) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Detail, b.Detail))
	})
	return f
}

// err is nil if there are none.
func (f faults) err() error {
	if len(f) == 0 {
		return nil
	}
	return f
}

func (f faults) Error() string { return fmt.Sprintf("%s %s: %s", f[0].Code, f[0].Subject, f[0].Detail) }

func refuse(code, subject, format string, args ...any) error {
	return faults{{code, subject, fmt.Sprintf(format, args...)}}
}

// coded tells whether err is a refusal whose code ends so.
func coded(err error, suffix string) bool {
	var f faults
	return errors.As(err, &f) && strings.HasSuffix(f[0].Code, suffix)
}

// report is what a run found. As JSON it is one object.
type report struct {
	Type         string  `json:"type"`
	Command      string  `json:"command"`
	Verdict      string  `json:"verdict"` // good, refused, failed
	Facts        []fact  `json:"facts"`
	Notices      []fault `json:"notices"`   // nothing wrong, but for persons to look at
	NotChecked   []fact  `json:"unchecked"` // what somebody else must check
	Refused      []fault `json:"refused"`
	RefusedTotal int64   `json:"refused-total"`
}

// fact is something that the run found out: a string or a number.
type fact struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
}

func (r *report) fact(name string, value any) { r.Facts = append(r.Facts, fact{name, value}) }

func (r *report) notice(code, subject, format string, args ...any) {
	if len(r.Notices) < maxFindings {
		r.Notices = append(r.Notices, fault{code, subject, fmt.Sprintf(format, args...)})
	}
}

func (r *report) notChecked(subject, format string, args ...any) {
	r.NotChecked = append(r.NotChecked, fact{subject, fmt.Sprintf(format, args...)})
}

func (r *report) refuse(code, subject, format string, args ...any) {
	_ = r.judge(refuse(code, subject, format, args...))
}

// judge records err if it is a refusal, and returns it if it is a failure.
func (r *report) judge(err error) error {
	var f faults
	if !errors.As(err, &f) {
		return err
	}
	r.RefusedTotal += int64(len(f))
	r.Refused = append(r.Refused, f[:min(len(f), maxFindings-len(r.Refused))]...)
	return nil
}

// print ends the run: err is what made judging fail.
func (r *report) print(w io.Writer, err error, asJSON bool) error {
	switch r.Verdict = "good"; {
	case err != nil:
		r.Verdict = "failed"
	case r.RefusedTotal > 0:
		r.Verdict = "refused"
	}
	r.Facts, r.NotChecked = append([]fact{}, r.Facts...), append([]fact{}, r.NotChecked...) // empty, not null
	r.Notices, r.Refused = append([]fault{}, r.Notices...), append([]fault{}, r.Refused...)
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	var b strings.Builder
	for _, f := range r.Facts {
		fmt.Fprintf(&b, "%-21s %v\n", f.Name, f.Value)
	}
	for _, f := range r.Notices { // subjects and details quote what came from outside where they were made
		fmt.Fprintf(&b, "notice                %s %s: %s\n", f.Code, f.Subject, f.Detail)
	}
	for _, f := range r.NotChecked {
		fmt.Fprintf(&b, "NOT CHECKED           %s: %s\n", f.Name, f.Value)
	}
	for _, f := range r.Refused {
		fmt.Fprintf(&b, "refused               %s %s: %s\n", f.Code, f.Subject, f.Detail)
	}
	if more := r.RefusedTotal - int64(len(r.Refused)); more > 0 {
		fmt.Fprintf(&b, "refused               and %d more\n", more)
	}
	_, err = fmt.Fprintf(w, "%sverdict               %s\n", b.String(), r.Verdict)
	return err
}

// What lies in a directory is hostile: links, pipes, devices and endless files are refused before they are opened. The codes of
// these refusals begin with the area's name.

// lstat finds what has this name; a file where a directory should be on the way to it means that nothing has.
func lstat(dir *os.Root, name, area string) (fs.FileInfo, error) {
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, refuse(area+"-missing", quote(name), "is not there")
	}
	return info, err
}

func openFile(dir *os.Root, name string, limit int64, area string) (*os.File, error) {
	info, err := lstat(dir, name, area)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, refuse(area+"-type", quote(name), "is no regular file: %s", info.Mode())
	}
	if info.Size() > limit {
		return nil, refuse(area+"-size", quote(name), "%d bytes, more than %d", info.Size(), limit)
	}
	return dir.Open(name)
}

func readFile(dir *os.Root, name string, limit int64, area string) ([]byte, error) {
	return readInto(nil, dir, name, limit, area)
}

// readInto uses the memory of buffer if it is enough.
func readInto(buffer []byte, dir *os.Root, name string, limit int64, area string) ([]byte, error) {
	f, err := openFile(dir, name, limit, area)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := slices.Grow(buffer[:0], int(min(info.Size(), limit))+1) // one more, so that the end is seen without growing
	data = data[:0:min(int64(cap(data)), limit+1)]
	for len(data) < cap(data) {
		n, err := f.Read(data[len(data):cap(data)])
		if data = data[:len(data)+n]; err == io.EOF {
			return data, nil
		} else if err != nil {
			return nil, err
		}
	}
	return nil, refuse(area+"-size", quote(name), "grew while it was read")
}

// listDir lists a directory by name, with at most limit entries. A missing one has none.
func listDir(dir *os.Root, name string, limit int, area string) ([]fs.DirEntry, error) {
	info, err := lstat(dir, name, area)
	if coded(err, "-missing") {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, refuse(area+"-type", quote(name), "is no directory: %s", info.Mode())
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
		return nil, refuse(area+"-files", quote(name), "has more than %d entries", limit)
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}
