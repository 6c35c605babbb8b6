//go:build peer

package peer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sallyport/guix/scheme"
)

// written is the corpus of TestScheme: texts that the package reads.
var written = []string{
	`a (b . c) (a . (b c)) 'x (quote . (x)) '(1 -2 0) #t #f #true #false #:key + - ... () 'a`,
	`"a\"b\\c\n\r\t\a\b\f\v" "Grüße 日本" "tab	and
new line" ""`,
	"(a #| block #| nested |# |# b) ; line\n(c #;(not this) d #; ; nor\n this) (a . #;x b)",
	`(manifest (version 4) (packages (("a@1" "2:3" "out" "/gnu/store/x" (properties ((tests . "x")))))))`,
	`%default-channels cons* specifications->manifest a.b <x> $y !z &k *m* /n :o =p ?q ^r _s ~t x+y x-y x@y`,
	`"""" "a""b" (a)(b)"c"d`,
	`9223372036854775807 -9223372036854775808`,
}

// readAgain writes what Guile's reader makes of each datum of each file, in its own words.
const readAgain = `
(use-modules (ice-9 match))
(setvbuf (current-output-port) 'block)
(for-each (lambda (file)
            (call-with-input-file file
              (lambda (port)
                (let loop ()
                  (match (read port)
                    ((? eof-object?) #t)
                    (datum (write datum) (newline) (loop)))))
              #:encoding "UTF-8")
            (display ";;\n"))
          (cdr (command-line)))`

// profile prints what Guix writes as the manifest of a profile.
const profile = `
(use-modules (guix) (guix profiles) (guix gexp) (guix search-paths))
(define below
  (manifest-entry (name "b") (version "2") (output "lib") (item "/gnu/store/m1ifsjhqxcvzb115va975vn4vc5v4f1r-b")
                  (search-paths (list $PATH $SSL_CERT_FILE))))
(define above
  (manifest-entry (name "a") (version "1.0") (item "/gnu/store/71srfn47sm9135lkrw596p9k7f3s5kyz-a") (dependencies (list below))
                  (properties '((source (repository (version 0) (url "https://g") (branch "b") (commit "9edb3f66fd807b096b48283debdcddccfea34bad")
                                                    (introduction (channel-introduction (version 0) (commit "9edb3f66fd807b096b48283debdcddccfea34bad")
                                                                   (signer "BBB0 2DDF 2CEA F6A8 0D1D  E643 A2A0 6DF2 A33A 54FA")))))
                                (tests . #f)))))
(with-store store
  (write (run-with-store store
           ((@@ (guix gexp) gexp->sexp) ((@@ (guix profiles) manifest->gexp) (manifest (list above below))) "x86_64-linux" #f))))`

