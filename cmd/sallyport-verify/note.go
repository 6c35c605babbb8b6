package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
)

const (
	maxSignatures    = 100
	maxSigLines      = 1 << 20 // bytes of them
	maxKeyName       = 128
	maxSignatureLine = 8192 // bytes of hash and signature
)

// note is a signed note taken apart. It says nothing yet about who signed.
type note struct {
	area, subject string
	text          string
	sigs          []signature
}

type signature struct {
	name, line string
	hash       uint32
	sig        []byte
	key        *key // of the signer, once it is known
}

// parseNote judges the form of a note, not that of its text.
func parseNote(data []byte, area, subject string) (*note, error) {
	split := bytes.LastIndex(data, []byte("\n\n"))
	if split < 0 || len(data)-split-2 > maxSigLines {
		return nil, refuse(area+"-note", subject, "has no empty line, or more than %d bytes behind it", maxSigLines)
	}
	n := &note{area: area, subject: subject, text: string(data[:split+1])}
	var wrong faults
	for line := range strings.Lines(string(data[split+2:])) {
		s, ok := parseSignature(strings.TrimSuffix(line, "\n"))
		if n.sigs = append(n.sigs, s); !ok || !strings.HasSuffix(line, "\n") {
			wrong.add(area+"-note", subject, "malformed signature line %.200q", line)
		}
		if len(n.sigs) > maxSignatures {
			break
		}
	}
	if len(n.sigs) < 1 || len(n.sigs) > maxSignatures {
		wrong.add(area+"-note", subject, "not 1 to %d signatures", maxSignatures)
	}
	return n, wrong.err()
}

func parseSignature(line string) (signature, bool) {
	signed, dash := strings.CutPrefix(line, "— ")
	name, b64, _ := strings.Cut(signed, " ")
	raw, ok := decode64(b64)
	if !dash || !ok || len(raw) < 5 || len(raw) > maxSignatureLine || name == "" || len(name) > maxKeyName || !isMadeOf(printable, name) || strings.Contains(name, "+") {
		return signature{}, false
	}
	return signature{name, line, binary.BigEndian.Uint32(raw), raw[4:], nil}, true
}

// by returns the signatures by these keys, of which beside are those that this program cannot check. Signatures by other keys are
// ignored, whatever is wrong with them; by these, none may be wrong, and none stand twice.
func (n *note) by(keys []*key) (by, beside []signature, wrong faults) {
	text := []byte(n.text)
	seen := map[*key]bool{}
	for _, s := range n.sigs {
		for _, k := range keys {
			if k.name != s.name || k.hash != s.hash {
				continue
			}
			s.key = k
			switch {
			case seen[k]:
				wrong.add(n.area+"-note", n.subject, "two signatures by %s", k.id)
			case !k.verify(text, s.sig):
				wrong.add(n.area+"-signature", n.subject, "the signature by %s does not verify", k.id)
			case k.kind == mldsa87:
				beside = append(beside, s)
			default:
				by = append(by, s)
			}
			seen[k] = true
		}
	}
	return by, beside, wrong
}

// documents reads files 1, 2, 3 ... of a directory, at least so many, up to the first that is refused.
func documents(dir *os.Root, under, area string, least, most int, limit int64, open func(data []byte, subject string) error) error {
	files, err := listDir(dir, under, most, area)
	for n := 1; err == nil && n <= max(least, len(files)); n++ {
		var data []byte
		if data, err = readFile(dir, fmt.Sprintf("%s/%d", under, n), limit+maxSigLines, area); err == nil {
			err = open(data, fmt.Sprintf("%s %d", area, n))
		}
	}
	return err
}
