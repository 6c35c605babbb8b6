// Package scheme reads the Scheme files of Guix that are data: channels.scm,
// .guix-authorizations, .guix-channel, manifests that only name packages, the
// manifest of a profile and the provenance of a system.
//
// It never evaluates. A file that says something by a program, and not by
// what stands in it, is refused: with the line and the column of the first
// form that is not of the language below, so that a person can write the file
// in that language or decide otherwise.
//
// # Grammar
//
//	FILE    = { DATUM }
//	DATUM   = LIST | STRING | SYMBOL | KEYWORD | INTEGER | BOOLEAN | "'" DATUM
//	LIST    = "(" { DATUM } [ DATUM "." DATUM ] ")"
//	STRING  = '"' { character | ESCAPE } '"'
//	ESCAPE  = "\" ( '"' | "\" | "n" | "r" | "t" | "a" | "b" | "f" | "v" )
//	SYMBOL  = ( letter | one of !$%&*/:<=>?^_~ ) { letter | digit | one of !$%&*/:<=>?^_~+-.@ }
//	        | "+" | "-" | "..."
//	KEYWORD = "#:" SYMBOL
//	INTEGER = "0" | [ "-" ] digit other than 0 { digit }     of 64 bits
//	BOOLEAN = "#t" | "#true" | "#f" | "#false"
//
// Between data there may be white space and comments: ";" to the end of the
// line, "#|" to "|#", which nest, and "#;" before a datum. Letters and digits
// are those of ASCII; strings and comments are UTF-8. A symbol, keyword,
// number or boolean ends at white space, a parenthesis, '"', ";" or the end.
//
// All else that a Scheme reader may know is refused, never skipped, each with
// a code of an [Error]: quasiquotes, characters, vectors, byte vectors, "#!"
// and gexps, brackets, |symbols|, numbers of other kinds or in other spellings, zero
// bytes. So are the escapes that two modes of Guile read differently: "\x41;" is
// "A;" by default and "A" in the mode of R6RS, and the white space after "\"
// at the end of a line stays or goes.
//
// [Parse] returns values with their places in the file. [Value.String] prints one
// in a single way: what it prints parses to an equal value. Comments and layout are
// not kept.
//
// # Vocabulary
//
// A datum is a piece of text that a Scheme reader takes as one; a [Value] is
// what it stands for. A channel is a repository of package definitions; its
// introduction says from which commit on, and by whose signature, it can be
// authenticated, its authorizations who may sign, its metadata where things
// lie in it. A specification names a package as a person does. A profile is a
// tree of installed packages with a manifest of them; the provenance of a
// system says from which channels it was made.
//
// # The files
//
//	channels.scm           [Channels] reads, [PrintChannels] writes as guix describe does
//	.guix-authorizations   [ParseAuthorizations]
//	.guix-channel          [ParseMetadata]
//	manifest.scm           [Specifications]
//	PROFILE/manifest       [ParseProfile]
//	SYSTEM/provenance      [ParseProvenance]
//
// The language of channels.scm is
//
//	FILE    = { "(use-modules" ... ")" } EXPR
//	EXPR    = "(list" { CHANNEL } ")" | "(cons" CHANNEL EXPR ")" | "(cons*" { CHANNEL } EXPR ")"
//	        | "(append" { EXPR } ")" | "'()" | "%default-channels"
//	CHANNEL = "(channel" { FIELD } ")" | "%default-guix-channel"
//	FIELD   = "(name '" SYMBOL ")" | "(url" STRING ")" | "(branch" STRING ")" | "(commit" STRING ")"
//	        | "(introduction (make-channel-introduction" COMMIT "(openpgp-fingerprint" FINGERPRINT ")))"
//
// with the fields in any order, each at most once, name and url always; #f in
// place of a url, branch or commit says that it is not known. Two channels of one
// name are refused. The language of manifests has EXPR over strings instead of channels:
//
//	FILE     = { "(use-modules" ... ")" } MANIFEST
//	MANIFEST = "(specifications->manifest" STRINGS ")" | "(concatenate-manifests (list" { MANIFEST } "))"
//	STRINGS  = EXPR over STRING | "'(" { STRING } ")"
//	STRING   = NAME [ "@" VERSION ] [ ":" OUTPUT ]
//
// The other files are s-expressions whose shape is in the comments of their
// types. Their fields may stand in any order; a field that is not known is refused, except
// where Guix itself promises to ignore it (after the keys of .guix-authorizations).
//
// # A worked example
//
//	channels, err := scheme.Channels(text)
//	var fault *scheme.Error
//	if errors.As(err, &fault) {
//		fmt.Printf("channels.scm:%d:%d: %s\n", fault.Line, fault.Column, fault.Detail)
//	}
//	for _, c := range channels {
//		fmt.Println(c.Name, c.URL, c.Pinned())
//	}
//
// # Where Guix is looser
//
// Guix evaluates channels.scm and manifests, so there it takes any program. Of
// the other files it reads the first datum and ignores what follows, and
// ignores fields that it does not know. All commits of introductions have 40
// hexadecimal digits here, all fingerprints 40 (OpenPGP version 4), names
// of channels no character that would mean something to a file system, and
// the directory of a channel stays in its repository.
//
// # Bounds
//
// [MaxSize] bytes a file, [MaxDepth] nested lists, [MaxValues] values. Memory
// is within a small multiple of the size of the file.
//
// # Errors
//
// Every refusal is an [*Error] with code, line, column and offset. The first
// one ends the reading: what follows a form that is not understood means nothing.
//
// # Source
//
// GNU Guix 1.5.0: guix/channels.scm, guix/git-authenticate.scm, guix/profiles.scm,
// guix/describe.scm, gnu/system.scm; the chapters "Channels" and "Invoking guix
// describe" of its manual; module/ice-9/read.scm of Guile 3.0.
package scheme
