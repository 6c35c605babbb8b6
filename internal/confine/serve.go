package confine

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// Answers is how a handler in the child tells what it found. Its bounds are those the parent enforces: what goes past them is counted,
// and told in one last refusal, so that an item too rich in findings is refused rather than passed with some of them unseen.
type Answers struct {
	w        *bufio.Writer
	err      error
	findings int
	refusals int
	over     string
}

func (a *Answers) send(v any) {
	if a.err != nil {
		return
	}
	line, err := encode(v)
	if err != nil {
		a.overflow("an answer line: " + err.Error())
		return
	}
	_, a.err = a.w.Write(line)
}

func (a *Answers) overflow(what string) {
	if a.over == "" {
		a.over = what
	}
}

// Finding sends f. Its texts must have gone through Escape.
func (a *Answers) Finding(f Finding) {
	if f.Examples == nil {
		f.Examples = []string{}
	}
	if a.findings++; a.findings > MaxFindings {
		a.overflow("findings")
		return
	}
	a.send(findingLine{tag{"finding"}, f})
}

// Refuse sends r. Its texts must have gone through Escape.
func (a *Answers) Refuse(r Refusal) {
	if a.refusals++; a.refusals > MaxRefusals-1 { // the last place is for too-many-answers
		a.overflow("refusals")
		return
	}
	a.send(refusalLine{tag{"refusal"}, r})
}

// A Handler reads the item of one request from body, which ends after the request's size, and tells what it found.
// It returns how many files and bytes it inspected. A body that it leaves unread is read and dropped by Serve.
type Handler func(req Request, body io.Reader, answers *Answers) (files, bytes int64)

// Serve is the child's loop. It says that it is ready (conf is what Enter returned), then answers requests until in ends.
func Serve(in io.Reader, out io.Writer, conf *Confinement, handle Handler) error {
	r := bufio.NewReaderSize(in, MaxLine)
	w := bufio.NewWriterSize(out, MaxLine)
	ready, err := encode(readyLine{tag{"ready"}, conf.c})
	if err != nil {
		return err
	}
	w.Write(ready)
	if err := w.Flush(); err != nil {
		return err
	}
	for {
		line, err := readLine(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		var req Request
		if err := decode(line, &req); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		if err := req.check(); err != nil {
			return err
		}
		body := &io.LimitedReader{R: r, N: req.Size}
		answers := &Answers{w: w}
		files, bytes := handle(req, body, answers)
		if _, err := io.Copy(io.Discard, body); err != nil {
			return fmt.Errorf("item: %w", err)
		}
		if body.N != 0 {
			return errors.New("item: the parent sent less than it announced")
		}
		if answers.over != "" {
			answers.send(refusalLine{tag{"refusal"}, Refusal{Code: "too-many-answers", Detail: answers.over}})
		}
		answers.send(resultLine{tag{"result"}, files, bytes})
		if answers.err == nil {
			answers.err = w.Flush()
		}
		if answers.err != nil {
			return fmt.Errorf("answer: %w", answers.err)
		}
	}
}

// Fail tells the parent why Enter was not possible.
func Fail(out io.Writer, err error) {
	f := &FeatureError{Feature: "reader", Detail: err.Error(), Remedy: "see the detail"}
	errors.As(err, &f)
	line, err := encode(failedLine{tag{"failed"}, Escape(f.Feature, 256), Escape(f.Detail, 4096), Escape(f.Remedy, 4096)})
	if err == nil {
		out.Write(line)
	}
}
