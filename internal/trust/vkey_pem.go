package trust

import (
	"encoding/hex"
	"encoding/pem"
	"fmt"
)

// What stands in front of a public key in DER (SubjectPublicKeyInfo): the lengths and the algorithm, which are the same for every key of a kind.
const (
	spkiEd25519 = "302a300506032b6570032100"
	spkiP256    = "3059301306072a8648ce3d020106082a8648ce3d030107034200"
	spkiMLDSA87 = "30820a32300b060960864801650304031303820a2100"
)

// PEM returns the public key as OpenSSL reads it. SSH keys that sign in SSH's own format have no such form.
func (k VKey) PEM() ([]byte, error) {
	var prefix string
	public := k.Public
	switch k.kind {
	case KeyEd25519, KeyCosignature, KeyMinisign:
		prefix = spkiEd25519
	case KeyP256:
		prefix = spkiP256
		key, err := parseP256(public)
		if err != nil {
			return nil, err
		}
		if public, err = key.Bytes(); err != nil {
			return nil, err
		}
	case KeyMLDSA87:
		prefix = spkiMLDSA87
	default:
		return nil, fmt.Errorf("key %s: a key of kind %s has no PEM form", k.Name, k.kind)
	}
	der, err := hex.DecodeString(prefix)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: append(der, public...)}), nil
}
