package inspect

import (
	"bytes"
	"math/bits"
	"regexp"
	"slices"
	"strings"
)

// maxLogicalLine bounds a line with its continuations; a longer one is judged in pieces of this size that overlap.
const maxLogicalLine = 4 << 10

const lineOverlap = 256

// The indicators of a build script, as bits.
const (
	pipeShell = 1 << iota
	pipeEval
	pipeDecodeVariable
	grepRecursiveText
	decompressorPipe
	headTailBytes
	trPermutation
	decoder
	sedNewlineFile
	testDataPipe
)

var indicatorNames = [...]string{"pipe into a shell", "pipe through eval", "pipe into a variable command that decodes", "recursive grep of binary files",
	"decompressor in a pipe", "head or tail by bytes in a pipe", "tr that permutes bytes", "decoder", "sed reads a file called newline", "test data into a pipe"}

// Patterns work on one logical line, after a literal in it was found.
var (
	shellWord     = regexp.MustCompile(`^\s*"?(?:(?:/usr)?/bin/)?(?:sh|bash|dash|ash|zsh|ksh|\$\{?(?:CONFIG_)?SHELL\}?|\$\((?:CONFIG_)?SHELL\))"?(\s+-[a-z]+)*\s*(?:$|[;"'&<>\x60)\]]|-[-\s]|\$)`)
	casePattern   = regexp.MustCompile(`^(?:case\s+\S+\s+in\s+|;;\s*)?\(?\s*[^\s|()&;<>]+(?:\s*\|\s*[^\s|()&;<>]+)+\s*\)`)
	evalVariable  = regexp.MustCompile(`^\s*eval\s+\\?["']?\$`)
	evalThenPipe  = regexp.MustCompile(`(?:^|[;&(\x60{=]|\bthen\b|\bdo\b)\s*eval\s+\\?"?\$[^;&]*$`)
	variableCmd   = regexp.MustCompile(`^\s*\\?["']?\$([A-Za-z0-9_{}()\[\]$]+)["']?\s+(?:-[a-zA-Z]+\s+)*(?:-[A-Za-z]*d[A-Za-z]*|--decompress|--decode|--uncompress)\b`)
	plainVariable = regexp.MustCompile(`(?i)(?:tr|cut|xargs|paste|date|sort|uniq|sed|diff|nm|ld|objdump)[})\]]*$`)
	grepCommand   = regexp.MustCompile(`\b[ef]?(?:grep|GREP)[})]?((?:\s+-[-A-Za-z]+)+)`)
	decompressor  = regexp.MustCompile(`(?:^|[\s(\x60;&=])(?:(?:gzip|bzip2|xz|lzma|zstd|lzip|lz4|lzop|pigz)\s+(?:-\S+\s+)*(?:-[A-Za-z0-9]*d[A-Za-z0-9]*|--decompress|--uncompress)|gunzip|zcat|bzcat|bunzip2|xzcat|unxz|lzcat|unlzma|zstdcat|unzstd)\b`)
	headTail      = regexp.MustCompile(`\b(?:head|tail)\s+(?:-[a-z]+\s+)*(?:-c|--bytes)`)
	trCommand     = regexp.MustCompile(`\btr\s+(?:-[a-z]+\s+)*(\\?"(?:[^"\\]|\\.)*"|\\?'[^']*')\s+(\\?"(?:[^"\\]|\\.)*"|\\?'[^']*')`)
	decoders      = regexp.MustCompile(`\bbase64\s+(?:-\S+\s+)*(?:-d|-D|--decode|-[a-z]*d\b)|\bxxd\s+(?:-\S+\s+)*-[a-z]*r|\bopenssl\s+(?:enc|base64|aes\S*|des\S*)\s[^|;]*-d\b|\buudecode\s`)
	sedNewline    = regexp.MustCompile(`\bsed\s+(?:-[a-z]+\s+)*\\?["']?r\\n`)
	testData      = regexp.MustCompile(`(?:^|[\s"'\x60(<=])(?:cat|sed|head|tail|dd|tr|od|xxd|<)\b?[^|;&]*?[\s"'/=<](?:tests?|testdata|testsuite|fixtures|corpus)/[^|;&]*$`)
	fetcher       = regexp.MustCompile(`\b(?:curl|wget|fetch|lynx|lwp-request)\s[^|]*(?:https?:|ftp:|\$|-)[^|]*$`)
)

