package shipment

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sallyport/internal/trust"
)

// pqKey makes an ML-DSA-87 key; seed tells apart several of one name.
func pqKey(t testing.TB, name, seed string) *trust.Key {
	t.Helper()
	k, err := trust.GenerateKeyOf(&stream{name: "TEST-ONLY shipment ML-DSA " + name + seed}, trust.KeyMLDSA87, name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// rootWith opens a root with two collectors, who have these keys beside their own, and a policy.
func rootWith(t testing.TB, policy string, keys ...*trust.Key) *trust.Root {
	t.Helper()
	note, _ := makeRoot(t, officer, builder, collector, holder{trust.RoleCollector, []string{"cedric/manifest", "cedric/sums"}})
	text, _, err := trust.SplitNote("root", note, trust.MaxRootSize)
	if err != nil {
		t.Fatal(err)
	}
	r, err := trust.ParseRoot(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		r.Keys = append(r.Keys, k.RootKey())
	}
	if policy != "" {
		r.Policies[trust.PolicyMLDSA] = policy
	}
	text = r.Text()
	if note, err = trust.SignNote(text, testKey(t, "olga/root")); err != nil {
		t.Fatal(err)
	}
	root, err := trust.OpenRoot(note, trust.Sum(text))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// An ML-DSA-87 signature is verified when its key is known, demanded when policy says so, and never instead of another.
func TestMLDSA(t *testing.T) {
	carol, cedric := pqKey(t, "carol/manifest", ""), pqKey(t, "cedric/manifest", "")
	second, mallory := pqKey(t, "carol/manifest", "2"), pqKey(t, "mallory/manifest", "")
	text := newDelivery(t).manifest.Text()
	classical := testKey(t, "carol/manifest")
	sign := func(keys ...trust.Signer) []byte {
		file, err := trust.SignNote(text, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	spoilt := func(keys ...trust.Signer) []byte { // one bit of the last signature
		file := sign(keys...)
		at := len(file) - 100
		file[at] = map[bool]byte{true: 'A', false: 'B'}[file[at] != 'A']
		return file
	}
	known := []*trust.Key{carol, second, cedric}
	for _, c := range []struct {
		name   string
		policy string
		keys   []*trust.Key
		file   []byte
		codes  []string
	}{
		{"not demanded, not there", "", known, sign(classical), nil},
		{"not demanded, there", "", known, sign(classical, carol), nil},
		{"first of the two", "1", known, sign(carol, classical), nil},
		{"not demanded, wrong", "", known, spoilt(classical, carol), []string{"manifest-signature"}},
		{"not demanded, of a key that is not known", "", nil, spoilt(classical, carol), nil},
		{"policy 0", "0", known, sign(classical), nil},
		{"policy 1, there", "1", known, sign(classical, carol), nil},
		{"policy 1, by another collector", "1", known, sign(classical, cedric), nil},
		{"policy 1, not there", "1", known, sign(classical), []string{"manifest-mldsa"}},
		{"policy 1, of a key that is not known", "1", known, sign(classical, mallory), []string{"manifest-mldsa"}},
		{"policy 1, wrong", "1", known, spoilt(classical, carol), []string{"manifest-signature"}},
		{"policy 2, one", "2", known, sign(classical, carol), []string{"manifest-mldsa"}},
		{"policy 2, two keys of one person", "2", known, sign(classical, carol, second), []string{"manifest-mldsa"}},
		{"policy 2, two persons", "2", known, sign(classical, cedric, carol), nil},
		{"alone", "1", known, sign(carol, cedric), []string{"manifest-unsigned"}},
		{"alone, not demanded", "", known, sign(carol), []string{"manifest-unsigned"}},
		{"twice the same", "1", known, sign(classical, carol, carol), []string{"manifest-note"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, persons, err := OpenManifest(c.file, rootWith(t, c.policy, c.keys...))
			wantCodes(t, err, c.codes...)
			if err == nil && !slices.Equal(persons, []string{"carol"}) {
				t.Errorf("signed by %v: only other signatures count", persons)
			}
		})
	}
	m := newDelivery(t).manifest
	for name, keys := range map[string][]trust.Signer{"none": nil, "ML-DSA alone": {carol, cedric}, "one key twice": {classical, carol, classical}} {
		if _, err := m.Sign(keys...); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	// Only who signed the manifest, by a key that counts, signs its sums.
	d := newDelivery(t)
	d.make("carol", cedric)
	if err := Write(t.Context(), filepath.Join(t.TempDir(), "volume"), d.manifest, d.files[fileManifest], d.open, testKey(t, "cedric/sums"), nil); err == nil {
		t.Error("cedric, who signed with ML-DSA alone, signed the sums")
	}
}

// A whole volume with such a signature, and its page, which says how people check it.
func TestMLDSAVolume(t *testing.T) {
	carol := pqKey(t, "carol/manifest", "")
	d := newDelivery(t)
	if strings.Contains(string(d.files[fileReadme]), "ML-DSA") {
		t.Error("a page without such a signature speaks of it")
	}
	d.make("carol", carol, pqKey(t, "cedric/manifest", ""))
	dir := filepath.Join(t.TempDir(), "volume")
	if err := Write(t.Context(), dir, d.manifest, d.files[fileManifest], d.open, testKey(t, "carol/sums"), nil); err != nil {
		t.Fatal(err)
	}
	root := rootWith(t, "2", carol, pqKey(t, "cedric/manifest", ""))
	if _, err := verify(t, dir, Options{Root: root, Slip: d.slip()}); err != nil {
		t.Fatal(err)
	}
	page := string(d.files[fileReadme])
	for _, says := range []string{"\n4. ", "\n5. ", "\n6. The file \"manifest\"", "ML-DSA-87 signature by carol/manifest", "ML-DSA-87 signature by cedric/manifest"} {
		if strings.Count(page, says) != 1 {
			t.Errorf("the page does not say %q once:\n%s", says, page)
		}
	}
	program := opensslWithMLDSA()
	if program == "" {
		t.Skip("SKIPPED: no openssl of version 3.5 or later found, so what README.txt says of ML-DSA-87 was not done; install one, or name it in SALLYPORT_OPENSSL")
	}
	// The commands as they stand on the page, but for the place of their files.
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "KEY.pub"), []byte(carol.RootKey().Line()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, step, _ := strings.Cut(page, "\n4. ")
	step, _, _ = strings.Cut(step, "\n5. ")
	var script []string
	for line := range strings.Lines(step) {
		if command, ok := strings.CutPrefix(line, "       "); ok {
			script = append(script, strings.NewReplacer("/tmp/", work+"/", "KEY.pub", work+"/KEY.pub", "openssl ", program+" ").Replace(command))
		}
	}
	if len(script) != 5 {
		t.Fatalf("%d commands: %q", len(script), script)
	}
	run := func() (string, error) {
		cmd := exec.Command("sh", "-c", strings.Join(script, ""))
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(); err != nil || !strings.Contains(out, "Signature Verified Successfully") || !strings.Contains(out, trust.Sum([]byte(carol.RootKey().Line()+"\n")).String()) {
		t.Errorf("%v: %s", err, out)
	}
	spoilt := bytes.Replace(d.files[fileManifest], []byte("\nitem "), []byte("\nitem 0"), 1)
	if err := os.WriteFile(filepath.Join(dir, fileManifest), spoilt, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := run(); err == nil {
		t.Errorf("another manifest: %s", out)
	}
}

// opensslWithMLDSA looks for a program that knows ML-DSA.
func opensslWithMLDSA() string {
	for _, program := range []string{os.Getenv("SALLYPORT_OPENSSL"), "openssl"} {
		out, err := exec.Command(program, "list", "-signature-algorithms").Output()
		if program != "" && err == nil && bytes.Contains(out, []byte("ML-DSA-87")) {
			return program
		}
	}
	return ""
}
