package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"sallyport/guix/nar"
	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
	"sallyport/guix/storepath"
)

const (
	enclave = "demo"
	track   = "dev"
)

// persons and their keys. In an enclave each person makes their own, with a passphrase, on their own machine.
var persons = []string{
	"olga/root", "olga/order", "carol/manifest", "carol/sums", "dave/statement", "dave/allowlist", "alice/allowlist", "bob/allowlist",
	"erin/statement", "frank/statement", "wilma/witness", "dev/narinfo",
}

func (d *demo) key(name string) string {
	return d.path("keys", strings.ReplaceAll(name, "/", ".")+".key")
}

// requestFile asks for what builds sallyport-verify.
const requestFile = "contrib/requests/sallyport-verify.toml"

func (d *demo) collect() error {
	if _, err := d.do(d.sallyport("init", "--kind", "outside", "--enclave", enclave, "outside")...); err != nil {
		return err
	}
	// The request's paths are relative to it: it is used where it lies in the source.
	_, err := d.do(d.sallyport("collect", "--zone", "outside", filepath.Join(d.source, requestFile))...)
	return err
}

// entry is a line of 'ledger show --json'.
type entry struct {
	Index     int64
	Kind      string
	Key       string
	Subjects  []struct{ Name, Sha256 string }
	Predicate map[string]any
}

func (d *demo) entries(zone string) ([]entry, error) {
	r, err := d.silent(d.station("ledger", "show", "--json", "--zone", zone)...)
	if err != nil {
		return nil, err
	}
	if r.code != done {
		return nil, fmt.Errorf("ledger show: exit code %d: %s", r.code, r.stderr)
	}
	var list []entry
	for dec := json.NewDecoder(bytes.NewReader(r.stdout)); ; {
		var e entry
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
}

func (d *demo) inspected() error {
	list, err := d.entries("outside")
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Kind != "inspected" {
			continue
		}
		files, _ := e.Predicate["files"].(float64)
		if files < 1000 {
			return fmt.Errorf("only %v files were looked at", files)
		}
		d.say("%v files, %v bytes; findings %v", files, int64(e.Predicate["bytes"].(float64)), e.Predicate["findings"])
		c, _ := e.Predicate["confinement"].(map[string]any)
		for _, k := range []string{"landlock", "seccomp", "namespaces", "no-new-privileges", "user"} {
			d.say("  in force: %-18s %v", k, c[k])
		}
		if abi, _ := c["landlock"].(float64); abi < 1 {
			return errors.New("the reader was not held by Landlock")
		}
		return nil
	}
	return errors.New("the ledger has no entry \"inspected\"")
}

func (d *demo) ship() error {
	if err := os.Mkdir(d.path("keys"), 0o700); err != nil {
		return err
	}
	d.say("Each person makes their own keys. (Here without passphrases: the demo has nobody to ask.)")
	for _, p := range persons {
		r, err := d.silent(d.sallyport("key", "generate", "--quiet", "--no-passphrase", p, d.key(p))...)
		if err != nil {
			return err
		}
		if r.code != done {
			return fmt.Errorf("key generate %s: exit code %d: %s", p, r.code, r.stderr)
		}
		d.say("%s", strings.TrimSpace(string(r.stdout)))
	}
	if _, err := d.do(d.sallyport("shipment", "create", "--zone", "outside", "--key", d.key("carol/manifest"), "--sums-key", d.key("carol/sums"), "--slip", "slip-1.txt", "volume-1")...); err != nil {
		return err
	}
	return d.checkByHand("volume-1")
}

// checkByHand checks a volume with other people's programs.
func (d *demo) checkByHand(volume string) error {
	for _, c := range [][]string{{"sha256sum", "--quiet", "--check", "SHA256SUMS"}, {"sha512sum", "--quiet", "--check", "SHA512SUMS"}} {
		fmt.Printf("   \033[36m$ (cd %s && %s)\033[0m\n", volume, strings.Join(c, " "))
		cmd := exec.CommandContext(d.ctx, c[0], c[1:]...)
		cmd.Dir = d.path(volume)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c[0], err, out)
		}
	}
	if _, err := exec.LookPath("minisign"); err != nil {
		d.say("\033[33mNOT CHECKED: the minisign program is not installed here, so nobody but Sallyport checked the signature (apt-get install minisign)\033[0m")
		return nil
	}
	public, err := d.public("carol/sums")
	if err != nil {
		return err
	}
	for _, f := range []string{"SHA256SUMS", "SHA512SUMS"} {
		args := []string{"minisign", "-VHm", d.path(volume, f), "-P", public}
		if _, err := d.do(args...); err != nil {
			return err
		}
	}
	return nil
}

// public is the third word of a .pub file: the key itself.
func (d *demo) public(name string) (string, error) {
	data, err := os.ReadFile(d.key(name) + ".pub")
	if err != nil {
		return "", err
	}
	f := strings.Fields(string(data))
	return f[len(f)-1], nil
}

