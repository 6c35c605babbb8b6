package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sallyport/guix/storepath"
)

// peer is contrib/peer, if it is up.
type peer struct {
	tool, root, why string
}

func findPeer(top string) *peer {
	p := &peer{tool: filepath.Join(top, "contrib", "peer", "peer")}
	if out, err := exec.Command(p.tool, "up").CombinedOutput(); err != nil {
		p.why = "contrib/peer/peer up: " + lastLine(out)
		return p
	}
	out, err := exec.Command(p.tool, "root").Output()
	if err != nil {
		p.why = "contrib/peer/peer root: " + err.Error()
		return p
	}
	p.root = strings.TrimSpace(string(out))
	return p
}

func lastLine(b []byte) string {
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// treeInside is where the tree is copied to in the peer.
const treeInside = "/var/tmp/sallyport-bench-tree"

// over measures a command of the peer with a copy of the tree as its last argument.
func (p *peer) over(tree string, args ...string) measure {
	if p.root == "" {
		return nil
	}
	host := filepath.Join(p.root, treeInside)
	if _, err := os.Stat(host); errors.Is(err, fs.ErrNotExist) {
		os.RemoveAll(host + ".partial")
		if err := errors.Join(os.CopyFS(host+".partial", os.DirFS(tree)), os.Rename(host+".partial", host)); err != nil {
			p.why = err.Error()
			return nil
		}
	}
	return process(append(append([]string{p.tool, "run"}, args...), treeInside)...)
}

// packages and the system are what TestClosure of package peer has Guix compute, too.
var packages = []string{"emacs", "icecat", "gcc-toolchain", "libreoffice", "guix", "linux-libre"}

const operatingSystem = `(use-modules (gnu))
(use-service-modules desktop ssh xorg)
(operating-system
  (host-name "peer")
  (timezone "Europe/Berlin")
  (bootloader (bootloader-configuration (bootloader grub-bootloader) (targets '("/dev/sda"))))
  (file-systems (cons (file-system (device "/dev/sda1") (mount-point "/") (type "ext4")) %base-file-systems))
  (services (cons* (service gnome-desktop-service-type) (service openssh-service-type) %desktop-services)))
`

// derivations has Guix compute those of the packages and of the system.
func (p *peer) derivations() ([]storepath.Path, error) {
	const system = "/var/tmp/sallyport-bench-system.scm"
	if err := os.WriteFile(filepath.Join(p.root, system), []byte(operatingSystem), 0o644); err != nil {
		return nil, err
	}
	var roots []storepath.Path
	for _, args := range [][]string{
		append([]string{"guix", "build", "-d", "--no-grafts", "--no-substitutes"}, packages...),
		{"guix", "system", "build", "-d", "--no-grafts", "--no-substitutes", system},
	} {
		out, err := exec.Command(p.tool, append([]string{"run"}, args...)...).Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
		for _, s := range strings.Fields(string(out)) {
			path, err := storepath.Parse(s)
			if err != nil {
				return nil, err
			}
			roots = append(roots, path)
		}
	}
	return roots, nil
}