var (
	octalEscape = regexp.MustCompile(`\\[0-7]{1,3}`)
	// needles are what a line must hold one of to be looked at.
	needles       = [][]byte{[]byte("|"), []byte("grep"), []byte("GREP"), []byte("tr "), []byte("base64"), []byte("xxd"), []byte("openssl"), []byte("uudecode"), []byte("sed"), []byte("/dev/tcp/")}
	fetchers      = [][]byte{[]byte("curl"), []byte("wget"), []byte("fetch"), []byte("lynx"), []byte("lwp-")}
	decompressors = [][]byte{[]byte("zip"), []byte("xz"), []byte("lz"), []byte("zcat"), []byte("bzcat"), []byte("zst"), []byte("pigz")}
)

// buildState is what the rules know of one script.
type buildState struct {
	seen   int       // indicators
	lines  [16]int64 // of the first sight of each
	remote int64     // line of a fetched text that goes to a shell
	joined []byte
}

func (s *buildState) reset() {
	s.seen, s.remote = 0, 0
	s.lines = [16]int64{}
}

// scan judges the whole lines of a window. script says that the indicators count; remote commands always do.
func (s *buildState) scan(b []byte, line int64, script bool) {
	if !script && !bytes.Contains(b, needles[9]) && !bytes.Contains(b, []byte("curl")) && !bytes.Contains(b, []byte("wget")) {
		return
	}
	for len(b) > 0 {
		first := line
		s.joined = s.joined[:0]
		var text []byte
		for {
			end := bytes.IndexByte(b, '\n')
			next := end + 1
			if end < 0 {
				end, next = len(b), len(b)
			}
			text = b[:end]
			b = b[next:]
			line++
			text = bytes.TrimSuffix(text, []byte{'\r'})
			continued := len(text) > 0 && text[len(text)-1] == '\\' && len(b) > 0
			if !continued && len(s.joined) == 0 {
				break // the common case: nothing to join, nothing to copy
			}
			if continued {
				text = text[:len(text)-1]
			}
			s.joined = append(s.joined, text...)
			if !continued || len(s.joined) > maxLogicalLine {
				text = s.joined
				break
			}
		}
		for len(text) > maxLogicalLine {
			s.judge(text[:maxLogicalLine], first, script)
			text = text[maxLogicalLine-lineOverlap:]
		}
		s.judge(text, first, script)
	}
}

