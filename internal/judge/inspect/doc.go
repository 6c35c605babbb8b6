// Package inspect looks at source trees for what a reviewer should see before anything is built from them: programs among the
// sources, text that shows something else than it says, payloads, and build scripts that unpack things.
//
// It is pure and streams: files come in as readers, findings go out, nothing is opened and nothing is kept but one window of [Window]
// bytes and the findings. It runs in the confined reader. It judges bytes, not builds: a quiet report means that none of these
// rules saw anything, and what no rule opens (archives inside the tree) is named as not opened.
//
// # Severities
//
// info is for the record; review asks a person to look; high asks for an explanation; block stops the item until the finding is waived by those who may.
//
// # Classes
//
// A file is judged by what it is for, as its path tells ([Classify]): build (a script that the build runs), test (tests, examples and their data), docs
// (manuals, translations), code (the rest). A source file in a folder of documents is of class test, since something may compile it.
//
// # Rules
//
//	rule                  code, build   test     docs     what
//	bidi-unterminated     block         review   review   a bidirectional embedding, override or isolate still open at the end of its line
//	bidi-control          high          info     info     such a control at all
//	variation-payload     block         review   review   8 variation selectors in a row, or one of the supplement: bytes hidden in invisible characters
//	tag-characters        high          info     info     U+E0000 to U+E007F
//	hangul-filler         high          info     info     letters that show nothing
//	mixed-cyrillic        high          review   info     a word of Latin and look-alike Cyrillic letters
//	mixed-greek           info          info     info     the same with Greek
//	zero-width            review        info     info     U+200B, U+2060, U+180E, or U+FEFF not at the start
//	joiner                info          info     info     ZWJ, ZWNJ, soft hyphen, direction marks
//	legacy-encoding       info          info     info     text that is not UTF-8
//	executable            high          review   review   ELF, PE, Mach-O, class, wasm, pyc, ar, rpm, deb ...
//	high-entropy          high          review   review   1 KiB or more of over 7.2 bits a byte, and no type that explains it
//	archive-not-opened    review        info     info     an archive or compressed file: its content was not inspected (review for an item that is nothing else)
//	binary                info          info     info     other bytes that are not text
//	base64-run            info          info     info     more than 4,096 characters of it; high in a build script
//	build-script          by count      the same          indicators below: one is info, two high, three block
//	remote-shell          review        review   info     fetched text that goes to a shell; /dev/tcp
//	private-key           info          info     info
//	name-control          block         block    block    control bytes or invalid UTF-8 in a name
//	name-unicode          high          high     high     invisible or direction-changing characters in a name
//	name-backslash        high          high     high
//	name-case             high          high     high     two names of one folder that differ in letter case only
//	symlink-outside       review        review   review   a link that leaves the tree, unless into the store
//
// One build script indicator alone is common in honest software; two different ones in one script are rare, and three were never seen:
// a pipe into a shell; a pipe through eval of a variable; a pipe into a variable command with a decode flag; a recursive grep that takes binary files for text; a decompressor
// that feeds a pipe; head or tail by bytes in a pipe; a tr that permutes bytes; base64, xxd, openssl or uudecode decoding; sed reading a file called "\n"; test data as the input of a pipe.
//
// Findings of one rule, severity and folder are one finding with a count and the first three places.
package inspect
