package daemon

import (
	"bytes"
	"strconv"
	"strings"

	"sallyport/guix/storepath"
)

// MaxLine is the longest trace. A longer line is text.
const MaxLine = 64 << 10

// An Event is a piece of what the daemon tells while it works: text or a trace.
//
// Traces are lines of the daemon, "@ NAME ARGUMENT...":
//
//	build-started DRV - SYSTEM LOGFILE PID      build-succeeded DRV -     build-failed DRV - STATUS MESSAGE
//	substituter-started ITEM ...                substituter-succeeded     substituter-failed
//	hash-mismatch ITEM ALGORITHM EXPECTED ACTUAL
//
// and others. Text of a builder comes with the number of its process, which its
// build-started has as last argument, so that parallel builds can be told apart.
// After [Client.SetOptions], builders cannot forge traces: their output is framed by the daemon. Before it
// nothing is taken for a trace.
type Event struct {
	Trace string         // name of a trace; "" for text
	Args  []string       // of a trace
	Item  storepath.Path // the first of Args, if that is a path

	PID  uint64 // of the builder whose text this is; 0 for the daemon's
	Text []byte // valid until the function that gets the Event returns
}

// String returns text as it came and a trace as its line.
func (e Event) String() string {
	if e.Trace == "" {
		return string(e.Text)
	}
	return "@ " + strings.Join(append([]string{e.Trace}, e.Args...), " ") + "\n"
}

// A splitter makes events of a log.
type splitter struct {
	emit   func(Event)
	framed bool // the daemon frames the output of builders

	line []byte // of what may become a trace, its beginning
	text bool   // in a line that is none
	pid  uint64
	left uint64 // in the frame
}

const mark = "@ "

func (s *splitter) send(pid uint64, text []byte) {
	if s.emit != nil && len(text) > 0 {
		s.emit(Event{PID: pid, Text: text})
	}
}

func (s *splitter) write(b []byte) {
	if !s.framed {
		s.send(0, b)
		return
	}
	for len(b) > 0 {
		if s.left > 0 {
			n := min(s.left, uint64(len(b)))
			s.send(s.pid, b[:n])
			s.left -= n
			b = b[n:]
			continue
		}
		end := bytes.IndexByte(b, '\n') + 1 // 0 if the line goes on
		part := b
		if end > 0 {
			part = b[:end]
		}
		b = b[len(part):]
		if !s.text {
			s.line = append(s.line, part...)
			if strings.HasPrefix(mark, string(s.line[:min(len(s.line), len(mark))])) && len(s.line) <= MaxLine {
				if end > 0 {
					s.trace()
					s.line = s.line[:0]
				}
				continue // it may be a trace
			}
			part, s.line = s.line, s.line[:0]
		}
		s.send(0, part)
		s.text = end == 0
	}
}

// trace deals with a line that begins like a trace.
func (s *splitter) trace() {
	if !bytes.HasPrefix(s.line, []byte(mark)) {
		s.send(0, s.line)
		return
	}
	words := strings.Fields(string(s.line[len(mark):]))
	if len(words) == 0 || strings.Trim(words[0], "abcdefghijklmnopqrstuvwxyz-") != "" {
		s.send(0, s.line)
		return
	}
	if words[0] == "build-log" {
		if len(words) == 3 {
			pid, err1 := strconv.ParseUint(words[1], 10, 64)
			n, err2 := strconv.ParseUint(words[2], 10, 64)
			if err1 == nil && err2 == nil {
				s.pid, s.left = pid, n
				return
			}
		}
		s.send(0, s.line)
		return
	}
	if s.emit != nil {
		e := Event{Trace: words[0], Args: words[1:]}
		if len(e.Args) > 0 {
			e.Item, _ = storepath.Parse(e.Args[0]) // zero if it is none
		}
		s.emit(e)
	}
}

// end sends what is left of an unfinished line.
func (s *splitter) end() {
	s.send(0, s.line)
	s.line, s.text, s.left = s.line[:0], false, 0
}
