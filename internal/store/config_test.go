package store

import (
	"reflect"
	"strings"
	"testing"

	"sallyport/internal/trust"
)

// Every field of Config has exactly one row of the table, and every row a field.
func TestConfigKeys(t *testing.T) {
	rows := map[string]bool{}
	for _, k := range ConfigKeys() {
		if rows[k.Name] {
			t.Errorf("%s is described twice", k.Name)
		}
		rows[k.Name] = true
		if k.Doc == "" || len(k.Kinds) == 0 {
			t.Errorf("%s is not described", k.Name)
		}
		if !strings.Contains(ExplainConfig(), k.Name+" (") {
			t.Errorf("%s is not explained", k.Name)
		}
	}
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag := f.Tag.Get("toml")
			switch {
			case tag == "-" || !f.IsExported():
			case f.Type.Kind() == reflect.Struct:
				walk(tag+".", f.Type)
			case !rows[prefix+tag]:
				t.Errorf("field %s has no row", prefix+tag)
			default:
				delete(rows, prefix+tag)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	for name := range rows {
		t.Errorf("row %s has no field", name)
	}
}

func TestConfigDefaults(t *testing.T) {
	for _, kind := range everywhere {
		c, err := NewConfig(kind, "citadel")
		if err != nil {
			t.Fatal(err)
		}
		if c.Depot.Listen != "127.0.0.1:8190" || c.Depot.Host != "sallyport" || c.Space.Reserve != 1<<30 {
			t.Errorf("%+v", c)
		}
		back, err := ParseConfig(c.Text())
		if err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("%s: %+v, %v", c.Text(), back, err)
		}
		if c.Origin() != "sallyport/citadel/"+kind {
			t.Error(c.Origin())
		}
	}
	c, _ := NewConfig(Inside, "citadel")
	c.Reader.Path = `/a "strange"\path`
	c.Depot.Listen = "[::1]:80"
	c.Space.Reserve = 0
	back, err := ParseConfig(c.Text())
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("%s\n%+v\n%+v\n%v", c.Text(), c, back, err)
	}
	if _, err := ParseConfig((&Config{Kind: Inside, Enclave: "citadel"}).Text()); err != nil {
		t.Error("a config with nothing else set:", err)
	}
}

func TestConfigRefused(t *testing.T) {
	head := "kind = \"inside\"\nenclave = \"citadel\"\n"
	for _, v := range []struct{ text, want string }{
		{head + "[depot]\nlisten = \"x\"\nlisen = \"y\"\n", "zone.toml:5: config-unknown: there is no key \"depot.lisen\""},
		{head + "colour = 1\n[nothing]\nx = 1\n", "zone.toml:3: config-unknown: there is no key \"colour\"\nzone.toml:4: config-unknown"},
		{head + "[depot\n", "zone.toml:3:"},
		{head + "kind = \"outside\"\n", "config-syntax"},
		{head + "[depot]\nlisten = 5\n", "config-syntax"},
		{head + "[space]\nreserve = -1\n[depot]\nhost = \"A B\"\n", "zone.toml: space.reserve: config-value: -1, want 0 or more\nzone.toml: depot.host: config-value"},
		{"kind = \"outside\"\nenclave = \"citadel\"\n[depot]\nhost = \"x\"\n", "zone.toml: depot.host: config-kind: a zone of kind outside"},
		{"kind = \"sideways\"\nenclave = \"citadel\"\n", "zone.toml: kind: config-value"},
		{"kind = \"inside\"\nenclave = \"The Citadel\"\n", "zone.toml: enclave: config-value"},
		{"kind = \"inside\"\n", "zone.toml: enclave: config-value"},
		{"", "zone.toml: kind: config-value"},
		{strings.Repeat("#", MaxConfig+1), "config-size"},
	} {
		_, err := ParseConfig([]byte(v.text))
		if err == nil {
			t.Errorf("%.60q: accepted", v.text)
			continue
		}
		if _, ok := trust.AsRefusals(err); !ok {
			t.Errorf("%.60q: %v is no refusal", v.text, err)
		}
		for _, want := range strings.Split(v.want, "\n") {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%.60q:\n%v\nwant %q", v.text, err, want)
			}
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("kind = \"inside\"\nenclave = \"citadel\"\n[depot]\nlisten = \"x\"\n"))
	f.Add([]byte("kind = \"outside\"\nenclave = \"citadel\"\n[space]\nreserve = 0x10\n[reader]\npath = \"b\\u0041\\\"\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err != nil {
			return
		}
		back, err := ParseConfig(c.Text())
		if err != nil {
			t.Fatalf("%s: %v", c.Text(), err)
		}
		if string(back.Text()) != string(c.Text()) {
			t.Errorf("%s\n%s", c.Text(), back.Text())
		}
	})
}

// A configuration that was put together by hand has the defaults in all that was left alone; what was set to nothing stays that.
func TestConfigZero(t *testing.T) {
	byHand := Config{Kind: Inside, Enclave: "citadel"}
	if text := string(byHand.Text()); strings.Contains(text, "reserve") {
		t.Error(text)
	}
	back, err := ParseConfig(byHand.Text())
	want, err2 := NewConfig(Inside, "citadel")
	if err != nil || err2 != nil || back != want {
		t.Errorf("%+v, want %+v; %v, %v", back, want, err, err2)
	}
	none, err := ParseConfig([]byte("kind = \"inside\"\nenclave = \"citadel\"\n[space]\nreserve = 0\n"))
	if err != nil || none.Space.Reserve != 0 {
		t.Fatal(none, err)
	}
	again, err := ParseConfig(none.Text())
	if err != nil || again != none || !strings.Contains(string(none.Text()), "reserve = 0") {
		t.Errorf("%+v, %v\n%s", again, err, none.Text())
	}
}
