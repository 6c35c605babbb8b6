package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// A writer of everything the verifier reads, made from docs/spec alone and sharing nothing with the verifier but the language:
// notes by string concatenation, statements by encoding/json, trees by sumdb/tlog.

const (
	enclaveName = "keep"
	originName  = "sallyport/keep/inside"
)

// tkey is a signing key of the world; everything about it follows from its name: NAME#2 is another key of that name, NAME#p256, NAME#ssh
// and NAME#sk are keys of other kinds, with the forms of docs/spec/keys.md.
type tkey struct {
	name string
	alg  byte
	priv ed25519.PrivateKey
	kind string // p256, ssh, sk
	// For kinds that the standard library lacks: TYPE and PUBLIC, and a signature.
	raw, made []byte
}

const skApplication = "ssh:sallyport"

func newKey(name string) *tkey {
	seed := sha256.Sum256([]byte("test key " + name))
	alg := byte(1)
	if strings.Contains(name, "/witness") {
		alg = 4
	}
	name, kind, _ := strings.Cut(name, "#")
	return &tkey{name: name, alg: alg, priv: ed25519.NewKeyFromSeed(seed[:]), kind: kind}
}

// keyOf is the key of PERSON or PERSON#KIND in a context.
func keyOf(person, context string) *tkey {
	person, kind, _ := strings.Cut(person, "#")
	return newKey(strings.TrimSuffix(person+"/"+context+"#"+kind, "#"))
}

func (k *tkey) ec() *ecdsa.PrivateKey {
	ec, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), k.priv.Seed())
	if err != nil {
		panic(err)
	}
	return ec
}

func wireString(parts ...string) (all string) {
	for _, s := range parts {
		all += string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s
	}
	return all
}

// public is TYPE and PUBLIC of a vkey.
func (k *tkey) public() []byte {
	if k.raw != nil {
		return k.raw
	}
	raw := string(k.priv.Public().(ed25519.PublicKey))
	switch k.kind {
	case "p256":
		ec := k.ec()
		return append([]byte("\xffsallyport-p256"), elliptic.MarshalCompressed(ec.Curve, ec.X, ec.Y)...)
	case "ssh":
		return []byte("\xffsallyport-sshsig" + wireString("ssh-ed25519", raw))
	case "sk":
		return []byte("\xffsallyport-sshsig" + wireString("sk-ssh-ed25519@openssh.com", raw, skApplication))
	}
	return append([]byte{k.alg}, raw...)
}

func (k *tkey) sign(message string) []byte {
	if k.made != nil {
		return k.made
	}
	_, context, _ := strings.Cut(k.name, "/")
	hashed := sha512.Sum512([]byte(message))
	what := wireString("sallyport-"+context, "", "sha512")
	signed := "SSHSIG" + what + wireString(string(hashed[:]))
	blob := func(public, sig string) []byte {
		return []byte("SSHSIG\x00\x00\x00\x01" + wireString(public) + what + wireString(sig))
	}
	public := strings.TrimPrefix(string(k.public()), "\xffsallyport-sshsig")
	switch k.kind {
	case "p256":
		d := sha256.Sum256([]byte(message))
		var pair struct{ R, S *big.Int }
		sig, err := k.ec().Sign(nil, d[:], crypto.SHA256) // without randomness, as RFC 6979 says
		if err == nil {
			_, err = asn1.Unmarshal(sig, &pair)
		}
		if err != nil {
			panic(err)
		}
		if n := elliptic.P256().Params().N; pair.S.Cmp(new(big.Int).Rsh(n, 1)) > 0 {
			pair.S.Sub(n, pair.S)
		}
		sig, _ = asn1.Marshal(pair)
		return sig
	case "ssh":
		return blob(public, wireString("ssh-ed25519", string(ed25519.Sign(k.priv, []byte(signed)))))
	case "sk":
		app, d, rest := sha256.Sum256([]byte(skApplication)), sha256.Sum256([]byte(signed)), "\x01\x00\x00\x00\x07"
		return blob(public, wireString("sk-ssh-ed25519@openssh.com", string(ed25519.Sign(k.priv, []byte(string(app[:])+rest+string(d[:])))))+rest)
	}
	if k.alg == 4 {
		return append(binary.BigEndian.AppendUint64(nil, 1_700_000_000), ed25519.Sign(k.priv, []byte("cosignature/v1\ntime 1700000000\n"+message))...)
	}
	return ed25519.Sign(k.priv, []byte(message))
}

