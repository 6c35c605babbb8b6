package build

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/guix/derivation"
	"sallyport/guix/storepath"
	"sallyport/internal/inside/build/sandbox"
)

// What personality(2) calls them.
const (
	perLinux32      = 0x0008
	addrNoRandomize = 0x0040000
)

// systems are the derivations' systems that a machine runs itself, with the personality each has there.
func systems(goarch string) map[string]uint32 {
	switch goarch {
	case "amd64":
		return map[string]uint32{"x86_64-linux": addrNoRandomize, "i686-linux": addrNoRandomize | perLinux32}
	case "arm64":
		return map[string]uint32{"aarch64-linux": addrNoRandomize, "armhf-linux": addrNoRandomize | perLinux32}
	}
	return nil
}

// Run builds job. Its error is trust.Refusals for outputs that were judged and refused, a [*Failure] for a builder that did not
// succeed, ctx's error if that ended the build, and otherwise what is wrong with this machine. The result is nil only if the builder was not
// begun; with an error it tells of strays but has no outputs, and nothing to close.
func Run(ctx context.Context, job Job) (result *Result, err error) {
	outputs, err := job.check()
	if err != nil {
		return nil, err
	}
	d := job.Derivation
	if strings.HasPrefix(d.Builder, "builtin:") {
		return nil, job.failure(CodeBuiltin, "the builder %q exists only in the daemon", d.Builder)
	}
	personality, ok := systems(runtime.GOARCH)[d.System]
	if !ok {
		return nil, job.failure(CodeSystem, "needs a machine of kind %q; this one runs %s", d.System, strings.Join(slices.Sorted(maps.Keys(systems(runtime.GOARCH))), ", "))
	}
	rules, err := job.rules(outputs)
	if err != nil {
		return nil, err
	}

	s, err := takeSlot(job.WorkDir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil {
			return
		}
		if releaseErr := s.release(); releaseErr != nil {
			err = errors.Join(err, releaseErr)
		}
		if result != nil {
			result.slot = nil
		}
	}()
	l, err := newLayout(s, &job, d.IsFixed())
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := l.graphs(&job); err != nil {
		return nil, err
	}
	for _, o := range outputs {
		l.want.add(strings.TrimPrefix(o.path.String(), "/"), false)
	}

	result = &Result{slot: s}
	exit, runErr := sandbox.Run(ctx, &sandbox.Spec{
		Root:           l.root,
		Mounts:         l.mounts,
		Program:        d.Builder,
		Store:          storepath.Dir,
		Args:           append([]string{path.Base(d.Builder)}, d.Args...),
		Env:            job.environment(l.guestDir),
		Dir:            l.guestDir,
		UID:            job.UID,
		GID:            job.GID,
		Loopback:       !d.IsFixed(),
		Terminals:      l.pts,
		Personality:    personality,
		UserNamespaces: job.UserNamespaces,
	}, sandbox.Options{
		Executable: job.Executable,
		Log:        job.Log,
		Limits:     sandbox.Limits{Time: max(job.Timeout, 0), Silence: max(job.MaxSilent, 0), Log: max(job.MaxLog, 0)},
	})
	if exit == nil {
		return nil, runErr
	}
	result.LogBytes = exit.LogBytes
	strayErr := result.findStrays(l, exit)
	if runErr != nil {
		return result, runErr
	}
	if strayErr != nil {
		return result, strayErr
	}
	if err := job.exitFailure(exit); err != nil {
		return result, err
	}
	made, err := job.judge(l, filepath.Join(s.dir, outName), outputs, rules)
	if err != nil {
		return result, err
	}
	result.Outputs = made
	return result, nil
}

// findStrays looks at everything outside the build directory and the outputs.
func (r *Result) findStrays(l *layout, exit *sandbox.Exit) error {
	var shmErr error
	if exit.Shm != nil {
		names, err := exit.Shm.Readdirnames(-1)
		for _, n := range names {
			r.stray("/dev/shm/" + n)
		}
		shmErr = errors.Join(err, exit.Shm.Close())
	}
	if !l.root0 {
		// They were the builder's, who may have shut them.
		for _, d := range []*dir{l.rootFD, l.store} {
			if err := unix.Fchmod(d.fd, 0o700); err != nil {
				return errors.Join(shmErr, d.fail("chmod", ".", err))
			}
		}
	}
	err := r.strays(l.rootFD, "", l.want)
	slices.Sort(r.Strays)
	return errors.Join(shmErr, err)
}

func (job *Job) failure(code, format string, args ...any) *Failure {
	return &Failure{Code: code, Derivation: job.Path, Detail: fmt.Sprintf(format, args...)}
}

