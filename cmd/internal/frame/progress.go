package frame

import (
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// Progress reports how far a long stage is: a line that redraws itself on a terminal, a plain line every few seconds elsewhere, nothing
// with --quiet. Its methods may be called from several goroutines.
type Progress struct {
	env   *Env
	label string
	tty   bool
	start time.Time

	mu    sync.Mutex
	total int64
	done  int64
	note  string
	unit  string // of what is counted; "" for bytes
	last  time.Time
	drawn bool
}

// Progress starts reporting on a stage of total bytes (0: not known).
func (e *Env) Progress(label string, total int64) *Progress {
	p := &Progress{env: e, label: label, total: total, start: time.Now()}
	if f, ok := e.Stderr.(*os.File); ok {
		p.tty = term.IsTerminal(int(f.Fd()))
	}
	p.last = p.start
	return p
}

// Add says that n more bytes are done.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.draw(false)
}

// Note names what is being worked on.
func (p *Progress) Note(s string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note = s
	p.draw(false)
}

// Total sets the total once it is known.
func (p *Progress) Total(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = n
}

// Unit says that something other than bytes is counted.
func (p *Progress) Unit(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unit = name
}

// amount prints how much of it.
func (p *Progress) amount(n int64) string {
	if p.unit == "" {
		return Bytes(n)
	}
	return fmt.Sprintf("%d %s", n, p.unit)
}

// Done ends the report.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.env.Quiet {
		return
	}
	if p.tty && p.drawn {
		fmt.Fprint(p.env.Stderr, "\r\033[K")
	}
}

func (p *Progress) draw(force bool) {
	now := time.Now()
	wait := 3 * time.Second
	if p.tty {
		wait = 100 * time.Millisecond
	}
	if p.env.Quiet || (!force && now.Sub(p.last) < wait) {
		return
	}
	p.last, p.drawn = now, true
	line := fmt.Sprintf("%s: %s", p.env.Program, p.label)
	if p.total > 0 {
		line += fmt.Sprintf(" %d%%", min(100, p.done*100/p.total))
	}
	line += " " + p.amount(p.done)
	if s := now.Sub(p.start).Seconds(); s > 1 {
		line += fmt.Sprintf(", %s/s", p.amount(int64(float64(p.done)/s)))
	}
	if p.note != "" {
		line += " " + p.note
	}
	if !p.tty {
		fmt.Fprintln(p.env.Stderr, line)
		return
	}
	if len(line) > 110 {
		line = line[:110]
	}
	fmt.Fprintf(p.env.Stderr, "\r%s\033[K", line)
}

// Bytes prints a size for people.
func Bytes(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}
