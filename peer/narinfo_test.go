//go:build peer

package peer

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/guix/narinfo"
	"sallyport/guix/signature"
)

// TestNarinfos asks the client of Guix again what it says of each narinfo of vectors/narinfo: whether the item can be had, and what is known of it.
func TestNarinfos(t *testing.T) {
	p := start(t)
	folder := filepath.Join(vectorsFolder, "narinfo")
	var variants []struct{ Tag, File, Asked, Note, Have, Info string }
	if err := json.Unmarshal(read(t, filepath.Join(folder, "variants.json")), &variants); err != nil {
		t.Fatal(err)
	}
	if len(variants) < 22 {
		t.Fatalf("only %d variants", len(variants))
	}
	acl, err := signature.ParseACL(read(t, filepath.Join(folder, "acl")))
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t)
	in := p.folder(t)
	in.write(t, "acl", acl.Bytes(), 0o644)
	var list strings.Builder
	for _, v := range variants {
		// Under the name that is asked for, which one variant does not have in it.
		name := strings.TrimPrefix(v.Asked, "/gnu/store/")[:32] + ".narinfo"
		s.files["/"+name] = read(t, filepath.Join(folder, "variants", v.File))
		fmt.Fprintln(&list, v.Tag, v.Asked)
	}
	in.write(t, "list", []byte(list.String()), 0o644)
	// The program answers on descriptor 4. Its settings come from the daemon, in this variable.
	in.write(t, "ask", []byte(`cd "$(dirname "$0")"
for what in have info; do
	echo "$what $2" | guix substitute --query 4>"$1.$what" 2>"$1.$what.said"
	echo $? >"$1.$what.status"
done`), 0o644)
	p.fresh(t, fmt.Sprintf("cp %[1]s/acl /etc/guix/acl\n_NIX_OPTIONS=substitute-urls=%[2]s xargs -P 2 -L 1 sh %[1]s/ask <%[1]s/list", in.name, s.URL))

	equal, offered, ours := 0, 0, 0
	for _, v := range variants {
		for what, want := range map[string]string{"have": v.Have, "info": v.Info} {
			// The recorded answers have no white space at their ends: not the carriage return that Guix leaves in a path, either.
			answer := strings.TrimRight(strings.ReplaceAll(string(in.read(t, v.Tag+"."+what)), "\n", " | "), " |\r")
			got := fmt.Sprintf("%s [exit %s]", answer, strings.TrimSpace(string(in.read(t, v.Tag+"."+what+".status"))))
			if got == want {
				equal++
				continue
			}
			t.Errorf("%s (%s): to %s Guix says %q, recorded is %q\n%s", v.Tag, v.Note, what, got, want, tail(in.read(t, v.Tag+"."+what+".said")))
		}
		// Ours takes nothing that Guix does not offer.
		_, err := narinfo.Verify(read(t, filepath.Join(folder, "variants", v.File)), acl)
		guix := strings.HasPrefix(v.Have, "/")
		if guix {
			offered++
		}
		if err == nil {
			ours++
			if !guix {
				t.Errorf("%s: we take it, Guix does not", v.Tag)
			}
		}
	}
	if len(s.asked) < len(variants) {
		t.Errorf("for %d narinfos the server was asked %d times", len(variants), len(s.asked))
	}
	t.Logf("%d narinfos, %d of %d answers as recorded; Guix offers %d of the items, we take %d of these", len(variants), equal, 2*len(variants), offered, ours)
}

// TestNarinfoServer asks about a narinfo of ours as it asks about those.
func TestNarinfoServer(t *testing.T) {
	p := start(t)
	k := key(t)
	s := serve(t)
	in := p.folder(t)
	low := tree(t, "low")
	high := text(t, "high", "I stand on "+low.path.String(), low.path)
	s.offer(t, low, k, "gzip", nil)
	s.offer(t, high, k, "none", nil)
	in.write(t, "query", fmt.Appendf(nil, "info %s %s\n", low.path, high.path), 0o644)
	p.fresh(t, install(t, in, key(t), signature.NewACL(k.Public()))+
		fmt.Sprintf("_NIX_OPTIONS=substitute-urls=%[2]s guix substitute --query 4>%[1]s/answer <%[1]s/query", in.name, s.URL))
	// For each: path, deriver, number of references and these, sizes of the file and of the nar.
	size := func(it item) int {
		for name, data := range s.files {
			if strings.HasPrefix(name, "/nar/") && strings.HasSuffix(name, it.path.Base()) {
				return len(data)
			}
		}
		return -1
	}
	for _, want := range []string{
		fmt.Sprintf("%s\n\n0\n%d\n%d\n", low.path, size(low), len(low.nar)),
		fmt.Sprintf("%s\n\n1\n%s\n%d\n%d\n", high.path, low.path, size(high), len(high.nar)),
	} {
		if got := string(in.read(t, "answer")); !strings.Contains(got, want) {
			t.Errorf("Guix answers\n%s\nnot\n%s", got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(in.host, "answer")); err != nil {
		t.Error(err)
	}
}
