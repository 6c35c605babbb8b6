package channelhost

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"sallyport/internal/judge/authenticate/gitrun"
)

// An answer is what git says to a request. It is kept while it is made, so that git never waits for a client; and for the next who asks the same.
type answer struct {
	key  [sha256.Size]byte
	stop context.CancelFunc
	cut  <-chan struct{} // closed when nobody may have it any more, finished or not

	mu      sync.Mutex
	grown   chan struct{} // closed when there is more, or the end
	memory  []byte        // all of it, as long as that is little
	file    *os.File      // all of it, else; it has no name any more
	size    int64
	done    bool
	err     error
	readers int
	dropped bool // nobody will ask for it any more
	tmp     string
	space   func(need int64) error // whether there is room for so many bytes more in tmp
}

// Write adds to the answer.
func (a *answer) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil && len(a.memory)+len(p) <= inMemory {
		a.memory = append(a.memory, p...)
	} else {
		if a.file == nil {
			if err := a.space(stride); err != nil {
				return 0, err
			}
			f, err := os.CreateTemp(a.tmp, "answer-")
			if err != nil {
				return 0, err
			}
			if err := os.Remove(f.Name()); err != nil {
				return 0, errors.Join(err, f.Close())
			}
			a.file = f
			if _, err := f.Write(a.memory); err != nil {
				return 0, err
			}
			a.memory = nil
		}
		// Clients who read slowly keep what they asked for: they must not fill the disk that the zone is on.
		if a.size/stride != (a.size+int64(len(p)))/stride {
			if err := a.space(stride); err != nil {
				return 0, err
			}
		}
		if _, err := a.file.Write(p); err != nil {
			return 0, err
		}
	}
	a.size += int64(len(p))
	a.more()
	return len(p), nil
}

// more wakes those who wait. The caller has the lock.
func (a *answer) more() {
	close(a.grown)
	a.grown = make(chan struct{})
}

func (a *answer) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done, a.err = true, err
	a.more()
	a.free()
}

// free gives up the file when nobody reads it and nobody will. The caller has the lock.
func (a *answer) free() {
	if a.done && a.dropped && a.readers == 0 && a.file != nil {
		a.file.Close()
		a.file = nil
	}
}

// read copies what stands at an offset. With 0 and no error it is to be tried again when the channel is closed.
func (a *answer) read(p []byte, at int64) (int, <-chan struct{}, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case at < a.size && a.file != nil:
		n, err := a.file.ReadAt(p[:min(int64(len(p)), a.size-at)], at)
		if n > 0 {
			err = nil
		}
		return n, nil, err
	case at < a.size:
		return copy(p, a.memory[at:]), nil, nil
	case a.done && a.err != nil:
		return 0, nil, a.err
	case a.done:
		return 0, nil, io.EOF
	}
	return 0, a.grown, nil
}

// errCut says that the repository was withdrawn while it answered.
var errCut = errors.New("what it holds may not be served any more")

// next is read that waits.
func (a *answer) next(ctx context.Context, p []byte, at int64) (int, error) {
	for {
		select {
		case <-a.cut:
			return 0, errCut
		default:
		}
		n, grown, err := a.read(p, at)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-grown:
		case <-a.cut:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

var (
	errBusy = errors.New("too many requests wait")
	errGone = errors.New("another repository has taken its place")
)

// ask returns the answer of a repository to a request: one that is there or on its way, or a new one. The caller gives it back with leave.
func (h *Host) ask(g *generation, q request) (*answer, error) {
	hash := sha256.New()
	fmt.Fprintf(hash, "%d %q\n", q.protocol, q.args)
	hash.Write(q.body)
	var key [sha256.Size]byte
	hash.Sum(key[:0])

	g.mu.Lock()
	defer g.mu.Unlock()
	if g.gone {
		return nil, errGone
	}
	if a := g.answers[key]; a != nil {
		a.mu.Lock()
		a.readers++
		a.mu.Unlock()
		return a, nil
	}
	if h.waiting.Add(1) > int64(h.Queue+h.Children) {
		h.waiting.Add(-1)
		return nil, errBusy
	}
	ctx, stop := context.WithCancel(g.ctx)
	a := &answer{key: key, stop: stop, grown: make(chan struct{}), readers: 1, tmp: h.tmp(), cut: g.ctx.Done(),
		space: func(need int64) error { return h.Zone.SpaceAt(h.tmp(), need) }}
	g.answers[key] = a
	g.running++
	h.done.Go(func() {
		defer stop()
		err := h.run(ctx, g, a, q)
		h.waiting.Add(-1)
		var exit *gitrun.ExitError
		// What git refuses it has told the client in its own words; it is not kept.
		told := errors.As(err, &exit) && exit.Status > 0 && a.length() > 0
		if told {
			err = nil
		}
		a.end(err)
		g.finish(a, err == nil && !told)
	})
	return a, nil
}

func (a *answer) length() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.size
}

// leave says that a reader has what he wanted, or has gone. An answer that nobody waits for is not finished.
func (h *Host) leave(g *generation, a *answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.readers--
	if a.readers == 0 && !a.done {
		a.stop()
		if g.answers[a.key] == a {
			delete(g.answers, a.key)
		}
		a.dropped = true
	}
	a.free()
}
