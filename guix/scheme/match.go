package scheme

import "strings"

// one returns the only datum of a file.
func one(text []byte) (Value, error) {
	all, err := Parse(text)
	switch {
	case err != nil:
		return Value{}, err
	case len(all) == 0:
		return Value{}, &Error{1, 1, 0, CodeForm, "the file holds nothing"}
	case len(all) > 1:
		return Value{}, failAt(all[1], CodeForm, "the file goes on after its datum")
	}
	return all[0], nil
}

// proper checks that v is a list without a dot that begins with the symbol head, and returns what follows.
func proper(v Value, head string) ([]Value, error) {
	if v.Head() != head || v.Tail != nil {
		return nil, failAt(v, CodeForm, "(%s ...) belongs here, not %s", head, describe(v))
	}
	return v.Items[1:], nil
}

// document reads a file that is one list, (HEAD (version N) ...), with a version that is wanted, and returns what follows it.
func document(text []byte, head string, want ...int64) (v Value, n int64, rest []Value, err error) {
	if v, err = one(text); err == nil {
		n, rest, err = versioned(v, head, want...)
	}
	return v, n, rest, err
}

// versioned is document for a list within a file.
func versioned(v Value, head string, want ...int64) (n int64, rest []Value, err error) {
	items, err := proper(v, head)
	if err != nil {
		return 0, nil, err
	}
	return version(v, items, want...)
}

// describe names v in an error.
func describe(v Value) string {
	switch {
	case v.Kind == List && v.Head() != "":
		return "(" + short(v.Head()) + " ...)"
	case v.Kind == Symbol:
		return short(v.Text)
	}
	return v.Kind.String()
}

// version takes (version N) from the front of items.
func version(of Value, items []Value, want ...int64) (int64, []Value, error) {
	if len(items) == 0 {
		return 0, nil, failAt(of, CodeVersion, "there is no version")
	}
	v := items[0]
	rest, err := proper(v, "version")
	if err != nil || len(rest) != 1 || rest[0].Kind != Integer {
		return 0, nil, failAt(v, CodeVersion, "(version N) belongs here")
	}
	for _, n := range want {
		if rest[0].Int == n {
			return n, items[1:], nil
		}
	}
	return 0, nil, failAt(rest[0], CodeVersion, "version %d is not known", rest[0].Int)
}

// A record is a list of fields, (NAME VALUE ...).
type record struct {
	of     Value
	fields map[string]Value
}

// fields reads items as fields of the names given, each at most once.
func fields(of Value, items []Value, names ...string) (record, error) {
	r := record{of, make(map[string]Value, len(items))}
	for _, f := range items {
		known := false
		for _, name := range names {
			known = known || f.Head() == name
		}
		if !known || f.Tail != nil {
			return r, failAt(f, CodeField, "no field of %s is %s", describe(of), describe(f))
		}
		if _, twice := r.fields[f.Head()]; twice {
			return r, failAt(f, CodeField, "the field %s is there twice", f.Head())
		}
		r.fields[f.Head()] = f
	}
	return r, nil
}

// value returns the one value of a field; ok tells whether the field is there.
func (r record) value(name string) (v Value, ok bool, err error) {
	f, ok := r.fields[name]
	if !ok {
		return Value{}, false, nil
	}
	if len(f.Items) != 2 {
		return Value{}, false, failAt(f, CodeField, "the field %s has one value, not %d", name, len(f.Items)-1)
	}
	return f.Items[1], true, nil
}

// must is value for a field that has to be there.
func (r record) must(name string) (Value, error) {
	v, ok, err := r.value(name)
	if err == nil && !ok {
		err = failAt(r.of, CodeField, "%s has no field %s", describe(r.of), name)
	}
	return v, err
}

// text returns the string of a field, or otherwise if the field is not there, and "" if it is #f
// and may be.
func (r record) text(name, otherwise string, unknown bool) (string, Value, error) {
	v, ok, err := r.value(name)
	switch {
	case err != nil:
		return "", v, err
	case !ok:
		return otherwise, r.of, nil
	case unknown && v.Kind == Boolean && !v.Bool:
		return "", v, nil
	}
	s, err := line(v)
	return s, v, err
}

// line returns a string that is not empty and stays on its line.
func line(v Value) (string, error) {
	switch {
	case v.Kind != String:
		return "", failAt(v, CodeValue, "a string belongs here, not %s", describe(v))
	case v.Text == "":
		return "", failAt(v, CodeValue, "the string is empty")
	case strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' || 0x7f <= r && r < 0xa0 }):
		return "", failAt(v, CodeValue, "%s has control characters", quoted(v.Text))
	}
	return v.Text, nil
}
