package store

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"sallyport/internal/trust"
)

// Kinds of zones.
const (
	Outside = "outside"
	Staging = "staging"
	Inside  = "inside"
)

// MaxConfig bounds zone.toml.
const MaxConfig = 1 << 20

// Config is zone.toml. Every key is described in [ConfigKeys], and nowhere else.
type Config struct {
	Kind    string `toml:"kind"`
	Enclave string `toml:"enclave"`
	Space   Space  `toml:"space"`
	Reader  Reader `toml:"reader"`
	Depot   Depot  `toml:"depot"`

	whole bool // a field that is zero was set to that, not left alone
}

// Space is the section [space].
type Space struct {
	Reserve int64 `toml:"reserve"`
}

// Reader is the section [reader].
type Reader struct {
	Path string `toml:"path"`
}

// Depot is the section [depot].
type Depot struct {
	Listen string `toml:"listen"`
	Host   string `toml:"host"`
}

// A ConfigKey describes one key of zone.toml.
type ConfigKey struct {
	Name    string // as SECTION.KEY
	Type    string // string, integer, duration, strings
	Default string // as written in the file; empty: none
	Kinds   []string
	Doc     string
	check   func(value string) error
}

var everywhere = []string{Outside, Staging, Inside}

// ConfigKeys is the one table from which zone.toml is read, checked, printed and explained.
func ConfigKeys() []ConfigKey {
	return []ConfigKey{
		{"kind", "string", "", everywhere, "What the zone is: outside, staging or inside. Fixed when the zone is made: the ledger's origin contains it.", oneOf(everywhere...)},
		{"enclave", "string", "", everywhere, "The enclave that the zone serves. Fixed when the zone is made.", trust.CheckWord},
		{"space.reserve", "integer", "1073741824", everywhere, "Bytes that must stay free on the zone's file system. A stage that would eat into them is refused before it starts.", atLeast(0)},
		{"reader.path", "string", "", everywhere, "The program sallyport-reader, in which hostile bytes are parsed. Empty: the one beside the running program.", nil},
		{"depot.listen", "string", "127.0.0.1:8190", []string{Inside}, "Address on which the depot serves the enclave.", nil},
		{"depot.host", "string", "sallyport", []string{Inside}, "Host name that stands in the signatures of narinfos.", trust.CheckWord},
	}
}

func oneOf(words ...string) func(string) error {
	return func(v string) error {
		for _, w := range words {
			if v == w {
				return nil
			}
		}
		return fmt.Errorf("%q, want one of %s", v, strings.Join(words, ", "))
	}
}

func atLeast(low int64) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return err
		}
		if n < low {
			return fmt.Errorf("%d, want %d or more", n, low)
		}
		return nil
	}
}

// Origin is the name of the zone's ledger and of its checkpoint key.
func (c *Config) Origin() string { return "sallyport/" + c.Enclave + "/" + c.Kind }

// field finds the struct field of a key.
func (c *Config) field(name string) (reflect.Value, bool) {
	v := reflect.ValueOf(c).Elem()
	for part := range strings.SplitSeq(name, ".") {
		found := false
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("toml") == part {
				v, found = v.Field(i), true
				break
			}
		}
		if !found {
			return reflect.Value{}, false
		}
	}
	return v, true
}

// text is a field's value as it stands in the table's Default.
func text(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Slice:
		return strings.Join(v.Interface().([]string), " ")
	case reflect.String:
		return v.String()
	default:
		return strconv.FormatInt(v.Int(), 10)
	}
}

