package archives

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/queue-runtime/queue/tools/internal/command"
	"github.com/queue-runtime/queue/tools/internal/releasing"
)

// FromTag builds the archives of the version that the work tree at repo is the tag
// of.
func FromTag(ctx context.Context, repo, version, dir string, progress func(step string)) error {
	in := command.In{Dir: repo}
	head, err := in.Output(ctx, "git", "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	tagged, err := in.Output(ctx, "git", "rev-parse", "--verify", "--quiet", "refs/tags/"+version+"^{commit}")
	if err != nil || tagged != head {
		return fmt.Errorf("this is not a work tree of %s: git checkout %s first", version, version)
	}
	changes, err := in.Output(ctx, "git", "status", "--porcelain")
	if err != nil {
		return err
	}
	if changes != "" {
		return fmt.Errorf("the work tree has changes that %s has not:\n%s", version, changes)
	}
	text, err := in.Output(ctx, "git", "show", "--no-patch", "--format=%cI", "HEAD")
	if err != nil {
		return err
	}
	day, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return err
	}
	return Build(ctx, Options{Source: repo, Version: version, Commit: head, Time: day, Dir: dir, Platforms: Platforms}, progress)
}

// CheckReproducible builds the archive for this platform twice, in two folders, the
// second without git, and compares all files. With QRT_SOAK=1 the second
// build has an empty build cache and so compiles everything. It also runs the
// command.
func CheckReproducible(ctx context.Context, r *releasing.Release, scratch string, progress func(step string)) error {
	env, err := r.Environment(ctx)
	if err != nil {
		return err
	}
	o := Options{
		Source: r.Clone, Version: r.Version, Commit: r.Commit, Time: r.Time, Env: env,
		Dir: filepath.Join(scratch, "first"), Platforms: []Platform{{runtime.GOOS, runtime.GOARCH}},
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
	if os.Getenv("QRT_SOAK") == "1" {
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
