// Package examine has items from outside read by the confined reader and turns what it says into a judgement: refused, or fit to go on with what was found.
//
// An item is refused if it is not well-formed, if a finding of it has the severity "block", and if the reader died or talked nonsense while it read it: what
// cannot be read safely is not let in, and no crash of the reader is a way around being judged. The next item gets a new reader.
package examine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"sallyport/internal/confine"
	"sallyport/internal/trust"
)

// A Reader is a confined child, replaced when it dies. It is used by one goroutine at a time.
type Reader struct {
	options confine.Options
	child   *confine.Child
	inForce map[string]any
}

// Start starts the child, so that a machine that cannot confine one says so before anything is read.
func Start(ctx context.Context, o confine.Options) (*Reader, error) {
	r := &Reader{options: o}
	if err := r.start(ctx); err != nil {
		return nil, fmt.Errorf("nothing is read without confinement: %w", err)
	}
	r.inForce = r.child.Confinement()
	return r, nil
}

func (r *Reader) start(ctx context.Context) (err error) {
	r.child, err = confine.Start(ctx, r.options)
	return err
}

// Confinement says what was in force, in values that a statement can hold.
func (r *Reader) Confinement() map[string]any { return r.inForce }

// Close ends the child.
func (r *Reader) Close() {
	if r.child != nil {
		r.child.Close()
		r.child = nil
	}
}

// Item has one item read: exactly req.Size bytes of src. Its error is [trust.Refusals] if the item is refused; any other means that it was not judged.
func (r *Reader) Item(ctx context.Context, req confine.Request, src io.Reader) (*confine.Report, error) {
	if req.Size > confine.MaxSize {
		return nil, trust.Refuse("item-size", req.Name, "%d bytes; more than %d are not read", req.Size, int64(confine.MaxSize))
	}
	if r.child == nil {
		if err := r.start(ctx); err != nil {
			return nil, err
		}
	}
	report, err := r.child.Judge(ctx, req, src)
	if err != nil {
		r.Close()
		var death *confine.DeathError
		var answer *confine.AnswerError
		switch {
		case errors.As(err, &death):
			return nil, trust.Refuse(death.Code, req.Name, "the reader ended while it read this item: %s %s", death.Detail, trust.Printable(death.Stderr, 300)).
				WithHint("nothing is let in that cannot be read safely; if the machine was short of memory or time, the same volume can be brought again")
		case errors.As(err, &answer):
			return nil, trust.Refuse("reader-answer", req.Name, "while it read this item the reader said what no honest one says: %s", trust.Printable(answer.Detail, 300))
		}
		return nil, fmt.Errorf("reading %s: %w", req.Name, err)
	}
	var rs trust.Refusals
	for _, f := range report.Refusals {
		rs.Add(trust.Refuse(f.Code, req.Name, "%s", trust.Printable(f.Detail, 500)).At(f.Offset))
	}
	for i := range report.Findings {
		f := &report.Findings[i]
		if f.Severity == confine.Block {
			rs.Add(trust.Refuse("inspection-block", req.Name, "%s in %q (%d times): %s", f.Rule, f.Place, f.Count, Examples(f, 300)))
		}
	}
	return report, rs.Err()
}

// Examples is a finding's examples on one line of at most max bytes.
func Examples(f *confine.Finding, max int) string {
	return trust.Printable(strings.Join(f.Examples, ", "), max)
}
