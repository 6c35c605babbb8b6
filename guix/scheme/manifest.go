package scheme

import (
	"slices"
	"strings"

	"sallyport/guix/storepath"
)

// A Specification names a package as commands do: NAME[@VERSION][:OUTPUT].
type Specification struct {
	Name    string
	Version string // or a prefix of one; "" for any
	Output  string // "" for out
}

func (s Specification) String() string {
	text := s.Name
	if s.Version != "" {
		text += "@" + s.Version
	}
	if s.Output != "" {
		text += ":" + s.Output
	}
	return text
}

// specification parses one. The error has no place.
func specification(s string) (Specification, string) {
	const letters = initialLetters + digits
	var spec Specification
	rest, output, hasOutput := strings.Cut(s, ":")
	name, version, hasVersion := strings.Cut(rest, "@")
	switch {
	case name == "" || strings.Trim(name, letters+"+-._") != "" || name[0] == '-':
		return spec, "the name"
	case hasVersion && (version == "" || strings.Trim(version, letters+"+-._~^") != ""):
		return spec, "the version"
	case hasOutput && (output == "" || strings.Trim(output, letters+"+-._") != ""):
		return spec, "the output"
	}
	return Specification{name, version, output}, ""
}

// ParseSpecification reads NAME[@VERSION][:OUTPUT]. Its error is of line 1.
func ParseSpecification(s string) (Specification, error) {
	spec, wrong := specification(s)
	if wrong != "" {
		return spec, &Error{1, 1, 0, CodeValue, quoted(s) + " is no package specification: " + wrong}
	}
	return spec, nil
}

// Specifications reads a manifest that only names packages, in its order. A
// package may be named twice.
func Specifications(text []byte) ([]Specification, error) {
	v, err := program(text)
	if err != nil {
		return nil, err
	}
	var all []Specification
	each := func(v Value) error {
		if v.Kind != String {
			return failAt(v, CodeValue, "a string belongs here, not %s", describe(v))
		}
		spec, wrong := specification(v.Text)
		if wrong != "" {
			return failAt(v, CodeValue, "%s is no package specification: %s", quoted(v.Text), wrong)
		}
		all = append(all, spec)
		return nil
	}
	// '("a" "b")
	quotedList := func(v Value) (bool, error) {
		if v.Head() != quote || len(v.Items) != 2 || v.Items[1].Kind != List || v.Items[1].Tail != nil {
			return false, nil
		}
		for _, item := range v.Items[1].Items {
			if err := each(item); err != nil {
				return true, err
			}
		}
		return true, nil
	}
	var manifest func(Value) error
	manifest = func(v Value) error {
		if v.Head() == "concatenate-manifests" && v.Tail == nil && len(v.Items) == 2 {
			none := func(Value) (bool, error) { return false, nil }
			return elements(v.Items[1], manifest, none)
		}
		items, err := proper(v, "specifications->manifest")
		if err != nil {
			return failAt(v, CodeForm, "%s would have to be evaluated: only (specifications->manifest ...) is read", describe(v))
		}
		if len(items) != 1 {
			return failAt(v, CodeForm, "specifications->manifest has one argument, not %d", len(items))
		}
		return elements(items[0], each, quotedList)
	}
	if err := manifest(v); err != nil {
		return nil, err
	}
	return all, nil
}

// An Entry is a package in a profile.
type Entry struct {
	Name, Version, Output string
	Item                  storepath.Path
	Propagated            []Entry // brought along by this one
	SearchPaths           []SearchPath
	Properties            []Value // (NAME VALUE ...) or (NAME . VALUE)

	// Provenance lists the channels that the entry says it comes from. It is a claim
	// of whoever wrote the manifest.
	Provenance []Channel
}

// A SearchPath says of what in a profile an environment variable is made.
type SearchPath struct {
	Variable  string
	Files     []string // below the profile
	Separator string   // "" if the variable has one value
	Type      string   // of the files: directory, regular, and so on
	Pattern   string   // "" or a regular expression of their names
}

// All yields e and what it propagates, and so on, each entry before those it brings along.
func (e *Entry) All(yield func(*Entry) bool) { e.all(yield) }

func (e *Entry) all(yield func(*Entry) bool) bool {
	if !yield(e) {
		return false
	}
	for i := range e.Propagated {
		if !e.Propagated[i].all(yield) {
			return false
		}
	}
	return true
}

