package gate

import (
	"context"
	"errors"
	"io"
	"strings"

	"sallyport/guix/storepath"
	"sallyport/internal/confine"
	"sallyport/internal/crossing/shipment"
	"sallyport/internal/judge/examine"
	"sallyport/internal/store/cas"
	"sallyport/internal/trust"
)

// sink stores and inspects the items of a volume.
type sink struct {
	ctx     context.Context
	j       *intake
	current *string
}

func (s sink) Begin(it trust.Item) (shipment.ItemSink, error) {
	*s.current = it.Name
	kind, rules := "", ""
	switch it.Kind {
	case trust.KindSource:
		kind = confine.KindNar
	case trust.KindChannel:
		// What matters of it is the checkout, which is looked at when it can be made.
		kind, rules = confine.KindNar, confine.RulesStructure
	case trust.KindDerivation:
		kind = confine.KindDerivation
	default:
		// An output is evidence for a quorum at best; no verb brings one in yet.
		return nil, trust.Refuse("item-kind", it.Name, "items of kind %q are not let in", it.Kind)
	}
	path, err := storepath.ParseBase(it.Name)
	if err != nil {
		return nil, err // the manifest's reader has seen to that
	}
	w, err := s.j.g.Zone.CAS.Create()
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	t := &taking{sink: s, it: it, path: path, blob: w, pipe: pw, judged: make(chan struct{})}
	go func() {
		defer close(t.judged)
		t.report, t.err = s.j.reader.Item(s.ctx, confine.Request{Kind: kind, Name: it.Name, Size: it.Size, Rules: rules}, pr)
		// The writer must never wait for a judge who is gone.
		pr.CloseWithError(errJudged)
	}()
	return t, nil
}

var errJudged = errors.New("the reader has judged")

// taking is one item on its way in.
type taking struct {
	sink
	it     trust.Item
	path   storepath.Path
	blob   *cas.Writer
	pipe   *io.PipeWriter
	judged chan struct{}
	report *confine.Report
	err    error
}

func (t *taking) Write(p []byte) (int, error) {
	if _, err := t.pipe.Write(p); err != nil && !errors.Is(err, errJudged) {
		return 0, err
	}
	return t.blob.Write(p)
}

func (t *taking) Abort() error {
	t.blob.Abort()
	t.pipe.CloseWithError(io.ErrUnexpectedEOF)
	<-t.judged
	return nil
}

// Commit is called when size and digest are the manifest's: now the judgement counts.
func (t *taking) Commit() error {
	defer t.blob.Abort()
	t.pipe.Close()
	<-t.judged
	if t.err != nil {
		return t.err
	}
	if t.it.Kind != trust.KindChannel {
		t.j.inspected(t.it, t.report)
	}
	if err := t.bind(); err != nil {
		return err
	}
	_, _, err := t.blob.Commit(t.it.SHA256)
	return err
}

// inspected takes down what the reader has found in an item.
func (j *intake) inspected(it trust.Item, report *confine.Report) {
	j.files += report.Files
	for i := range report.Findings {
		f := &report.Findings[i]
		j.findings[f.Severity] += f.Count
		if len(j.details) > j.g.maxFindings() {
			continue // refused at the end
		}
		j.details = append(j.details, Finding{Item: it.SHA256.String(), Severity: f.Severity, Rule: f.Rule,
			Place: trust.Printable(f.Place, 300), Count: f.Count, Detail: examine.Examples(f, 600)})
	}
}

// bind recomputes the item's store path from its content.
func (t *taking) bind() error {
	if t.it.Kind == trust.KindSource || t.it.Kind == trust.KindChannel {
		want, err := storepath.Source(t.path.Name(), t.it.SHA256)
		if err != nil {
			return err
		}
		if want != t.path {
			return trust.Refuse("item-path", t.it.Name, "this content's store path is %s", want)
		}
		return nil
	}
	d := t.report.Derivation
	if d == nil {
		return errors.New("the reader gave no derivation")
	}
	// The reader's word is not believed: package confine has printed what it reported and found the very bytes of the item.
	name := strings.TrimSuffix(t.path.Name(), ".drv")
	want, err := d.Path(name)
	if err != nil {
		return err // the reader has refused what is no derivation
	}
	if want != t.path {
		return trust.Refuse("item-path", t.it.Name, "this derivation's store path is %s", want)
	}
	t.j.drvs[want.String()] = &drv{want, d}
	return nil
}
