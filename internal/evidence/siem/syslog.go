package siem

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"sallyport/internal/trust"
)

// Facilities are those that make sense for an audit trail, by the names that loggers know them by.
var Facilities = map[string]int{
	"auth": 4, "daemon": 3, "authpriv": 10, "audit": 13,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// Bounds of a message. Every receiver takes 2,048 bytes (RFC 5424, section 6.1).
const (
	// MaxMessage is the length that no message passes.
	MaxMessage = 2048

	maxHost     = 255
	maxMsgID    = 32
	maxSubjects = 4
)

// Syslog prints messages of RFC 5424:
//
//	<PRI>1 TIME HOST sallyport - KIND [sallyport@32473 NAME="VALUE"...] SENTENCE
//
// TIME is the entry's own. There is no process id, so that an entry that is told
// twice is the same message byte for byte.
type Syslog struct {
	Facility   int
	Host       string // "-" where it is not known
	Enterprise int    // the private enterprise number of the structured data's name
}

// DocumentationNumber is the private enterprise number of examples (RFC 5612): this software has none of its own.
const DocumentationNumber = 32473

// Message is an entry's message, without LF.
func (s *Syslog) Message(r *Record) []byte {
	kind := r.Kind
	if kind == "" {
		kind = "unreadable"
	}
	p := params{}
	p.add("type", "entry")
	p.add("origin", r.Origin)
	p.add("index", strconv.FormatInt(r.Index, 10))
	p.add("kind", kind)
	p.add("signer", r.Signer)
	p.add("key", r.Key)
	p.add("signature", r.Signature)
	p.add("leaf", r.Leaf)
	for _, name := range []string{"person", "track", "stage", "document", "derivation"} {
		p.add(name, r.text(name))
	}
	for _, name := range []string{"shipment", "submission", "version"} {
		if n := r.number(name); n != 0 {
			p.add(name, strconv.FormatInt(n, 10))
		}
	}
	if codes := r.reasons(); len(codes) > 0 {
		p.add("reasons", strings.Join(codes, ","))
	}
	p.add("subjects", strconv.Itoa(len(r.Subjects)))
	for i, sub := range r.Subjects {
		if i == maxSubjects {
			break
		}
		p.add("subject", sub.Name)
		p.add("sha256", sub.SHA256)
	}
	return s.message(r.Severity(), r.Time, kind, p, r.Sentence())
}

// Alarm is the message that says that the ledger itself is not to be believed any more.
func (s *Syslog) Alarm(now time.Time, origin string, refusal *trust.Refusal) []byte {
	p := params{}
	p.add("type", "alarm")
	p.add("origin", origin)
	p.add("reasons", refusal.Code)
	return s.message(Alert, trust.FormatDate(now), "alarm", p, clean("THE LEDGER CANNOT BE BELIEVED: "+refusal.Error(), maxSentence))
}

func (s *Syslog) message(sev Severity, at, id string, p params, sentence string) []byte {
	if _, err := trust.ParseDate(at); err != nil {
		at = "-"
	}
	head := fmt.Sprintf("<%d>1 %s %s sallyport - %s [sallyport@%d", s.Facility*8+int(sev), at, token(s.Host, maxHost), token(id, maxMsgID), s.Enterprise)
	// What does not fit is left out from the end, whole parameters at a time: subjects stand last.
	room := MaxMessage - len(head) - len("] ") - len(sentence)
	var b strings.Builder
	b.WriteString(head)
	for _, param := range p {
		if room -= len(param); room < 0 {
			break
		}
		b.WriteString(param)
	}
	b.WriteString("] ")
	b.WriteString(sentence)
	return []byte(b.String())
}

// params are the parameters of the structured data, each as ` NAME="VALUE"`.
type params []string

// add escapes a value as RFC 5424, section 6.3.3, wants it. Names are this package's own.
func (p *params) add(name, value string) {
	if value == "" {
		return
	}
	v := clean(value, maxValue)
	v = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(v)
	*p = append(*p, ` `+name+`="`+v+`"`)
}

// token makes a field of the header: printable, without a space, not empty.
func token(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r <= 0x20 || r > 0x7e {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), max)]
}
