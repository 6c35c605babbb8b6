package inspect

import (
	"bytes"
	"math"
)

// longRun is how many characters of base64 in one stretch are no text.
const longRun = 4096

// minRunLine is the shortest line, on average, of a stretch that counts: a list of words is no base64.
const minRunLine = 40

// Bits of runClass.
const (
	runUpper = 1 << iota
	runLower
	runDigit
	runOther // + / = - _
	runBreak // CR LF
)

var runClass = func() (t [256]byte) {
	for c := range t {
		switch b := byte(c); {
		case b >= 'A' && b <= 'Z':
			t[c] = runUpper
		case b >= 'a' && b <= 'z':
			t[c] = runLower
		case b >= '0' && b <= '9':
			t[c] = runDigit
		case b == '+' || b == '/' || b == '=' || b == '-' || b == '_':
			t[c] = runOther
		case b == '\n' || b == '\r':
			t[c] = runBreak
		}
	}
	return t
}()

// runState is the stretch that the last window ended in.
type runState struct {
	payload, breaks int64
	classes         byte
	line            int64 // of the first long run, 0 for none
	count           int64
	told            bool // this stretch is counted
}

// scan looks for long runs in a window that begins on the given line.
func (s *runState) scan(b []byte, line int64) {
	i := s.extend(b, 0, 0, line)
	if i == len(b) {
		return
	}
	s.end()
	// A stretch longer than longRun holds one byte of every longRun: only those are looked at, and what stands around them.
	for {
		next := i + longRun
		if next >= len(b) {
			break
		}
		if runClass[b[next]] == 0 {
			i = next
			continue
		}
		from := next
		for from > i && runClass[b[from-1]] != 0 {
			from--
		}
		i = s.extend(b, from, from, line)
		if i == len(b) {
			return
		}
		s.end()
	}
	// What the window ends in may go on in the next one.
	from := len(b)
	for from > i && runClass[b[from-1]] != 0 {
		from--
	}
	s.extend(b, from, from, line)
}

// extend takes the stretch on from b[i], and gives the index of its end.
func (s *runState) extend(b []byte, i, from int, line int64) int {
	for i < len(b) {
		c := runClass[b[i]]
		if c == 0 {
			break
		}
		if c == runBreak {
			s.breaks++
		} else {
			s.payload++
			s.classes |= c
		}
		i++
	}
	const mixed = runUpper | runLower | runDigit
	if !s.told && s.payload > longRun && s.payload >= s.breaks*minRunLine && s.classes&mixed == mixed {
		s.told = true
		s.count++
		if s.line == 0 {
			for from < i && runClass[b[from]] == runBreak {
				from++
			}
			s.line = line + newlines(b[:from])
		}
	}
	return i
}

func (s *runState) end() { s.payload, s.breaks, s.classes, s.told = 0, 0, 0, false }

// newlines counts them.
func newlines(b []byte) int64 { return int64(bytes.Count(b, []byte{'\n'})) }

// privateKey finds a PEM private key's first line in a window and gives its index, or -1.
func privateKey(b []byte) int {
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte("PRIVATE KEY-----"))
		if i < 0 {
			return -1
		}
		i += at
		begin := bytes.LastIndex(b[max(0, i-40):i], []byte("-----BEGIN "))
		if begin >= 0 && bytes.IndexByte(b[max(0, i-40)+begin:i], '\n') < 0 {
			return max(0, i-40) + begin
		}
		at = i + 1
	}
}

// A histogram counts bytes; four tables, so that equal bytes in a row do not wait for each other.
type histogram [4][256]uint32

func (h *histogram) add(b []byte) {
	for len(b) >= 4 {
		h[0][b[0]]++
		h[1][b[1]]++
		h[2][b[2]]++
		h[3][b[3]]++
		b = b[4:]
	}
	for _, c := range b {
		h[0][c]++
	}
}

// entropy in bits a byte.
func (h *histogram) entropy() float64 {
	total, sum := 0.0, 0.0
	for c := range 256 {
		n := float64(h[0][c]) + float64(h[1][c]) + float64(h[2][c]) + float64(h[3][c])
		if n > 0 {
			total += n
			sum += n * math.Log2(n)
		}
	}
	if total == 0 {
		return 0
	}
	return math.Log2(total) - sum/total
}
