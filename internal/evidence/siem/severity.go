package siem

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"sallyport/internal/trust/statement"
)

// A Severity is one of RFC 5424, section 6.2.1.
type Severity int

const (
	Alert    Severity = 1 // somebody must act now: builders disagree, a document came twice with other bytes, a signature is wrong
	Critical Severity = 2 // something that was allowed is not any more, or the ledger was put back
	Warning  Severity = 4 // refused, rejected, or let in without its reviewers
	Notice   Severity = 5 // a person, or several, decided something
	Info     Severity = 6 // the station did its work
)

var severities = map[string]Severity{
	statement.KindCreated: Notice, statement.KindRoot: Notice,
	statement.KindCollected: Info, statement.KindInspected: Info, statement.KindShipped: Notice, statement.KindPinned: Notice, statement.KindExcused: Warning,
	statement.KindImported: Notice, statement.KindSubmitted: Notice, statement.KindDeclined: Warning, statement.KindRefused: Warning, statement.KindApproved: Notice, statement.KindRejected: Warning,
	statement.KindAllowed: Notice, statement.KindSigned: Info, statement.KindBuilt: Info, statement.KindAgreed: Info, statement.KindDisagreed: Alert,
	statement.KindWitnessed: Notice, statement.KindRebuilt: Warning, statement.KindChecked: Info,
	statement.KindKeyChanged:  Warning,
	statement.KindUndersigned: Notice, statement.KindOrdered: Notice, statement.KindRecalled: Critical, statement.KindReleased: Notice, statement.KindRestored: Critical,
}

// alarms are the ends of reason codes that no honest mistake leads to.
var alarms = []string{"-equivocation", "-rollback", "-fork"}

// Severity says how much an entry matters. A kind that this program does not know is a notice.
func (r *Record) Severity() Severity {
	if r.Fault != "" || r.Signature == Bad || r.Signature == Unknown {
		return Alert
	}
	if r.Kind == statement.KindRefused {
		for _, code := range r.reasons() {
			for _, end := range alarms {
				if strings.HasSuffix(code, end) {
					return Alert
				}
			}
		}
	}
	if r.Kind == statement.KindChecked {
		switch {
		case r.number("recalled") > 0 || r.number("derived") > 0:
			return Critical
		case r.number("unknown") > 0:
			return Warning
		}
	}
	if s, ok := severities[r.Kind]; ok {
		return s
	}
	return Notice
}

// reasons are the codes of an entry `refused`, each once, in the order in which they stand there.
func (r *Record) reasons() []string {
	list, _ := r.Predicate["reasons"].([]any)
	seen := map[string]bool{}
	var codes []string
	for _, v := range list {
		m, _ := v.(map[string]any)
		if code, ok := m["code"].(string); ok && !seen[code] {
			seen[code] = true
			codes = append(codes, code)
		}
	}
	return codes
}

// Sentence says for people what happened. It is printable ASCII on one line, and bounded.
func (r *Record) Sentence() string {
	if r.Fault != "" {
		return clean("this entry is no statement: "+r.Fault, maxSentence)
	}
	s := r.sentence()
	switch r.Signature {
	case Bad:
		s = "THE SIGNATURE IS WRONG: " + s
	case Unknown:
		s = "SIGNED BY NO KEY OF THE ENCLAVE: " + s
	}
	return clean(s, maxSentence)
}

