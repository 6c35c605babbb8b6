package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sallyport/guix/channel/channeltest"
)

// A history is a channel to authenticate.
type history struct {
	name, variable            string // where the environment says that a mirror of it lies
	introduction, signer, end string
	reach                     float64       // how many times faster than guix git authenticate; 0: nothing is asked
	within                    time.Duration // and within which time; 0: nothing is asked
	runs                      int           // at most, of the peer
}

// mirrors are real channels, up to a commit, so that the figures of two days can be compared. Their mirrors are no part of the project.
var mirrors = []history{
	{"nonguix, 2,177 commits", "SALLYPORT_PEER_NONGUIX", "897c1a470da759236cc11798f4e0a5f7d4d59fbc", "2A393FFF68F4EF7A3D2912AF6F5120A022FBB2D5", "caa8c0b4646b993537be13c9bc819b3df68ab9b2", 4, 300 * time.Millisecond, 3},
	{"guix, 67,793 commits", "SALLYPORT_PEER_GUIX", "9edb3f66fd807b096b48283debdcddccfea34bad", "BBB02DDF2CEAF6A80D1DE643A2A06DF2A33A54FA", "4c4222f32a2906b7bcab74fab70ff2c2f152e8eb", 20, 0, 1},
}

// states is how far the history grows that is made for this.
const states = 2000

// channels authenticates a history that is made here, and real ones where there is a mirror.
func channels(p *peer, bin, temp string, runs int) error {
	fmt.Println()
	w, err := channeltest.NewWorld(rand.Reader)
	if err != nil {
		return err
	}
	ends, made := channeltest.Growing(w, states)
	made.End = ends[len(ends)-1]
	made.Refs["refs/heads/end"] = made.End
	dir := filepath.Join(temp, "channel")
	if err := made.Write(dir); err != nil {
		return err
	}
	// As a clone would have it. Ours reads either.
	if out, err := exec.Command("git", "-C", dir, "repack", "-a", "-d", "-q").CombinedOutput(); err != nil {
		fmt.Printf("(the history stays in loose objects: git repack: %v %s)\n", err, lastLine(out))
	}
	h := history{name: "a channel made here", introduction: made.Introduction.String(), signer: made.Signer.Hex(), end: made.End.String(), runs: runs}
	if err := h.measure(p, bin, temp, dir, runs); err != nil {
		return err
	}
	for _, h := range mirrors {
		mirror := os.Getenv(h.variable)
		if mirror == "" {
			fmt.Printf("authenticate %s: NOT MEASURED: %s does not name a bare repository of it\n", h.name, h.variable)
			continue
		}
		if err := h.measure(p, bin, temp, mirror, runs); err != nil {
			return err
		}
	}
	return nil
}

// cost is what a process took.
type cost struct {
	wall, cpu time.Duration
	memory    int64 // bytes, at most at once
}

func spend(said string, cmd *exec.Cmd) (cost, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begin := time.Now()
	err := cmd.Run()
	c := cost{wall: time.Since(begin)}
	if err != nil || !strings.Contains(out.String(), said) {
		return c, fmt.Errorf("%s: %v: %s", cmd.Args[0], err, lastLine(out.Bytes()))
	}
	c.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.memory = u.Maxrss << 10
	}
	return c, nil
}

// measure has both authenticate it, in turn, each time from nothing; then ours with what it has proven.
func (h history) measure(p *peer, bin, temp, repo string, runs int) error {
	home := filepath.Join(temp, "home")
	ours := func(args ...string) (cost, error) {
		cmd := exec.Command(bin, append([]string{"channel", "authenticate", "--json", "-r", repo, "--end", h.end}, append(args, h.introduction, h.signer)...)...)
		cmd.Env = []string{"HOME=" + home}
		return spend(`"type":"authenticated"`, cmd)
	}
	inside := "/var/tmp/sallyport-bench-channel"
	var theirs func() (cost, error)
	why := p.why
	if p.root != "" {
		// Guix writes into the repository.
		host := filepath.Join(p.root, inside)
		if err := os.RemoveAll(host); err != nil {
			return err
		}
		defer os.RemoveAll(host)
		if out, err := exec.Command("cp", "-r", repo, host).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, lastLine(out))
		}
		// A mirror need not have one, and libgit2 wants it.
		if err := os.WriteFile(filepath.Join(host, "config"), []byte("[core]\n\trepositoryformatversion = 0\n\tbare = true\n"), 0o644); err != nil {
			return err
		}
		theirs = func() (cost, error) {
			cache := inside + ".home"
			defer os.RemoveAll(filepath.Join(p.root, cache))
			if err := os.RemoveAll(filepath.Join(p.root, cache)); err != nil {
				return cost{}, err
			}
			return spend("successfully authenticated", exec.Command(p.tool, "run", "env", "HOME="+cache, "guix", "git", "authenticate", "-r", inside, "--end="+h.end, h.introduction, h.signer))
		}
	}
	var a, b []cost
	var ratios []float64
	for i := range max(min(runs, h.runs), 1) {
		x, err := ours("--no-cache")
		if err != nil {
			return err
		}
		if i == 0 && h.runs > 1 { // a warm-up
			if x, err = ours("--no-cache"); err != nil {
				return err
			}
		}
		a = append(a, x)
		if theirs == nil {
			continue
		}
		y, err := theirs()
		if err != nil {
			return err
		}
		b, ratios = append(b, y), append(ratios, y.wall.Seconds()/x.wall.Seconds())
	}
	if _, err := ours(); err != nil {
		return err
	}
	warm, err := ours()
	if err != nil {
		return err
	}
	x := middle(a)
	fmt.Printf("%-44s %12s   %-28s ", "authenticate "+h.name, x.wall.Round(10*time.Millisecond), "guix git authenticate")
	if theirs == nil {
		fmt.Printf("NOT MEASURED: %s\n", why)
	} else {
		reach := ""
		if h.reach != 0 {
			reach = fmt.Sprintf("%.1fx", h.reach)
		}
		slices.Sort(ratios)
		fmt.Printf("%12s %7.1fx %8s\n", middle(b).wall.Round(10*time.Millisecond), ratios[len(ratios)/2], reach)
	}
	fmt.Printf("    ours: %s of processors, %d MB at most; with what was proven %s, %d MB", x.cpu.Round(10*time.Millisecond), x.memory>>20, warm.wall.Round(time.Millisecond), warm.memory>>20)
	if h.within != 0 {
		fmt.Printf("; reach: under %s", h.within)
	}
	if theirs != nil {
		y := middle(b)
		fmt.Printf("; peer: %s, %d MB", y.cpu.Round(10*time.Millisecond), y.memory>>20)
	}
	fmt.Println()
	return nil
}

// middle is the cost of median time.
func middle(cs []cost) cost {
	cs = slices.Clone(cs)
	slices.SortFunc(cs, func(x, y cost) int { return int(x.wall - y.wall) })
	return cs[len(cs)/2]
}
