package trust

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"time"
)

// ParseOrders checks the form of orders' text, and nothing of who signed it.
func ParseOrders(text []byte) (*Orders, error) {
	s, err := NewScanner("orders", text, MaxOrdersSize)
	if err != nil {
		return nil, err
	}
	return parseOrders(s, text)
}

func parseOrders(s *Scanner, text []byte) (*Orders, error) {
	n := min(len(s.rest)/orderLine, MaxOrders)
	o := &Orders{content: make(map[Digest]int, n), names: make(map[string]int, n), lost: make(map[int64]int)}
	if !s.Title(ordersTitle) {
		return nil, s.Err()
	}
	o.Enclave = s.Word("enclave")
	o.Version = s.Number("version")
	o.Date = s.Date("date")
	o.Root = s.Number("root")
	o.Previous = s.Previous("previous", o.Version == 1)
	if s.Err() != nil {
		return nil, s.Err()
	}
	// Hashing the text takes as long as reading it.
	var wg sync.WaitGroup
	wg.Go(func() { o.digest = Sum(text) })
	p := ordersParser{Scanner: s, o: o, seen: make(map[string]bool, n)}
	p.sorted(MaxOrders, p.read)
	wg.Wait()
	if s.Err() != nil {
		return nil, s.Err()
	}
	return o, nil
}

type ordersParser struct {
	*Scanner
	o    *Orders
	seen map[string]bool // what lines are about: their words but the reason's
}

func (p *ordersParser) read(off int64, line string) {
	if err := p.line(off, line); err != nil {
		p.Refuse("syntax", off, "line %.160q: %v", line, err)
	}
}

// maxOrderFields is the most that orderFields says.
const maxOrderFields = 7

// orderFields says how many fields stand between the word of a line and its reason.
func orderFields(word string) int {
	switch word {
	case orderBreakGlass, orderExcuse:
		return 7
	case orderChannel:
		return 6
	case orderRecall, orderRestored, orderSettled, orderDowngrade:
		return 3
	case orderLost:
		return 2
	}
	return 0
}

func (p *ordersParser) line(off int64, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	n := orderFields(word)
	if n == 0 {
		return fmt.Errorf("want break-glass, channel, downgrade, excuse, lost, recall, restored or settled")
	}
	var f [maxOrderFields]string
	for i := range n {
		var ok bool
		if f[i], rest, ok = strings.Cut(rest, " "); !ok || f[i] == "" {
			return fmt.Errorf("want %d fields and a reason behind %s", n, word)
		}
	}
	reason := rest
	if err := CheckReason(reason); err != nil {
		return err
	}
	date, err := ParseDate(f[n-1])
	if err != nil {
		return err
	}
	// What a line is about stands before its date.
	about := line[:len(line)-len(reason)-len(f[n-1])-1]
	switch word {
	case orderBreakGlass:
		err = p.breakGlass(off, f[:], date, reason)
		about = word + " " + f[0] + " " + f[2] + " " + f[5] // whatever it lasts
	case orderLost:
		var number int64
		if number, err = parsePositive(f[0]); err == nil {
			p.o.lost[number] = len(p.o.Lost)
			p.o.Lost = append(p.o.Lost, Lost{number, date, reason})
		}
	case orderRecall:
		r := Recall{Name: f[1], Date: date, Reason: reason}
		if r.SHA256, err = ParseDigest(f[0]); err == nil {
			err = checkBase(r.Name)
		}
		if err == nil {
			p.o.content[r.SHA256], p.o.names[r.Name] = len(p.o.Recalls), len(p.o.Recalls)
			p.o.Recalls = append(p.o.Recalls, r)
		}
	case orderRestored:
		r := Restored{Date: date, Reason: reason}
		if r.Size, err = parsePositive(f[0]); err == nil {
			r.Tree, err = parseTree(f[1])
		}
		p.o.Restored = append(p.o.Restored, r)
		about = line[:len(line)-len(reason)] // a backup may be needed again
	case orderSettled:
		s := Settled{f[0], f[1], date, reason}
		if err = checkBase(s.Derivation); err == nil {
			err = CheckKeyID(s.KeyID, ContextStatement)
		}
		if err == nil && !strings.HasSuffix(s.Derivation, ".drv") {
			err = fmt.Errorf("%q is no derivation", s.Derivation)
		}
		p.o.Settled = append(p.o.Settled, s)
	case orderDowngrade:
		d := Downgrade{f[0], f[1], date, reason}
		err = cmp.Or(CheckChannel(d.Channel), CheckCommit(d.Commit))
		p.o.Downgrades = append(p.o.Downgrades, d)
	case orderChannel:
		err = p.channel(f[:], date, reason)
		about = word + " " + f[0] // wherever it comes from
	case orderExcuse:
		err = p.excuse(off, f[:], date, reason)
		about = word + " " + f[0] // whatever it excuses
	}
	if err != nil {
		return err
	}
	if p.seen[about] {
		p.Refuse("duplicate", off, "two lines are about %.160q", about)
	}
	p.seen[about] = true
	if date.After(p.o.Date) {
		p.Refuse("date", off, "line %.160q is dated after the orders, %s", line, FormatDate(p.o.Date))
	}
	return nil
}

// breakGlass reads TRACK UNTIL SHA256 SIZE KIND NAME.
func (p *ordersParser) breakGlass(off int64, f []string, date time.Time, reason string) error {
	b := BreakGlass{Track: f[0], Date: date, Reason: reason}
	if err := CheckWord(b.Track); err != nil {
		return err
	}
	var err error
	if b.Until, err = ParseDate(f[1]); err != nil {
		return err
	}
	var fault string
	if b.Item, fault, err = parseItem(strings.Join(f[2:6], " ")); err != nil {
		if fault != "syntax" {
			p.Refuse(fault, off, "%v", err)
			return nil
		}
		return err
	}
	if !date.Before(b.Until) {
		p.Refuse("break-glass", off, "%s until %s: it would end before it began", b.Item.Name, FormatDate(b.Until))
	}
	p.o.BreakGlass = append(p.o.BreakGlass, b)
	return nil
}

// parsePositive parses a number from 1 up.
func parsePositive(s string) (int64, error) {
	n, err := ParseNumber(s, MaxSize)
	if err == nil && n == 0 {
		err = fmt.Errorf("number 0, want 1 or more")
	}
	return n, err
}

// parseTree parses the root hash of a ledger.
func parseTree(s string) (h [treeHashLen]byte, err error) {
	b, err := decode64(s, treeHashLen)
	if err == nil && len(b) != treeHashLen {
		err = fmt.Errorf("tree hash of %d bytes, want %d", len(b), treeHashLen)
	}
	copy(h[:], b)
	return h, err
}

// checkBase checks the base name of a store path.
func checkBase(s string) error {
	if !isBase(s) {
		return fmt.Errorf("name %.80q: want the base name of a store path", s)
	}
	return nil
}