func (r *Record) sentence() string {
	n := r.number
	list := fmt.Sprintf("allowlist %s version %d", r.text("track"), n("version"))
	switch r.Kind {
	case statement.KindCreated:
		return "the ledger begins"
	case statement.KindRoot:
		s := fmt.Sprintf("root version %d is in force", n("version"))
		c := r.names("changes")
		if len(c) > maxChanges {
			return fmt.Sprintf("%s: %s; and %d changes more", s, strings.Join(c[:maxChanges], "; "), len(c)-maxChanges)
		}
		if len(c) > 0 {
			s += ": " + strings.Join(c, "; ")
		}
		return s
	case statement.KindCollected:
		return fmt.Sprintf("%d items of %d bytes collected", n("items"), n("bytes"))
	case statement.KindInspected:
		return fmt.Sprintf("%s: %d files of %d bytes inspected; findings: %s", r.subject(), n("files"), n("bytes"), counts(r.Predicate["findings"]))
	case statement.KindShipped:
		return fmt.Sprintf("shipment %d: %d items of %d bytes shipped", n("shipment"), n("items"), n("bytes"))
	case statement.KindImported:
		return fmt.Sprintf("%s imported shipment %d: %d items of %d bytes", r.text("person"), n("shipment"), n("items"), n("bytes"))
	case statement.KindRefused:
		return fmt.Sprintf("%s refused by %s, %d times: %s", r.subject(), r.text("stage"), n("total"), strings.Join(r.reasons(), ", "))
	case statement.KindApproved:
		return fmt.Sprintf("%s approved %s", r.text("person"), list)
	case statement.KindRejected:
		return fmt.Sprintf("%s rejected shipment %d: %s", r.text("person"), n("shipment"), r.text("reason"))
	case statement.KindSubmitted:
		return fmt.Sprintf("%s submitted own-%d: channel %s at commit %s, %d bytes", r.text("person"), n("submission"), r.text("channel"), r.text("commit"), n("size"))
	case statement.KindDeclined:
		return fmt.Sprintf("%s rejected own-%d: %s", r.text("person"), n("submission"), r.text("reason"))
	case statement.KindAllowed:
		return fmt.Sprintf("%s is in force, signed by %s", list, strings.Join(r.names("persons"), ", "))
	case statement.KindSigned:
		return fmt.Sprintf("%d narinfos signed for track %s", len(r.Subjects), r.text("track"))
	case statement.KindBuilt:
		return fmt.Sprintf("%s built %s", r.text("person"), r.text("derivation"))
	case statement.KindAgreed:
		return fmt.Sprintf("%d builders agree on %s", len(r.names("builders")), r.text("derivation"))
	case statement.KindDisagreed:
		return "BUILDERS DISAGREE on " + r.subject()
	case statement.KindUndersigned:
		return fmt.Sprintf("%s signed %s version %d", r.text("person"), r.text("document"), n("version"))
	case statement.KindOrdered:
		return fmt.Sprintf("orders version %d are in force, signed by %s", n("version"), strings.Join(r.names("persons"), ", "))
	case statement.KindRecalled:
		return fmt.Sprintf("RECALLED: %s", r.subject())
	case statement.KindReleased:
		return fmt.Sprintf("%s was released from %s", list, r.text("from"))
	case statement.KindWitnessed:
		return fmt.Sprintf("%s cosigned the ledger at size %d", r.text("person"), n("size"))
	case statement.KindRebuilt:
		return "the catalog was made anew from the published ledger"
	case statement.KindKeyChanged:
		return fmt.Sprintf("the %s key of the zone is another since root version %d", r.text("context"), n("version"))
	case statement.KindPinned:
		return fmt.Sprintf("channel %s is pinned to commit %s, from %s", r.text("channel"), r.text("commit"), r.text("from"))
	case statement.KindExcused:
		return fmt.Sprintf("%s excuses %s in channel %s until %s: %s", r.text("person"), r.text("code"), r.text("channel"), r.text("until"), r.text("reason"))
	case statement.KindChecked:
		return fmt.Sprintf("host %s reported %d items: %d recalled, %d derived from what is, %d unknown", r.text("host"), n("items"), n("recalled"), n("derived"), n("unknown"))
	case statement.KindRestored:
		return fmt.Sprintf("the ledger was put back; its backup had size %d", n("size"))
	}
	return r.Kind + ": " + r.subject()
}

// subject names the first subject, and how many more there are.
func (r *Record) subject() string {
	switch len(r.Subjects) {
	case 0:
		return "nothing"
	case 1:
		return r.Subjects[0].Name
	}
	return fmt.Sprintf("%s and %d more", r.Subjects[0].Name, len(r.Subjects)-1)
}

// counts prints an object of numbers.
func counts(v any) string {
	m, _ := v.(map[string]any)
	var parts []string
	for k, v := range m {
		if n, ok := v.(int64); ok && n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", k, n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	sort.Strings(parts)
	return strings.Join(parts, ", ")
}

// Bounds on what an entry brings into a message.
const (
	maxChanges  = 3 // of a root; all are in the entry
	maxValue    = 255
	maxSentence = 500
)

// clean makes printable ASCII of at most max bytes, the mark that it was cut included.
func clean(s string, max int) string {
	const cut = "..."
	if len(s) > max { // whatever it becomes, it does not become shorter
		s = s[:max+1]
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		q := strconv.QuoteToASCII(s)
		s = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(q[1 : len(q)-1])
	}
	if len(s) > max {
		s = s[:max-len(cut)] + cut
	}
	return s
}
