package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/guix/signature"
)

// signatures is how many are made and verified each time.
const signatures = 1000

// signatureRows compare with guix authenticate, the program that guix-daemon has sign and verify: one process, many requests.
func signatureRows(p *peer) []row {
	sign := row{what: "sign hashes", each: signatures, peer: "guix authenticate", why: p.why}
	verify := row{what: "verify signatures", each: signatures, peer: "guix authenticate", why: p.why}
	if p.root == "" {
		key, err := signature.GenerateKey(zeros{})
		if err != nil {
			panic(err) // zeros never end
		}
		sign.ours, verify.ours = ourSignatures(key)
		return []row{sign, verify}
	}
	fail := func(err error) []row {
		failing := func() (time.Duration, error) { return 0, err }
		sign.ours, verify.ours = failing, failing
		return []row{sign, verify}
	}
	secret, err := os.ReadFile(filepath.Join(p.root, "etc/guix/signing-key.sec"))
	if err != nil {
		return fail(err)
	}
	key, err := signature.ParseSecretKey(secret)
	if err != nil {
		return fail(err)
	}
	sign.ours, verify.ours = ourSignatures(key)
	const file = "/etc/guix/signing-key.sec"
	if sign.their, err = p.authenticate(key, "sign", func(hash [32]byte, _ []byte) string {
		x := hex.EncodeToString(hash[:])
		return fmt.Sprintf("sign %d:%s %d:%s\n", len(file), file, len(x), x)
	}); err != nil {
		return fail(err)
	}
	if verify.their, err = p.authenticate(key, "verify", func(_ [32]byte, sig []byte) string {
		return fmt.Sprintf("verify %d:%s\n", len(sig), sig)
	}); err != nil {
		return fail(err)
	}
	return []row{sign, verify}
}

func hashes() (all [signatures][32]byte) {
	for i := range all {
		all[i] = sha256.Sum256([]byte(strconv.Itoa(i)))
	}
	return all
}

func ourSignatures(key signature.SecretKey) (sign, verify measure) {
	acl := signature.NewACL(key.Public())
	var texts [][]byte
	sign = timed(func() error {
		texts = nil
		for _, h := range hashes() {
			text, err := signature.Sign(key, h)
			if err != nil {
				return err
			}
			texts = append(texts, text)
		}
		return nil
	})
	verify = timed(func() error {
		for i, h := range hashes() {
			if _, err := signature.Verify(texts[i], h, acl); err != nil {
				return err
			}
		}
		return nil
	})
	return sign, verify
}

// authenticate measures requests to one process, without its start: that of a process with one request is taken off. The list of keys holds the peer's own.
func (p *peer) authenticate(key signature.SecretKey, what string, request func(hash [32]byte, sig []byte) string) (measure, error) {
	var all strings.Builder
	for _, h := range hashes() {
		sig, err := signature.Sign(key, h)
		if err != nil {
			return nil, err
		}
		all.WriteString(request(h, sig))
	}
	one := request([32]byte{}, must(signature.Sign(key, [32]byte{})))
	const dir = "/var/tmp/sallyport-bench-signatures"
	for name, data := range map[string]string{"many-" + what: all.String(), "one-" + what: one, "acl": string(signature.NewACL(key.Public()).Bytes())} {
		file := filepath.Join(p.root, dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			return nil, err
		}
	}
	script := fmt.Sprintf(`set -e
cp %[1]s/acl /etc/guix/acl
cd %[1]s
a=$(date +%%s%%N)
guix authenticate <one-%[2]s >/dev/null
b=$(date +%%s%%N)
guix authenticate <many-%[2]s >answers
c=$(date +%%s%%N)
echo $((c - b - (b - a)))
grep -c '^0 ' answers || true`, dir, what)
	return func() (time.Duration, error) {
		cmd := exec.Command(p.tool, "fresh", "sh", "-c", script)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		words := strings.Fields(string(out))
		if err != nil || len(words) != 2 {
			return 0, fmt.Errorf("guix authenticate: %v %q %s", err, out, stderr.String())
		}
		ns, err := strconv.ParseInt(words[0], 10, 64)
		if err == nil && ns <= 0 {
			err = fmt.Errorf("guix authenticate takes %d ns", ns)
		}
		return time.Duration(ns), err
	}, nil
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