// ParseConfig reads a zone.toml. All that is wrong with it is reported at once,
// as [trust.Refusals] with the line in the subject.
func ParseConfig(data []byte) (Config, error) {
	if len(data) > MaxConfig {
		return Config{}, trust.Refusals{trust.Refuse("config-size", "zone.toml", "%d bytes, more than %d", len(data), MaxConfig)}
	}
	var c Config
	var bad trust.Refusals
	dec := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields()
	var strict *toml.StrictMissingError
	var syntax *toml.DecodeError
	switch err := dec.Decode(&c); {
	case err == nil:
	case errors.As(err, &strict):
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, _ := e.Position()
			bad.Add(trust.Refuse("config-unknown", fmt.Sprintf("zone.toml:%d", row), "there is no key %q", strings.Join(e.Key(), ".")).
				WithHint("`sallyport config explain` lists all keys"))
		}
	case errors.As(err, &syntax):
		row, col := syntax.Position()
		return Config{}, trust.Refusals{trust.Refuse("config-syntax", fmt.Sprintf("zone.toml:%d:%d", row, col), "%s", strings.TrimPrefix(syntax.Error(), "toml: "))}
	default:
		return Config{}, trust.Refusals{trust.Refuse("config-syntax", "zone.toml", "%v", err)}
	}
	// What stands in the file, to tell a key that was left out from one that was set to nothing.
	var present map[string]any
	if err := toml.Unmarshal(data, &present); err != nil {
		return Config{}, trust.Refusals{trust.Refuse("config-syntax", "zone.toml", "%v", err)}
	}
	set := func(name string) bool {
		section, key, ok := strings.Cut(name, ".")
		if !ok {
			_, ok = present[name]
			return ok
		}
		m, _ := present[section].(map[string]any)
		_, ok = m[key]
		return ok
	}
	bad.Merge(c.fill(set))
	if err := bad.Err(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// fill gives every key that is not set its default, and checks all.
func (c *Config) fill(set func(name string) bool) error {
	var bad trust.Refusals
	for _, k := range ConfigKeys() {
		v, _ := c.field(k.Name)
		if !set(k.Name) && k.Default != "" {
			if v.Kind() == reflect.String {
				v.SetString(k.Default)
			} else {
				n, _ := strconv.ParseInt(k.Default, 10, 64)
				v.SetInt(n)
			}
		}
		if set(k.Name) && oneOf(k.Kinds...)(c.Kind) != nil && oneOf(everywhere...)(c.Kind) == nil {
			bad.Add(trust.Refuse("config-kind", "zone.toml: "+k.Name, "a zone of kind %s has no such key", c.Kind))
			continue
		}
		if k.check != nil {
			if err := k.check(text(v)); err != nil {
				bad.Add(trust.Refuse("config-value", "zone.toml: "+k.Name, "%v", err))
			}
		}
	}
	c.whole = true
	return bad.Err()
}

// NewConfig is a configuration with every default.
func NewConfig(kind, enclave string) (Config, error) {
	c := Config{Kind: kind, Enclave: enclave}
	if err := c.fill(func(name string) bool { return name == "kind" || name == "enclave" }); err != nil {
		return Config{}, err
	}
	return c, nil
}

// Text prints a zone.toml: each key that is not at its default. It parses back
// to the same configuration. In one that neither [ParseConfig] nor [NewConfig]
// has made, a field that is zero was left alone and has its default.
func (c *Config) Text() []byte {
	if !c.whole {
		d := *c
		d.fill(func(name string) bool {
			v, _ := d.field(name)
			return !v.IsZero()
		}) // whoever parses it again is told what is wrong with it
		c = &d
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# A zone of Sallyport. `sallyport config explain` describes every key.\n")
	section := ""
	for _, k := range ConfigKeys() {
		v, _ := c.field(k.Name)
		t := text(v)
		if t == k.Default || t == "" {
			continue
		}
		key := k.Name
		if s, rest, ok := strings.Cut(k.Name, "."); ok {
			if s != section {
				fmt.Fprintf(&b, "\n[%s]\n", s)
				section = s
			}
			key = rest
		}
		fmt.Fprintf(&b, "%s = %s\n", key, value(v))
	}
	return b.Bytes()
}

// value prints a TOML value.
func value(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return quote(v.String())
	case reflect.Slice:
		var parts []string
		for _, s := range v.Interface().([]string) {
			parts = append(parts, quote(s))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	default:
		return strconv.FormatInt(v.Int(), 10)
	}
}

// quote prints a TOML basic string.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, "\\u%04X", r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// ExplainConfig prints the manual of zone.toml.
func ExplainConfig() string {
	var b strings.Builder
	for i, k := range ConfigKeys() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s (%s", k.Name, k.Type)
		if k.Default != "" {
			fmt.Fprintf(&b, ", default %s", k.Default)
		}
		if len(k.Kinds) < len(everywhere) {
			fmt.Fprintf(&b, ", only %s", strings.Join(k.Kinds, " and "))
		}
		fmt.Fprintf(&b, ")\n    %s\n", k.Doc)
	}
	return b.String()
}