func (d *demo) admit() error {
	if _, err := d.do(d.station("init", "--kind", "inside", "--enclave", enclave, "inside")...); err != nil {
		return err
	}
	args := d.station("trust", "init", "--zone", "inside", "--key", d.key("olga/root"), "--threshold", "root=1", "--threshold", "order=1", "--threshold", "allowlist/"+track+"=2", "--policy", "quorum=2")
	for _, p := range persons {
		args = append(args, "--enroll", d.key(p)+".pub")
	}
	for _, r := range []string{"officer=olga", "collector=carol", "importer=dave", "reviewer=alice", "reviewer=bob", "reviewer=dave", "builder=erin", "builder=frank", "witness=wilma"} {
		args = append(args, "--role", r)
	}
	if _, err := d.do(args...); err != nil {
		return err
	}
	var root struct{ Fingerprint string }
	if err := d.get(&root, d.station("trust", "show", "--zone", "inside")...); err != nil {
		return err
	}
	d.paper = root.Fingerprint
	d.say("The fingerprint goes onto paper, for signer, depot, builders and auditor.")
	d.say("The medium crosses: a copy of the volume. The slip came by another way.")
	if err := os.CopyFS(d.path("volume-1-inside"), os.DirFS(d.path("volume-1"))); err != nil {
		return err
	}
	if _, err := d.do(d.station("import", "--zone", "inside", "--slip", "slip-1.txt", "--key", d.key("dave/statement"), "volume-1-inside")...); err != nil {
		return err
	}
	d.say("Dave imported it. He is a reviewer too, but not of this:")
	approve := func(person string) []string {
		return d.station("review", "approve", "--zone", "inside", "--track", track, "--key", d.key(person+"/allowlist"), "1")
	}
	if err := d.refusedWith("separation-of-duties", approve("dave")...); err != nil {
		return err
	}
	for _, p := range []string{"alice", "bob"} {
		if _, err := d.do(approve(p)...); err != nil {
			return err
		}
	}
	return nil
}

// depotURL starts a depot and returns its URL.
func (d *demo) depotURL() (string, error) {
	args := d.station("depot", "serve", "--zone", "inside", "--root", d.paper, "--track", track, "--listen", "127.0.0.1:0", "--json")
	fmt.Printf("   \033[36m$ %s &\033[0m\n", d.shown(args))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = d.dir
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	d.servers = append(d.servers, cmd)
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		return "", fmt.Errorf("the depot did not start: %w", err)
	}
	var l struct{ URL string }
	if err := json.Unmarshal(line, &l); err != nil || l.URL == "" {
		return "", fmt.Errorf("the depot did not start: %s", line)
	}
	d.say("%s", l.URL)
	return l.URL, nil
}

func (d *demo) stopServers() {
	for _, s := range d.servers {
		s.Process.Signal(syscall.SIGTERM)
		s.Wait()
	}
	d.servers = nil
}

// fetch is a plain HTTP client.
func (d *demo) fetch(url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(d.ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}

// substitute fetches an item as a client would, and believes only the track's key and what it hashed itself.
func (d *demo) substitute(depot, base string, acl signature.ACL) (*narinfo.NarInfo, error) {
	p, err := storepath.ParseBase(base)
	if err != nil {
		return nil, err
	}
	res, err := d.fetch(depot + "/" + p.Hash() + ".narinfo")
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s.narinfo: %s %w", p.Hash(), res.Status, err)
	}
	info, err := narinfo.Verify(body, acl)
	if err != nil {
		return nil, err
	}
	res, err = d.fetch(depot + "/" + info.Files[0].URL)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", info.Files[0].URL, res.Status)
	}
	h := sha256.New()
	r := nar.NewReader(io.TeeReader(res.Body, h))
	files := 0
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if e.Type == nar.Regular {
			files++
		}
	}
	if r.Offset() != info.NarSize || !bytes.Equal(h.Sum(nil), info.NarHash[:]) {
		return nil, fmt.Errorf("%s: the nar is not the one that was signed", base)
	}
	d.say("%s  good signature; %d bytes, %d files, nar hash equal", p.Name(), info.NarSize, files)
	return info, nil
}

func (d *demo) acl() (signature.ACL, error) {
	q, err := d.public("dev/narinfo")
	if err != nil {
		return signature.ACL{}, err
	}
	k, err := signature.ParsePublicKeyHex(q)
	return signature.NewACL(k), err
}

// dossier is what 'review show' says, as far as the demo wants it.
type dossier struct {
	Items []struct{ Kind, Name string } `json:"items_of_shipment"`
}

func (d *demo) items(shipment string) (sources []string, derivation string, err error) {
	var s dossier
	if err := d.get(&s, d.station("review", "show", "--zone", "inside", shipment)...); err != nil {
		return nil, "", err
	}
	for _, it := range s.Items {
		if it.Kind == "derivation" {
			derivation = it.Name
		} else {
			sources = append(sources, it.Name)
		}
	}
	return sources, derivation, nil
}

var depot struct {
	url        string
	derivation string
	output     string
	binary     string
}