func (k *tkey) hash() []byte {
	h := sha256.Sum256(slices.Concat([]byte(k.name+"\n"), k.public()))
	return h[:4]
}

func (k *tkey) id() string   { return k.name + "+" + hex.EncodeToString(k.hash()) }
func (k *tkey) vkey() string { return k.id() + "+" + b64(k.public()) }
func (k *tkey) sigLine(text string) string {
	return "— " + k.name + " " + b64(append(k.hash(), k.sign(text)...)) + "\n"
}
func (k *tkey) minisignPublic() string {
	return b64(slices.Concat([]byte("Ed"), k.hash(), k.hash(), k.public()[1:]))
}
func (k *tkey) minisig(data []byte, comment string) string {
	h := newBlake2b()
	h.Write(data)
	d := h.sum()
	sig := ed25519.Sign(k.priv, d[:])
	global := ed25519.Sign(k.priv, append(slices.Clone(sig), comment...))
	return "untrusted comment: by hand\n" + b64(slices.Concat([]byte("ED"), k.hash(), k.hash(), sig)) + "\ntrusted comment: " + comment + "\n" + b64(global) + "\n"
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
func hexSum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func noteOf(text string, keys ...*tkey) []byte {
	lines := ""
	for _, k := range keys {
		lines += k.sigLine(text)
	}
	return []byte(text + "\n" + lines)
}

func keysNamed(names ...string) (keys []*tkey) {
	for _, n := range names {
		keys = append(keys, newKey(n))
	}
	return keys
}

// rootBody is the body of root 1, unsorted.
func rootBody() []string {
	body := []string{"policy quorum 2", "threshold order 2", "threshold root 2", "threshold allowlist/dev 2"}
	for role, people := range map[string]string{
		"officer": "olga otto", "collector": "carl cora", "importer": "ivan rita", "reviewer": "rita rolf ruth", "builder": "bea bob bill", "witness": "wendy wim",
	} {
		for _, p := range strings.Fields(people) {
			body = append(body, "role "+role+" "+p)
			switch context := map[string]string{"officer": "root", "collector": "manifest", "importer": "statement", "reviewer": "allowlist", "builder": "statement", "witness": "witness"}[role]; role {
			case "collector":
				body = append(body, "key sums "+p+" "+newKey(p+"/sums").minisignPublic())
				fallthrough
			case "officer":
				if role == "officer" {
					body = append(body, "key order "+p+" "+newKey(p+"/order").vkey())
				}
				fallthrough
			default:
				body = append(body, "key "+context+" "+p+" "+newKey(p+"/"+context).vkey())
			}
		}
	}
	return append(body, "key statement station "+newKey("station/statement").vkey(), "key checkpoint station "+newKey(originName).vkey(),
		"key narinfo dev "+strings.Repeat("ab", 32), "role station station")
}

func rootText(version int, previous string, body []string) string {
	slices.Sort(body)
	return fmt.Sprintf("sallyport root v1\nenclave keep\nversion %d\ndate 2026-01-0%dT00:00:00Z\nprevious %s\n", version, version, previous) + strings.Join(body, "\n") + "\n"
}

type tstatement struct {
	kind      string
	key       *tkey
	Subject   []object
	Predicate object
}

func payload(s tstatement) string {
	var out bytes.Buffer
	enc := func(v any) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(v); err != nil {
			panic(err)
		}
		out.WriteString(strings.TrimSuffix(b.String(), "\n"))
	}
	out.WriteString(`{"_type":"https://in-toto.io/Statement/v1","subject":[`)
	for i, sub := range s.Subject {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(`{"name":`)
		enc(sub["name"])
		out.WriteString(`,"digest":{"sha256":`)
		enc(sub["sha256"])
		out.WriteString(`}}`)
	}
	out.WriteString(`],"predicateType":`)
	enc("urn:sallyport:statement:" + s.kind + ":1")
	out.WriteString(`,"predicate":`)
	enc(s.Predicate)
	out.WriteString(`}`)
	return out.String()
}

