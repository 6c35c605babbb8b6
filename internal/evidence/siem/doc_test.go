package siem

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestManual: the table of severities in docs/operate/siem.md is this program's.
func TestManual(t *testing.T) {
	data, err := os.ReadFile("../../../docs/operate/siem.md")
	if err != nil {
		t.Fatal(err)
	}
	words := map[string]Severity{"alert": Alert, "critical": Critical, "warning": Warning, "notice": Notice, "info": Info}
	documented := map[string]Severity{}
	for line := range strings.Lines(string(data)) {
		kinds, severity, ok := strings.Cut(strings.TrimSuffix(line, " |\n"), " | ")
		level, known := words[severity]
		if !ok || !known || !strings.HasPrefix(kinds, "| `") {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z-]+)`").FindAllStringSubmatch(kinds, -1) {
			if _, twice := documented[m[1]]; twice {
				t.Errorf("%s stands there twice", m[1])
			}
			documented[m[1]] = level
		}
	}
	for kind, s := range severities {
		if documented[kind] != s {
			t.Errorf("%s is %d, the manual says %d", kind, s, documented[kind])
		}
	}
	for kind := range documented {
		if _, ok := severities[kind]; !ok {
			t.Errorf("the manual has %s, which is no kind", kind)
		}
	}
	for _, s := range alarms {
		if !strings.Contains(string(data), "`"+s+"`") {
			t.Errorf("the manual has not %s", s)
		}
	}
}
