package archives

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/queue-runtime/queue/tools/internal/command"
	"github.com/queue-runtime/queue/tools/internal/releasing"
)

// FromTag builds the archives of a version that is tagged in the repository at repo. Its
// modules need not be published.
func FromTag(ctx context.Context, repo, version, dir string, progress func(step string)) (err error) {
	scratch, err := os.MkdirTemp("", "queue-tag-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(scratch); err == nil {
			err = rerr
		}
	}()
	r, err := releasing.Open(ctx, repo, scratch, version)
	if err != nil {
		return err
	}
	env, err := r.Environment(ctx)
	if err != nil {
		return err
	}
	return Build(ctx, Options{Source: r.Clone, Version: version, Commit: r.Commit, Time: r.Time, Env: env, Dir: dir, Platforms: Platforms}, progress)
}

// CheckReproducible builds the archive for this platform twice, in two folders, the
// second without git, and compares all files. With QRT_SOAK=1 it builds those of all
// platforms, and the second build has an empty build cache and so compiles everything.
// It also runs the command.
func CheckReproducible(ctx context.Context, r *releasing.Release, scratch string, progress func(step string)) error {
	env, err := r.Environment(ctx)
	if err != nil {
		return err
	}
	o := Options{
		Source: r.Clone, Version: r.Version, Commit: r.Commit, Time: r.Time, Env: env,
		Dir: filepath.Join(scratch, "first"), Platforms: []Platform{{runtime.GOOS, runtime.GOARCH}},
	}
	soak := os.Getenv("QRT_SOAK") == "1"
	if soak {
		this := o.Platforms[0]
		o.Platforms = append(o.Platforms, slices.DeleteFunc(slices.Clone(Platforms), func(p Platform) bool { return p == this })...)
	}
	if err := Build(ctx, o, progress); err != nil {
		return err
	}
	if err := o.checkVersion(ctx, filepath.Join(scratch, "program")); err != nil {
		return err
	}
	again := o
	again.Source = filepath.Join(scratch, "elsewhere", "tree")
	again.Dir = filepath.Join(scratch, "second")
	if soak {
		again.Env = append(again.Env, "GOCACHE="+filepath.Join(scratch, "cache"))
	}
	var in command.In
	if _, err := in.Output(ctx, "git", "clone", "--quiet", r.Clone, again.Source); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(again.Source, ".git")); err != nil {
		return err
	}
	if err := Build(ctx, again, progress); err != nil {
		return err
	}
	return equalFolders(o.Dir, again.Dir)
}

// checkVersion runs the command that an archive holds.
func (o Options) checkVersion(ctx context.Context, program string) error {
	if err := o.compile(ctx, o.Platforms[0], program); err != nil {
		return err
	}
	var in command.In
	out, err := in.Output(ctx, program, "version")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(out, "qrt "+o.Version+" (commit "+o.Commit[:12]+",") {
		return fmt.Errorf("the command of the archive says %q, want version %s and commit %s", out, o.Version, o.Commit[:12])
	}
	return nil
}

// equalFolders fails unless both folders hold the same files, at least one.
func equalFolders(a, b string) error {
	list, err := os.ReadDir(a)
	if err != nil {
		return err
	}
	others, err := os.ReadDir(b)
	if err != nil {
		return err
	}
	if len(list) == 0 || len(list) != len(others) {
		return fmt.Errorf("two builds of one commit made %d and %d files", len(list), len(others))
	}
	for _, f := range list {
		one, err := os.ReadFile(filepath.Join(a, f.Name()))
		if err != nil {
			return err
		}
		other, err := os.ReadFile(filepath.Join(b, f.Name()))
		if err != nil {
			return err
		}
		if !bytes.Equal(one, other) {
			return fmt.Errorf("two builds of one commit differ in %s", f.Name())
		}
	}
	return nil
}