// TestScheme has Guile read what we read and print, and Guix print channels as we do.
func TestScheme(t *testing.T) {
	p := start(t)
	f := p.folder(t)
	var want [][]scheme.Value
	var files []string
	seed := uint64(rand.Int64())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range 200 {
		text := ""
		if i < len(written) {
			text = written[i]
		} else {
			var b strings.Builder
			for range random.IntN(5) {
				b.WriteString(datum(random, 0).String() + " ")
			}
			text = b.String()
		}
		all, err := scheme.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		for _, twice := range []string{text, lines(all)} {
			want = append(want, all)
			files = append(files, f.write(t, fmt.Sprintf("%03d", len(files)), []byte(twice), 0o644))
		}
	}
	read := f.write(t, "read.scm", []byte(readAgain), 0o644)
	theirs := bytes.Split(p.run(t, append([]string{"guix", "repl", "--", read}, files...)...), []byte(";;\n"))
	if len(theirs) != len(files)+1 {
		t.Fatalf("%d files, Guile has read %d", len(files), len(theirs)-1)
	}
	for i, all := range want {
		got, err := scheme.Parse(theirs[i])
		if err != nil || !slices.EqualFunc(got, all, scheme.Value.Equal) {
			t.Errorf("we have read %q, Guile %q (%v)", lines(all), theirs[i], err)
		}
	}

	written := p.run(t, "guix", "repl", "--", f.write(t, "profile.scm", []byte(profile), 0o644))
	if entries, err := scheme.ParseProfile(written); err != nil || len(entries) != 2 || entries[0].Name != "a" || len(entries[0].Properties) != 2 ||
		len(entries[0].Provenance) != 1 || entries[0].Provenance[0].Introduction == nil || len(entries[0].Propagated) != 1 ||
		len(entries[1].SearchPaths) != 2 || entries[1].SearchPaths[0].Variable != "PATH" || entries[1].SearchPaths[1].Separator != "" || entries[1].Output != "lib" {
		t.Errorf("of %s we read %+v (%v)", written, entries, err)
	}

	// Channels: Guix evaluates the file, prints it as guix describe does, and has the defaults that we have.
	own := scheme.Channel{Name: "own", URL: "https://git.example/\"quoted\".git", Branch: "main"}
	pinned := scheme.DefaultChannel()
	pinned.Commit = "4c4222f32a2906b7bcab74fab70ff2c2f152e8eb"
	full := scheme.Channel{Name: "full", URL: "file:///srv/full", Branch: "master", Commit: pinned.Commit, Introduction: pinned.Introduction}
	show := f.write(t, "show.scm", []byte(`
(use-modules (guix channels) (ice-9 pretty-print))
(pretty-print (list 'list (channel->code (car %default-channels))))
(display ";;\n")
(for-each (lambda (file)
            (let ((channels (load file)))
              (pretty-print `+"`"+`(list ,@(map channel->code channels))))
            (display ";;\n"))
          (cdr (command-line)))`), 0o644)
	lists := [][]scheme.Channel{{pinned}, {full, pinned}, {own}, {own, full}}
	args := []string{"guix", "repl", "--", show}
	for i, list := range lists {
		args = append(args, f.write(t, fmt.Sprintf("channels-%d.scm", i), scheme.PrintChannels(list), 0o644))
	}
	printed := bytes.Split(p.run(t, args...), []byte(";;\n"))
	if len(printed) != len(lists)+2 {
		t.Fatalf("Guix printed %q", printed)
	}
	if got, err := scheme.Channels(printed[0]); err != nil || len(got) != 1 || !bytes.Equal(scheme.PrintChannels(got), scheme.PrintChannels([]scheme.Channel{scheme.DefaultChannel()})) {
		t.Errorf("Guix's default channel is %s (%v), ours %s", printed[0], err, scheme.PrintChannels([]scheme.Channel{scheme.DefaultChannel()}))
	}
	for i, list := range lists {
		if ours := scheme.PrintChannels(list); !bytes.Equal(ours, printed[i+1]) {
			t.Errorf("Guix prints\n%s\nwe print\n%s", printed[i+1], ours)
		}
	}
}

func lines(all []scheme.Value) string {
	var b strings.Builder
	for _, v := range all {
		b.WriteString(v.String() + "\n")
	}
	return b.String()
}

// datum makes a random value, as a reader would return it.
func datum(r *rand.Rand, depth int) scheme.Value {
	symbols := []string{"a", "b-c", "+", "-", "...", "x1", "%d", "quote", "a.b", "<>", "!", ">x"}
	characters := []string{"a", " ", "\n", "\"", "\\", "\t", "\r", "é", "日", "\a", "\b", "\f", "\v", ";", "#", "|", "("} // what Guile writes without \x
	switch k := r.IntN(8); {
	case k == 0:
		return scheme.Value{Kind: scheme.Integer, Int: r.Int64() >> r.IntN(64) * int64(1-2*r.IntN(2))}
	case k == 1:
		return scheme.Value{Kind: scheme.Boolean, Bool: r.IntN(2) == 0}
	case k == 2:
		return scheme.Value{Kind: scheme.Keyword, Text: "key"}
	case k == 3:
		s := ""
		for range r.IntN(8) {
			s += characters[r.IntN(len(characters))]
		}
		return scheme.Value{Kind: scheme.String, Text: s}
	case k < 6 || depth > 6:
		return scheme.Value{Kind: scheme.Symbol, Text: symbols[r.IntN(len(symbols))]}
	}
	v := scheme.Value{Kind: scheme.List}
	for range r.IntN(6) {
		v.Items = append(v.Items, datum(r, depth+1))
	}
	if tail := datum(r, 7); len(v.Items) > 0 && r.IntN(4) == 0 && tail.Kind != scheme.List {
		v.Tail = &tail
	}
	return v
}
