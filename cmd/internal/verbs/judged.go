package verbs

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"sallyport/guix/archive"
	"sallyport/guix/derivation"
	"sallyport/guix/nar"
	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/internal/trust"
)

// judged turns what the packages of Guix's formats say of an input into refusals: all of it, if err joins several. subject is the input. What is no judgement
// (a disk, a connection) stays what it is and is told beside them.
func judged(subject string, err error) error {
	return judgedOf(err, func(item string) string {
		if item != "" {
			return item
		}
		return subject
	})
}

// judgedOf is judged for errors that name items; subject tells what to call them.
func judgedOf(err error, subject func(item string) string) error {
	var rs trust.Refusals
	var failures []error
	for _, err := range each(err) {
		if r := judgement(err, subject); r != nil {
			rs.Add(r)
		} else if err = rs.Merge(err); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(append(failures, rs.Err())...)
}

// each returns what was joined, at any depth.
func each(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, each(e)...)
	}
	return all
}

// judgement is the refusal that one error is, or nil.
func judgement(err error, subject func(item string) string) *trust.Refusal {
	var stream *archive.Error
	var drv *derivation.Error
	var contents *nar.Error
	var info *narinfo.Error
	var sig *signature.Error
	switch {
	case errors.As(err, &stream): // before nar, which it may wrap
		return refuseAt(stream.Offset, stream.Code, subject(""), stream.Detail)
	case errors.As(err, &drv):
		return refuseAt(drv.Offset, drv.Code, subject(drv.Path), drv.Detail)
	case errors.As(err, &contents):
		return refuseAt(contents.Offset, "nar-"+contents.Code, subject(""), contents.Detail)
	case errors.As(err, &info):
		return refuseAt(info.Offset, info.Code, subject(""), info.Detail)
	case errors.As(err, &sig):
		return refuseAt(-1, sig.Code, subject(""), sig.Detail) // its offset is in the signature alone
	}
	return nil
}

// refuseAt names the byte, also the first; a negative offset is none.
func refuseAt(offset int64, code, subject, detail string) *trust.Refusal {
	if offset == 0 {
		detail += " (byte 0)" // a refusal prints no zero
	}
	return trust.Refuse(code, subject, "%s", detail).At(max(offset, 0))
}

// dumping names the file at fault by the path that was given. What has no place in a nar is refused.
func dumping(path string, err error) error {
	var at *fs.PathError
	if !errors.As(err, &at) || at.Op != "dump" {
		return err
	}
	file := path
	if at.Path != "." && at.Path != filepath.Base(path) {
		file = filepath.Join(path, at.Path)
	}
	var contents *nar.Error
	if errors.As(err, &contents) {
		return judged(file, contents)
	}
	return fmt.Errorf("%s: %w", file, at.Err)
}