// exitFailure returns what the end of the builder means, nil if it succeeded.
func (job *Job) exitFailure(exit *sandbox.Exit) error {
	switch exit.Cause {
	case sandbox.TimedOut:
		return job.failure(CodeTimeout, "ran for longer than %v", job.Timeout)
	case sandbox.Silent:
		return job.failure(CodeSilent, "wrote nothing to its log for %v", job.MaxSilent)
	case sandbox.LogTooLong:
		return job.failure(CodeLog, "wrote more than %d bytes to its log", job.MaxLog)
	case sandbox.NotExecuted:
		return job.failure(CodeNotExecuted, "%s", exit.Detail)
	}
	switch status := exit.Status; {
	case status.Signaled():
		f := job.failure(CodeSignal, "the builder was killed by signal %d (%v)", int(status.Signal()), status.Signal())
		f.Signal = status.Signal()
		return f
	case status.ExitStatus() != 0:
		f := job.failure(CodeExit, "the builder failed with exit code %d", status.ExitStatus())
		f.Status = status.ExitStatus()
		return f
	}
	return nil
}

// An output is one of the derivation's, with its path parsed.
type output struct {
	derivation.Output
	path storepath.Path
}

// check fills in what the job leaves open and refuses what no derivation that was verified can bring about.
func (job *Job) check() ([]output, error) {
	if job.Derivation == nil || job.StoreDir == "" || job.WorkDir == "" {
		return nil, errors.New("build: a job needs a derivation, a store directory and a work directory")
	}
	if !job.Path.IsDerivation() {
		return nil, fmt.Errorf("build: %q is no derivation's path", job.Path)
	}
	for _, dir := range []*string{&job.StoreDir, &job.WorkDir} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return nil, err
		}
		*dir = abs
	}
	job.Timeout = orDefault(job.Timeout, DefaultTimeout)
	job.MaxSilent = orDefault(job.MaxSilent, DefaultMaxSilent)
	job.MaxLog = orDefault(job.MaxLog, DefaultMaxLog)
	job.UID = orDefault(job.UID, DefaultUID)
	job.GID = orDefault(job.GID, DefaultGID)
	if job.UID < 0 || job.GID < 0 || job.Cores < 0 {
		return nil, errors.New("build: a negative number in a job")
	}

	job.Inputs = slices.Clone(job.Inputs)
	slices.SortFunc(job.Inputs, storepath.Path.Compare)
	job.Inputs = slices.Compact(job.Inputs)
	isInput := make(map[storepath.Path]bool, len(job.Inputs))
	for _, p := range job.Inputs {
		if p.IsZero() {
			return nil, errors.New("build: an input without a path")
		}
		isInput[p] = true
	}
	for _, text := range job.Derivation.Sources {
		p, err := storepath.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("build: source of %s: %w", job.Path, err)
		}
		if !isInput[p] {
			return nil, fmt.Errorf("build: the source %s of %s is not among its inputs", p, job.Path)
		}
	}
	if len(job.Derivation.Outputs) == 0 {
		return nil, fmt.Errorf("build: %s has no outputs", job.Path)
	}
	var outputs []output
	for _, o := range job.Derivation.Outputs {
		p, err := storepath.Parse(o.Path)
		if err != nil {
			return nil, fmt.Errorf("build: output %s of %s: %w", o.ID, job.Path, err)
		}
		if isInput[p] {
			return nil, fmt.Errorf("build: %s is an output of %s and among its inputs", p, job.Path)
		}
		isInput[p] = true // outputs differ
		outputs = append(outputs, output{o, p})
	}
	slices.SortFunc(outputs, func(a, b output) int { return strings.Compare(a.ID, b.ID) })
	return outputs, nil
}

func orDefault[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// environment is the builder's, sorted by name as the daemon has it.
func (job *Job) environment(buildDir string) []string {
	env := map[string]string{
		"PATH":            "/path-not-set",
		"HOME":            "/homeless-shelter",
		"NIX_STORE":       storepath.Dir,
		"NIX_BUILD_CORES": strconv.Itoa(job.Cores),
	}
	for _, v := range job.Derivation.Env {
		env[v.Name] = v.Value
	}
	for _, name := range []string{"NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"} {
		env[name] = buildDir
	}
	if job.Derivation.IsFixed() {
		names, _ := job.Derivation.Lookup("impureEnvVars")
		for _, name := range words(names) {
			env[name] = ""
			if job.Getenv != nil {
				env[name] = job.Getenv(name)
			}
		}
	}
	block := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		block = append(block, name+"="+env[name])
	}
	return block
}

// words splits as the daemon splits attributes.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' })
}