func (d *demo) serve() error {
	if _, err := d.do(d.station("depot", "sign", "--zone", "inside", "--root", d.paper, "--track", track, "--track-key", d.key("dev/narinfo"))...); err != nil {
		return err
	}
	var err error
	if depot.url, err = d.depotURL(); err != nil {
		return err
	}
	acl, err := d.acl()
	if err != nil {
		return err
	}
	sources, drv, err := d.items("1")
	if err != nil {
		return err
	}
	depot.derivation = drv
	for _, base := range append(sources, drv) {
		if _, err := d.substitute(depot.url, base, acl); err != nil {
			return err
		}
	}
	return nil
}

// built is what 'build --json' says.
type built struct {
	Outputs []struct {
		ID      string
		Path    string
		NarHash string `json:"nar_sha256"`
	}
}

func (d *demo) build() error {
	names := []string{"erin", "frank"}
	for i, p := range names {
		if _, err := d.do(d.station("builder", "init", "--enclave", enclave, "--depot", depot.url, "--track", track, "--root", d.paper,
			"--key", d.key(p+"/statement"), fmt.Sprintf("builder-%d", i+1))...); err != nil {
			return err
		}
	}
	d.say("Both build at once, each in its own directory and with its own key:")
	results := make([]built, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i := range names {
		args := d.station("build", "--builder", fmt.Sprintf("builder-%d", i+1), "--out", fmt.Sprintf("result-%d", i+1), depot.derivation)
		fmt.Printf("   \033[36m$ %s &\033[0m\n", d.shown(args))
		wg.Go(func() { errs[i] = d.get(&results[i], args...) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, r := range results {
		d.say("builder %d: nar sha256 %s", i+1, r.Outputs[0].NarHash)
	}
	if results[0].Outputs[0].NarHash != results[1].Outputs[0].NarHash {
		return errors.New("the builders do not agree")
	}
	depot.output = filepath.Base(results[0].Outputs[0].Path)
	for i := range names {
		if _, err := d.do(d.station("quorum", "submit", "--zone", "inside", "--track", track, fmt.Sprintf("result-%d", i+1))...); err != nil {
			return err
		}
	}
	if _, err := d.do(d.station("depot", "sign", "--zone", "inside", "--root", d.paper, "--track", track, "--track-key", d.key("dev/narinfo"))...); err != nil {
		return err
	}
	return d.install()
}

// install takes the output from the depot as a client would, unpacks it and runs it.
func (d *demo) install() error {
	acl, err := d.acl()
	if err != nil {
		return err
	}
	info, err := d.substitute(depot.url, depot.output, acl)
	if err != nil {
		return err
	}
	res, err := d.fetch(depot.url + "/" + info.Files[0].URL)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.Mkdir("auditor", 0o755); err != nil {
		return err
	}
	verified := nar.NewVerifier(res.Body, info.NarSize, info.NarHash)
	if err := nar.Restore(root, "auditor/"+depot.output, verified); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, verified); err != nil {
		return err
	}
	depot.binary = d.path("auditor", depot.output, "bin", "sallyport-verify")
	r, err := d.exec(depot.binary, "--help")
	if err != nil {
		return err
	}
	if !bytes.Contains(append(r.stdout, r.stderr...), []byte("sallyport-verify")) {
		return fmt.Errorf("the binary that came out does not run: exit code %d: %s", r.code, r.stderr)
	}
	data, err := os.ReadFile(depot.binary)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	d.say("it runs: %d bytes, sha256 %s", len(data), hex.EncodeToString(sum[:]))
	return nil
}

// wantedEntries are the steps that the inside ledger must tell of.
var wantedEntries = []string{"created", "root", "inspected", "imported", "approved", "allowed", "signed", "built", "agreed", "refused"}

func (d *demo) audit() error {
	log, err := os.ReadFile(d.path("inside", "keys", "ledger.vkey"))
	if err != nil {
		return err
	}
	if _, err := d.do(d.sallyport("ledger", "witness", "--key", d.key("wilma/witness"), "--state", "wilma.state", "--log", strings.TrimSpace(string(log)),
		"--out", "cosigned", "inside/public/ledger")...); err != nil {
		return err
	}
	if _, err := d.do(d.station("ledger", "cosign", "--zone", "inside", "cosigned")...); err != nil {
		return err
	}
	d.say("The auditor gets the public directory, and on paper the root's fingerprint:")
	if _, err := d.do(depot.binary, "enclave", "--root", d.paper, "--require", strings.Join(wantedEntries, ","), "--witness", "wilma", "inside/public"); err != nil {
		return err
	}
	d.say("And of the outside's ledger, its key:")
	key, err := os.ReadFile(d.path("outside", "keys", "ledger.vkey"))
	if err != nil {
		return err
	}
	_, err = d.do(depot.binary, "ledger", "--key", strings.TrimSpace(string(key)), "outside/public/ledger")
	return err
}

// copyTree copies a directory below the zones.
func (d *demo) copyTree(from, to string) error {
	return os.CopyFS(d.path(to), os.DirFS(d.path(from)))
}