// ParseProfile reads the file manifest of a profile, of version 3 or 4:
//
//	(manifest (version V) (packages (ENTRY ...)))
//	ENTRY = (NAME VERSION OUTPUT ITEM [(propagated-inputs (ENTRY ...))] [(search-paths (PATH ...))]
//	         [(properties ...)])
//	PATH  = (VARIABLE (FILE ...) SEPARATOR-OR-#f TYPE PATTERN-OR-#f)
//	      | (repeated NAME VERSION ITEM)         an entry that came before; version 4
//
// Repeated entries are returned in full, but for what they propagate in turn, which
// stands where the entry came first.
func ParseProfile(text []byte) ([]Entry, error) {
	v, format, items, err := document(text, "manifest", 3, 4)
	if err != nil {
		return nil, err
	}
	r, err := fields(v, items, "packages")
	if err != nil {
		return nil, err
	}
	packages, err := r.must("packages")
	if err != nil {
		return nil, err
	}
	m := profile{repeats: format >= 4, seen: make(map[repeated]*Entry)}
	return m.entries(packages)
}

type repeated struct{ name, version, item string }

type profile struct {
	repeats bool
	seen    map[repeated]*Entry
}

func (m *profile) entries(v Value) ([]Entry, error) {
	if v.Kind != List || v.Tail != nil {
		return nil, failAt(v, CodeForm, "a list of entries belongs here, not %s", describe(v))
	}
	all := make([]Entry, 0, len(v.Items))
	for _, item := range v.Items {
		e, err := m.entry(item)
		if err != nil {
			return nil, err
		}
		all = append(all, *e)
	}
	return all, nil
}

func (m *profile) entry(v Value) (*Entry, error) {
	if v.Kind != List || v.Tail != nil || len(v.Items) < 4 {
		return nil, failAt(v, CodeForm, "an entry belongs here, not %s", describe(v))
	}
	if m.repeats && v.Head() == "repeated" && len(v.Items) == 4 {
		var key repeated
		for i, s := range []*string{&key.name, &key.version, &key.item} {
			if v.Items[i+1].Kind != String {
				return nil, failAt(v.Items[i+1], CodeValue, "a string belongs here, not %s", describe(v.Items[i+1]))
			}
			*s = v.Items[i+1].Text
		}
		e := m.seen[key]
		if e == nil {
			return nil, failAt(v, CodeForm, "no entry %s %s before this repetition of it", quoted(key.name), quoted(key.version))
		}
		short := *e
		short.Propagated = nil
		return &short, nil
	}
	var e Entry
	var item string
	for i, s := range []*string{&e.Name, &e.Version, &e.Output, &item} {
		var err error
		if *s, err = line(v.Items[i]); err != nil {
			return nil, err
		}
	}
	path, err := storepath.Parse(item)
	if err != nil {
		return nil, failAt(v.Items[3], CodeValue, "%s: %v", quoted(item), err)
	}
	e.Item = path
	r, err := fields(v, v.Items[4:], "propagated-inputs", "search-paths", "properties")
	if err != nil {
		return nil, err
	}
	if list, ok, err := r.value("propagated-inputs"); err != nil {
		return nil, err
	} else if ok {
		if e.Propagated, err = m.entries(list); err != nil {
			return nil, err
		}
	}
	if list, ok, err := r.value("search-paths"); err != nil {
		return nil, err
	} else if ok {
		if list.Kind != List || list.Tail != nil {
			return nil, failAt(list, CodeForm, "a list of search paths belongs here, not %s", describe(list))
		}
		for _, item := range list.Items {
			s, err := searchPath(item)
			if err != nil {
				return nil, err
			}
			e.SearchPaths = append(e.SearchPaths, s)
		}
	}
	if f, ok := r.fields["properties"]; ok {
		if err := e.properties(f.Items[1:]); err != nil {
			return nil, err
		}
	}
	m.seen[repeated{e.Name, e.Version, item}] = &e
	return &e, nil
}

