package inspect

import "strings"

// A Class says what a file is for.
type Class byte

const (
	Code Class = iota
	Build
	Test
	Docs
)

func (c Class) String() string {
	return [...]string{"code", "build", "test", "docs"}[c]
}

// folderClass gives the class of what stands in a folder of that name, in lower case.
func folderClass(name string) (Class, bool) {
	switch name {
	case "test", "tests", "t", "testing", "testdata", "testsuite", "testsuites", "testcase", "testcases", "test-data", "test_data", "fixture", "fixtures",
		"corpus", "corpora", "example", "examples", "__tests__", "spec", "specs", "fuzz", "testutil":
		return Test, true
	case "doc", "docs", "documentation", "man", "manual", "manuals", "po", "locale", "locales", "translations", "i18n", "l10n", "lang", "javadoc", "info", "texinfo", "news":
		return Docs, true
	}
	return Code, false
}

// sourceExtension reports whether a file of that extension is something a build compiles or runs.
func sourceExtension(ext string) bool {
	switch ext {
	case "c", "h", "cc", "cpp", "cxx", "c++", "hh", "hpp", "hxx", "inc", "inl", "m", "mm", "go", "rs", "py", "pyx", "pl", "pm", "rb", "lua", "tcl", "sh", "bash", "zsh", "ksh", "csh",
		"fish", "awk", "sed", "js", "mjs", "cjs", "ts", "tsx", "jsx", "java", "kt", "scala", "cs", "fs", "ml", "mli", "hs", "el", "lisp", "scm", "sld", "ss", "clj", "erl", "ex", "exs",
		"s", "asm", "y", "l", "f", "f90", "d", "zig", "nim", "v", "vala", "swift", "r", "jl", "php", "ps1", "bat", "cmd", "m4", "ac", "am", "mk", "cmake", "in", "def", "proto", "sql":
		return true
	}
	return false
}

func docExtension(ext string) bool {
	switch ext {
	case "md", "txt", "rst", "texi", "texinfo", "html", "htm", "po", "pot", "gmo", "info", "adoc", "asciidoc", "org", "tex", "1", "2", "3", "4", "5", "6", "7", "8", "pod", "ronn", "xhtml", "rtf", "ftl", "xlf", "ts.in":
		return true
	}
	return false
}

// buildFile reports whether a file of that base name is run, or made into something that is run, by a build.
func buildFile(base, ext string) bool {
	switch base {
	case "configure", "configure.ac", "configure.in", "CMakeLists.txt", "meson.build", "meson_options.txt", "setup.py", "build.rs", "build.zig", "autogen", "autogen.sh", "bootstrap", "bootstrap.sh",
		"bootstrap.conf", "buildconf", "build.sh", "ltmain.sh", "Makefile", "makefile", "GNUmakefile", "Kbuild", "SConstruct", "SConscript", "wscript", "Rakefile", "Configure", "Build.PL", "Makefile.PL",
		"install-sh", "depcomp", "missing", "compile", "config.guess", "config.sub", "config.rpath", "libtool", "package.json":
		return true
	}
	switch ext {
	case "m4", "mk", "cmake", "gyp", "gypi", "mak":
		return true
	}
	return strings.HasPrefix(base, "Makefile.") || strings.HasPrefix(base, "makefile.") || strings.HasPrefix(base, "Makefile-")
}

// split gives the base name of a path and its extension in lower case, "" for none. ".in" is looked through: configure.sh.in is a "sh".
func split(path string) (base, ext string) {
	base = path[strings.LastIndexByte(path, '/')+1:]
	if i := strings.LastIndexByte(base, '.'); i > 0 {
		ext = strings.ToLower(base[i+1:])
		if ext == "in" {
			if j := strings.LastIndexByte(base[:i], '.'); j > 0 {
				ext = strings.ToLower(base[j+1 : i])
			}
		}
	}
	return base, ext
}

// Classify judges a path, relative to the top of the tree.
func Classify(path string) Class {
	base, ext := split(path)
	if buildFile(base, ext) {
		return Build
	}
	class := Code
	for dir := path[:len(path)-len(base)]; dir != ""; {
		name, rest, _ := strings.Cut(dir, "/")
		dir = rest
		if c, ok := folderClass(strings.ToLower(name)); ok {
			if c == Test { // tests of the manual are tests
				return Test
			}
			class = c
		}
	}
	switch {
	case class == Docs && sourceExtension(ext):
		return Test
	case class == Docs:
		return Docs
	case testName(base):
		return Test
	case docExtension(ext), docName(base):
		return Docs
	}
	return Code
}

// testName: names that only tests have.
func testName(base string) bool {
	stem, ext, ok := strings.Cut(base, ".")
	return ok && ext != "" && (strings.HasSuffix(stem, "_test") || strings.HasPrefix(stem, "test_") || strings.HasSuffix(stem, "_unittest"))
}

func docName(base string) bool {
	for _, p := range [...]string{"README", "NEWS", "ChangeLog", "CHANGES", "CHANGELOG", "COPYING", "LICENSE", "AUTHORS", "THANKS", "INSTALL", "HACKING", "TODO", "CONTRIBUTORS", "MAINTAINERS"} {
		if strings.HasPrefix(base, p) {
			_, ext := split(base)
			return !sourceExtension(ext)
		}
	}
	return false
}