func seal(k *tkey, body string) []byte {
	sig := k.sign(fmt.Sprintf("DSSEv1 28 application/vnd.in-toto+json %d %s", len(body), body))
	return fmt.Appendf(nil, `{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"%s","sig":"%s"}]}`, b64([]byte(body)), k.id(), b64(sig))
}

type object = map[string]any

// world is a zone whose history a test may bend before it is written.
type world struct {
	roots      []string   // texts
	rootSigs   [][]string // names of the keys under each
	statements []*tstatement
	edit       func(w *world, i int, s *tstatement, body string) []byte // returns the leaf, if set
	leaves     [][]byte
	files      map[string][]byte
	checkpoint string // name of the key that signs it
	fill       int
	manifest   []byte
	silent     bool // no undersigned entries
	orders     []string
	orderSigs  [][]string
	witnessed  int // place of an entry of what wendy cosigned
}

func (w *world) pin() string { return hexSum([]byte(w.roots[0])) }

// say appends a statement by its key's name; subjects are "NAME DIGEST".
func (w *world) say(key, kind string, predicate object, subjects ...string) *tstatement {
	s := &tstatement{kind: kind, key: newKey(key + "/statement"), Predicate: object{"time": "2026-01-02T03:04:05Z", "zone": originName}}
	maps.Copy(s.Predicate, predicate)
	for _, sub := range subjects {
		name, digest, _ := strings.Cut(sub, " ")
		s.Subject = append(s.Subject, object{"name": name, "sha256": digest})
	}
	w.statements = append(w.statements, s)
	return s
}

func (w *world) find(kind string) *tstatement {
	for _, s := range w.statements {
		if s.kind == kind {
			return s
		}
	}
	panic("no " + kind)
}

const drvName = "abcdfghijklmnpqrsvwxyz0123456789-hello-2.12.drv"

var (
	drvDigest = hexSum([]byte("the derivation"))
	outPath   = "/gnu/store/zyxwvsrqpnmlkjihgfdcba9876543210-hello-2.12"
	outDigest = hexSum([]byte("the nar"))
)

func itemLine(content, kind, name string) string {
	return fmt.Sprintf("item %s %d %s %s\n", hexSum([]byte(content)), len(content), kind, name)
}

// contents are the items of shipment 1, by name.
func contents() map[string]string {
	return map[string]string{
		drvName: "the derivation",
		"0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.tar.gz": "the source",
		"1123456789abcdfghijklmnpqrsvwxyz-patch":             "",
	}
}