// searchPath reads (VARIABLE (FILE ...) SEPARATOR TYPE PATTERN).
func searchPath(v Value) (s SearchPath, err error) {
	if v.Kind != List || v.Tail != nil || len(v.Items) != 5 {
		return s, failAt(v, CodeForm, "a search path belongs here, not %s", describe(v))
	}
	if s.Variable, err = line(v.Items[0]); err != nil {
		return s, err
	}
	if files := v.Items[1]; files.Kind != List || files.Tail != nil {
		return s, failAt(files, CodeForm, "a list of files belongs here, not %s", describe(files))
	}
	for _, item := range v.Items[1].Items {
		if item.Kind != String { // the empty one is the profile itself
			return s, failAt(item, CodeValue, "a string belongs here, not %s", describe(item))
		}
		s.Files = append(s.Files, item.Text)
	}
	for _, field := range []struct {
		at   int
		text *string
	}{{2, &s.Separator}, {4, &s.Pattern}} {
		switch item := v.Items[field.at]; {
		case item.Kind == String:
			*field.text = item.Text
		case item.Kind != Boolean || item.Bool:
			return s, failAt(item, CodeValue, "a string or #f belongs here, not %s", describe(item))
		}
	}
	if v.Items[3].Kind != Symbol {
		return s, failAt(v.Items[3], CodeValue, "a symbol belongs here, not %s", describe(v.Items[3]))
	}
	s.Type = v.Items[3].Text
	return s, nil
}

// properties reads (properties (NAME ...) ...) and (properties ((NAME ...) ...)): both occur.
func (e *Entry) properties(items []Value) error {
	if len(items) == 1 && items[0].Kind == List && items[0].Head() == "" {
		items = items[0].Items
	}
	e.Properties = slices.Clip(items)
	for _, p := range items {
		switch p.Head() {
		case "":
			return failAt(p, CodeForm, "a property belongs here, not %s", describe(p))
		case "source", "provenance":
			sources := p.Items[1:]
			if len(sources) == 1 && sources[0].Kind == List && sources[0].Head() == "" {
				sources = sources[0].Items
			}
			for _, source := range sources {
				c, err := origin(source)
				if err != nil {
					return err
				}
				e.Provenance = append(e.Provenance, c)
			}
		}
	}
	return nil
}

// origin reads (repository (version 0) ...) or (channel ...), of data or of code.
func origin(v Value) (Channel, error) {
	if v.Head() == "channel" {
		items, err := proper(v, "channel")
		if err != nil {
			return Channel{}, err
		}
		code := slices.ContainsFunc(items, func(f Value) bool {
			return f.Head() == "name" && len(f.Items) == 2 && f.Items[1].Kind == List
		})
		return channelFields(v, items, code)
	}
	_, items, err := versioned(v, "repository", 0)
	if err != nil {
		return Channel{}, err
	}
	var c Channel
	r, err := fields(v, items, "name", "url", "branch", "commit", "introduction")
	if err != nil {
		return c, err
	}
	if name, ok, err := r.value("name"); err != nil {
		return c, err
	} else if ok {
		if c.Name, err = channelName(name, false); err != nil {
			return c, err
		}
	}
	return c, c.origin(r, false)
}

// Provenance says what a system was made from. It is a claim of whoever made the system.
type Provenance struct {
	Channels      []Channel
	Configuration storepath.Path // its configuration file, zero if there is none
}

// ParseProvenance reads the file provenance of a system:
//
//	(provenance (version 0) (channels (channel (name N) (url "U") ...) ...)
//	            (configuration-file "/gnu/store/..." or #f))
func ParseProvenance(text []byte) (*Provenance, error) {
	v, _, items, err := document(text, "provenance", 0)
	if err != nil {
		return nil, err
	}
	r, err := fields(v, items, "channels", "configuration-file")
	if err != nil {
		return nil, err
	}
	channels, ok := r.fields["channels"]
	if !ok {
		return nil, failAt(v, CodeField, "provenance has no field channels")
	}
	p := new(Provenance)
	for _, item := range channels.Items[1:] {
		c, err := channelData(item)
		if err != nil {
			return nil, err
		}
		p.Channels = append(p.Channels, c)
	}
	file, at, err := r.text("configuration-file", "", true)
	if err != nil || file == "" {
		return p, err
	}
	if p.Configuration, err = storepath.Parse(file); err != nil {
		return nil, failAt(at, CodeValue, "%s: %v", quoted(file), err)
	}
	return p, nil
}