func (s *buildState) judge(text []byte, line int64, script bool) {
	text = bytes.TrimLeft(text, " \t@-")
	if len(text) == 0 || text[0] == '#' || bytes.HasPrefix(text, []byte("dnl")) || bytes.HasPrefix(text, []byte("//")) {
		return
	}
	if !containsAny(text, needles) {
		return
	}
	hit := func(indicator int) {
		if s.seen&indicator == 0 {
			s.seen |= indicator
			s.lines[bits.TrailingZeros(uint(indicator))] = line
		}
	}
	has := func(lit string) bool { return bytes.Contains(text, []byte(lit)) }

	if s.remote == 0 && has("/dev/tcp/") {
		s.remote = line
	}
	// The line is taken apart at single bars. Each pattern sees one segment, never the rest of the line: a line of nothing but bars costs no more than another.
	piped, start := false, 0
	alternatives := 0 // up to here the bars are those of a pattern in a case statement
	if m := casePattern.FindIndex(text); m != nil {
		alternatives = m[1]
	}
	for at := 0; at < len(text); at++ {
		i := bytes.IndexByte(text[at:], '|')
		if i < 0 {
			break
		}
		at += i
		if at+1 < len(text) && text[at+1] == '|' {
			at++ // an or
			continue
		}
		piped = true
		segment, after := text[start:at], text[at+1:]
		start = at + 1
		if next := bytes.IndexByte(after, '|'); next >= 0 {
			after = after[:next]
		}
		after = bytes.TrimLeft(bytes.TrimPrefix(after, []byte{'&'}), " \t")
		fetches := s.remote == 0 && containsAny(segment, fetchers) && fetcher.Match(segment)
		if at >= alternatives && (script && s.seen&pipeShell == 0 || fetches) && pipesToShell(after) {
			if script {
				hit(pipeShell)
			}
			if fetches {
				s.remote = line
			}
		}
		if !script {
			continue
		}
		if s.seen&pipeEval == 0 && (bytes.HasPrefix(after, []byte("eval")) && evalVariable.Match(after) || bytes.Contains(segment, []byte("eval")) && evalThenPipe.Match(segment)) {
			hit(pipeEval)
		}
		if s.seen&pipeDecodeVariable == 0 && bytes.IndexByte(after[:min(len(after), 4)], '$') >= 0 && bytes.Contains(after, []byte(" -")) {
			if m := variableCmd.FindSubmatch(after); m != nil && !plainVariable.Match(m[1]) {
				hit(pipeDecodeVariable)
			}
		}
		if s.seen&decompressorPipe == 0 && containsAny(segment, decompressors) && decompressor.Match(segment) {
			hit(decompressorPipe)
		}
		if s.seen&testDataPipe == 0 && (bytes.Contains(segment, []byte("test")) || bytes.Contains(segment, []byte("fixtures")) || bytes.Contains(segment, []byte("corpus"))) && testData.Match(segment) {
			hit(testDataPipe)
		}
	}
	if !script {
		return
	}
	if (has("grep") || has("GREP")) && s.seen&grepRecursiveText == 0 {
		for _, m := range grepCommand.FindAllSubmatch(text, 4) {
			recursive, astext := false, false
			for f := range strings.FieldsSeq(string(m[1])) {
				switch {
				case f == "--recursive" || f == "--dereference-recursive":
					recursive = true
				case f == "--text":
					astext = true
				case !strings.HasPrefix(f, "--"):
					recursive = recursive || strings.ContainsAny(f, "rR")
					astext = astext || strings.Contains(f, "a")
				}
			}
			if recursive && astext {
				hit(grepRecursiveText)
			}
		}
	}
	if piped && (has("head") || has("tail")) && headTail.Match(text) {
		hit(headTailBytes)
	}
	if has("tr ") && s.seen&trPermutation == 0 {
		for _, m := range trCommand.FindAllSubmatch(text, 4) {
			if permutes(string(m[1]), string(m[2])) {
				hit(trPermutation)
			}
		}
	}
	if (has("base64") || has("xxd") || has("openssl") || has("uudecode")) && decoders.Match(text) {
		hit(decoder)
	}
	if has("sed") && has(`r\n`) && sedNewline.Match(text) {
		hit(sedNewlineFile)
	}
}

func containsAny(text []byte, literals [][]byte) bool {
	for _, l := range literals {
		if bytes.Contains(text, l) {
			return true
		}
	}
	return false
}

// pipesToShell judges what follows a single bar.
func pipesToShell(after []byte) bool {
	return len(after) >= 2 && bytes.IndexByte([]byte(`bdaszk$/"`), after[0]) >= 0 && shellWord.Match(after)
}

// permutes reports whether tr with these sets only reorders bytes, or spells them in octal ranges: neither has a use in an honest script.
func permutes(from, to string) bool {
	trim := func(s string) string { return strings.Trim(strings.TrimPrefix(s, `\`), `"'`) }
	from, to = strings.TrimSuffix(trim(from), `\`), strings.TrimSuffix(trim(to), `\`)
	if len(octalEscape.FindAllString(from, -1)) >= 4 {
		return true
	}
	a, b := []byte(from), []byte(to)
	if len(a) < 4 || len(a) != len(b) || from == to {
		return false
	}
	slices.Sort(a)
	slices.Sort(b)
	return bytes.Equal(a, b)
}

// verdict of a script: how many different indicators, and which.
func (s *buildState) verdict() (severity Severity, line int64, detail string) {
	n := bits.OnesCount(uint(s.seen))
	if n == 0 {
		return "", 0, ""
	}
	var names []string
	for i, name := range indicatorNames {
		if s.seen&(1<<i) != 0 {
			names = append(names, name)
			if line == 0 || s.lines[i] < line {
				line = s.lines[i]
			}
		}
	}
	switch n {
	case 1:
		severity = Info
	case 2:
		severity = High
	default:
		severity = Block
	}
	return severity, line, strings.Join(names, "; ")
}
