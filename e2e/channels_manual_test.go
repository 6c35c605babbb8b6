package e2e_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// freeAddress is where a program can listen in a moment: a port that the kernel gives nobody by itself.
func freeAddress(t *testing.T) string {
	t.Helper()
	first := 32768
	if data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		fmt.Sscan(string(data), &first)
	}
	random := dice(t)
	for range 1000 {
		port := 0 // where the kernel gives nearly all, one of those
		if first > 2048 {
			port = 1024 + random.IntN(first-1024)
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// TestChannelsManual follows docs/operate/channels.md, command by command, behind the ceremony that it begins after.
func TestChannelsManual(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "git", "gpg", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("NOT TESTED: that docs/operate/channels.md can be followed: no %s here; remedy: apt-get install bash git gnupg curl", program)
		}
	}
	dir := t.TempDir()
	// gpg's agent has a socket there, whose name has to be short.
	home, err := os.MkdirTemp("/tmp", "gpg")
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"), "LC_ALL=C", "GNUPGHOME="+home, "HOME="+home, "GIT_CONFIG_NOSYSTEM=1")
	t.Cleanup(func() {
		kill := exec.Command("gpgconf", "--kill", "gpg-agent")
		kill.Env = env
		if out, err := kill.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		os.RemoveAll(home)
	})
	// gpg waits five seconds for its agent, which may need longer on a busy machine.
	for range 20 {
		launch := exec.Command("gpgconf", "--launch", "gpg-agent")
		launch.Env = env
		if launch.Run() == nil {
			break
		}
	}
	// The manual waits for a server, for as long as it takes.
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	change := strings.NewReplacer("key generate ", "key generate --no-passphrase ", "channel create ", "channel create --no-passphrase ", "127.0.0.1:8090", freeAddress(t))
	var define, last string
	for _, page := range []string{"ceremony.md", "channels.md"} {
		titles, blocks := scripts(t, page)
		if len(blocks) < 4 {
			t.Fatalf("%s has %d blocks of commands", page, len(blocks))
		}
		for i, block := range blocks {
			if strings.HasPrefix(block, "fingerprint()") {
				define = block
				continue
			}
			cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", define+change.Replace(block))
			cmd.Dir, cmd.Env = dir, env
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s, %s: %v\n%s\n%s", page, titles[i], err, block, out)
			}
			last = string(out)
		}
	}
	if !strings.Contains(last, "add hello") || !strings.Contains(last, "2 commits since the introduction") {
		t.Errorf("%s", last)
	}
	if scm := string(read(t, filepath.Join(dir, "channels.scm"))); !strings.Contains(scm, "release 2 of") || !strings.Contains(scm, "(name 'enclave-packages)") {
		t.Errorf("%s", scm)
	}
}