func itemLines(items map[string]string) string {
	var lines []string
	for name, content := range items {
		kind := "source"
		if strings.HasSuffix(name, ".drv") {
			kind = "derivation"
		}
		lines = append(lines, itemLine(content, kind, name))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func manifestText(items string) string {
	return "sallyport manifest v1\nenclave keep\nshipment 1\ndate 2026-01-01T00:00:00Z\nprevious -\n" + items
}

func allowText(version, root int, previous, items string) string {
	return fmt.Sprintf("sallyport allowlist v1\nenclave keep\ntrack dev\nversion %d\ndate 2026-01-03T00:00:00Z\nroot %d\norders 0\nprevious %s\n", version, root, previous) + items
}

// allow approves and allows a version of dev by the named reviewers.
func (w *world) allow(version int, text string, names ...string) {
	digest, persons := hexSum([]byte(text)), []any{}
	var keys []*tkey
	for _, n := range names {
		k := keyOf(n, "allowlist")
		n, _, _ = strings.Cut(n, "#")
		keys, persons = append(keys, k), append(persons, n)
		w.say("station", "approved", object{"track": "dev", "version": version, "person": n, "signature": strings.TrimSuffix(k.sigLine(text), "\n")}, "allowlist "+digest)
	}
	w.say("station", "allowed", object{"track": "dev", "version": version, "persons": persons}, "allowlist "+digest)
	w.files[fmt.Sprintf("allowlist/dev/%d", version)] = noteOf(text, keys...)
}

// order writes the next orders, signed by the named officers, and the entries that go with them.
func (w *world) order(lines []string, names ...string) {
	version, previous, old := len(w.orders)+1, "-", ""
	if version > 1 {
		old = w.orders[version-2]
		previous = hexSum([]byte(old))
	}
	slices.Sort(lines)
	text := fmt.Sprintf("sallyport orders v1\nenclave keep\nversion %d\ndate 2026-01-04T00:00:00Z\nroot 1\nprevious %s\n", version, previous)
	for _, line := range lines {
		text += line + "\n"
	}
	var keys []*tkey
	persons := []any{}
	for _, n := range names {
		keys = append(keys, keyOf(n, "order"))
		n, _, _ = strings.Cut(n, "#")
		persons = append(persons, n)
	}
	w.orders, w.orderSigs = append(w.orders, text), append(w.orderSigs, names)
	w.files[fmt.Sprintf("orders/%d", version)] = noteOf(text, keys...)
	w.say("station", "ordered", object{"version": version, "persons": persons}, "orders "+hexSum([]byte(text)))
	for _, line := range lines {
		if f := strings.Fields(line); f[0] == "recall" && !strings.Contains(old, line) {
			w.say("station", "recalled", object{"version": version}, f[2]+" "+f[1])
		}
	}
}

// reject has a person reject shipment 1, with the key of another perhaps.
func (w *world) reject(who, signer string) *tstatement {
	digest := hexSum(w.manifest)
	text := "sallyport rejection v1\nenclave keep\nshipment 1\nmanifest " + digest + "\ndate 2026-01-04T00:00:00Z\nreason a \"blob\"\n"
	line := strings.TrimSuffix(newKey(signer+"/allowlist").sigLine(text), "\n")
	return w.say("station", "rejected", object{"shipment": 1, "person": who, "date": "2026-01-04T00:00:00Z", "reason": "a \"blob\"", "signature": line}, "manifest "+digest)
}

// What the tests submit: content, channel and commit, and the name that the store gives these.
const (
	ownCommit = "1111111111111111111111111111111111111111"
	ownStore  = "ours-channel-" + ownCommit
)

func ownDigest() string { return hexSum([]byte("own")) }

// submit has a person submit the item as own-N.
func (w *world) submit(who string, n int) *tstatement {
	return w.say(who, "submitted", object{"submission": n, "size": 3, "channel": "ours", "commit": ownCommit, "basis": "-", "person": who}, sourceName(ownDigest(), ownStore)+" "+ownDigest())
}

// allowOwn puts the item on the list, as own-1.
func (w *world) allowOwn(names ...string) {
	item := fmt.Sprintf("item %s 3 channel %s\n", ownDigest(), sourceName(ownDigest(), ownStore))
	w.allow(2, allowText(2, 1, hexSum([]byte(allowText(1, 1, "-", itemLines(contents())))), item), names...)
	for _, s := range w.statements[len(w.statements)-len(names)-1:] {
		s.Predicate["submission"] = 1
	}
}

// decline has a reviewer reject own-N.
func (w *world) decline(who string, n int) *tstatement {
	text := fmt.Sprintf("sallyport rejection v1\nenclave keep\nsubmission %d\nitem %s\ndate 2026-01-04T00:00:00Z\nreason no\n", n, ownDigest())
	line := strings.TrimSuffix(newKey(who+"/allowlist").sigLine(text), "\n")
	return w.say("station", "declined", object{"submission": n, "person": who, "date": "2026-01-04T00:00:00Z", "reason": "no", "signature": line}, fmt.Sprintf("own-%d %s", n, ownDigest()))
}

func (w *world) built(who, output string) *tstatement {
	return w.say(who, "built", object{
		"derivation": "/gnu/store/" + drvName, "derivation-sha256": drvDigest, "person": who, "system": "x86_64-linux",
		"outputs": object{"out": object{"path": outPath, "size": 1234, "references": []any{outPath}}},
	}, outPath+" "+output)
}

func newWorld() *world {
	w := &world{files: map[string][]byte{}, checkpoint: originName, fill: 298}
	w.roots, w.rootSigs = []string{rootText(1, "-", rootBody())}, [][]string{{"olga/root", "otto/root"}}
	w.manifest = noteOf(manifestText(itemLines(contents())), newKey("carl/manifest"))
	digest := hexSum(w.manifest)
	w.say("station", "created", object{"enclave": "keep", "kind": "inside"}, originName+" "+hexSum(nil))
	w.say("station", "root", object{"version": 1, "changes": []any{"the first"}}, "root "+w.pin())
	w.say("ivan", "imported", object{"shipment": 1, "items": 3, "bytes": 24, "person": "ivan"}, "manifest "+digest)
	w.say("station", "inspected", object{"files": 3, "bytes": 24, "findings": object{"low": 2}, "confinement": object{"landlock": 7, "seccomp": true}}, "manifest "+digest)
	w.allow(1, allowText(1, 1, "-", itemLines(contents())), "rita", "rolf")
	w.built("bea", outDigest)
	w.built("bob", outDigest)
	w.say("station", "agreed", object{"derivation": "/gnu/store/" + drvName, "builders": []any{newKey("bea/statement").id(), newKey("bob/statement").id()}}, outPath+" "+outDigest)
	w.say("station", "signed", object{"track": "dev"}, strings.TrimPrefix(outPath, "/gnu/store/")+" "+hexSum(nil))
	w.say("station", "refused", object{"stage": "gate", "reasons": []any{object{"code": "volume-sum", "subject": `a "quoted" \ name`}}, "total": 1}, "manifest "+digest)
	return w
}

// undersign tells of the signatures under a root or orders, before the entry by which it comes into force.
func (w *world) undersign(document string, version int, text string, keys []*tkey) {
	kind := map[string]string{"root": "root", "orders": "ordered"}[document]
	at := slices.IndexFunc(w.statements, func(s *tstatement) bool { return s.kind == kind && s.Predicate["version"] == version })
	for _, k := range keys {
		if at < 0 || w.silent {
			return
		}
		person, _, _ := strings.Cut(k.name, "/")
		s := w.say("station", "undersigned", object{"document": document, "version": version, "person": person, "signature": strings.TrimSuffix(k.sigLine(text), "\n")}, document+" "+hexSum([]byte(text)))
		n := len(w.statements) - 1
		w.statements = slices.Insert(w.statements[:n:n], at, s)
	}
}

// publish writes the zone's files into w.files.
func (w *world) publish() {
	for i, text := range w.roots {
		w.files[fmt.Sprintf("root/%d", i+1)] = noteOf(text, keysNamed(w.rootSigs[i]...)...)
	}
	if w.leaves == nil {
		for i, names := range w.rootSigs {
			w.undersign("root", i+1, w.roots[i], keysNamed(names...))
		}
		for i, names := range w.orderSigs {
			var keys []*tkey
			for _, n := range names {
				keys = append(keys, keyOf(n, "order"))
			}
			w.undersign("orders", i+1, w.orders[i], keys)
		}
		for i := range w.fill {
			w.say("station", "inspected", object{"files": i, "bytes": 0, "findings": object{}, "confinement": object{}}, "list "+hexSum(nil))
		}
		for i, s := range w.statements {
			var leaf []byte
			if body := payload(*s); w.edit != nil {
				leaf = w.edit(w, i, s, body)
			} else {
				leaf = seal(s.key, body)
			}
			if leaf != nil {
				w.leaves = append(w.leaves, leaf)
			}
		}
	}
	ck := w.tree(w.leaves)
	w.files["ledger/checkpoint"] = noteOf(ck, newKey(w.checkpoint))
	if len(w.leaves) > 100 {
		old := (&world{files: map[string][]byte{}}).tree(w.leaves[:100])
		w.files["witness/wendy"] = noteOf(old, newKey(originName), newKey("wendy/witness"))
		w.files["witness/wim"] = noteOf(ck, newKey(originName), newKey("wim/witness"))
	}
}

// tree publishes tiles for the leaves and returns the checkpoint's text.
func (w *world) tree(leaves [][]byte) string {
	var hashes []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (list []tlog.Hash, err error) {
		for _, i := range indexes {
			list = append(list, hashes[i])
		}
		return list, nil
	})
	for i, leaf := range leaves {
		h, err := tlog.StoredHashes(int64(i), leaf, reader)
		if err != nil {
			panic(err)
		}
		hashes = append(hashes, h...)
	}
	size := int64(len(leaves))
	for _, t := range tlog.NewTiles(8, 0, size) {
		data, err := tlog.ReadTileData(t, reader)
		if err != nil {
			panic(err)
		}
		w.files["ledger/tile/"+strings.TrimPrefix(t.Path(), "tile/8/")] = data
		if t.L == 0 {
			var bundle []byte
			for _, leaf := range leaves[t.N*256 : t.N*256+int64(t.W)] {
				bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(leaf))), leaf...)
			}
			w.files["ledger/tile/entries/"+strings.TrimPrefix(t.Path(), "tile/8/0/")] = bundle
		}
	}
	root, err := tlog.TreeHash(size, reader)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("%s\n%d\n%s\n", originName, size, b64(root[:]))
}

// volumeFiles is the volume of shipment 1. Its sums are made by sign, so that a test may change files before or after.
func volumeFiles() map[string][]byte {
	files := map[string][]byte{"README.txt": []byte("read me\n")}
	for _, content := range contents() {
		d := hexSum([]byte(content))
		files["items/"+d[:2]+"/"+d] = []byte(content)
	}
	files["manifest"] = noteOf(manifestText(itemLines(contents())), newKey("carl/manifest"))
	signVolume(files, "carl/sums", "sallyport keep shipment 1")
	return files
}

func signVolume(files map[string][]byte, by, comment string) {
	var short, long string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasPrefix(name, "SHA") {
			short += hexSum(files[name]) + "  " + name + "\n"
			h := sha512.Sum512(files[name])
			long += hex.EncodeToString(h[:]) + "  " + name + "\n"
		}
	}
	files["SHA256SUMS"], files["SHA512SUMS"] = []byte(short), []byte(long)
	resign(files, by, comment)
}

func resign(files map[string][]byte, by, comment string) {
	for _, name := range []string{"SHA256SUMS", "SHA512SUMS"} {
		files[name+".minisig"] = []byte(newKey(by).minisig(files[name], comment))
	}
}

func slipText(files map[string][]byte) string {
	return "sallyport slip v1\nenclave keep\nshipment 1\nmanifest " + hexSum(files["manifest"]) + "\nitems 3\nbytes 24\n"
}

func writeFiles(t testing.TB, dir string, files map[string][]byte) string {
	t.Helper()
	for name, data := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
