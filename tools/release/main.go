// Command release makes releases of this repository, and tries them.
//
//	release plan VERSION           says what a release of HEAD would be
//	release tag VERSION            makes its commit and tags in this repository; pushes nothing
//	release check VERSION          makes it in a scratch folder and uses it as its users do
//	release archives VERSION DIR   builds the archives of the command from this work tree
//	release notes VERSION          prints what CHANGELOG.md says of a version
//
// Run it at the root of the repository; make release, release-check and archives do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/queue-runtime/queue/tools/internal/archives"
	"github.com/queue-runtime/queue/tools/internal/releasing"
	"github.com/queue-runtime/queue/tools/internal/trial"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: release plan|tag|check|archives|notes VERSION [DIR]")
	}
	verb, version := args[0], args[1]
	switch {
	case verb == "archives" && len(args) == 3:
		dir, err := filepath.Abs(args[2])
		if err != nil {
			return err
		}
		return archives.FromTag(ctx, ".", version, dir, progress)
	case len(args) != 2:
		return fmt.Errorf("release %s takes no argument %q", verb, args[2])
	case verb == "notes":
		return notes(version)
	case verb == "plan", verb == "tag", verb == "check":
		return withRelease(ctx, verb, version)
	}
	return fmt.Errorf("unknown command %q: plan, tag, check, archives or notes", verb)
}

var start = time.Now()

// progress says what begins, and how long the run takes so far.
func progress(step string) {
	fmt.Printf("# %5.1f s  %s\n", time.Since(start).Seconds(), step)
}

func notes(version string) error {
	text, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	section, err := releasing.Section(string(text), version)
	if err == nil {
		fmt.Print(section)
	}
	return err
}

func withRelease(ctx context.Context, verb, version string) (err error) {
	scratch, err := os.MkdirTemp("", "queue-release-")
	if err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(scratch); err == nil {
			err = rerr
		}
	}()
	r, err := releasing.Prepare(ctx, ".", scratch, version, progress)
	if err != nil {
		return err
	}
	if r.Uncommitted != "" && verb != "tag" {
		fmt.Printf("uncommitted changes are not part of it:\n%s\n", r.Uncommitted)
	}
	switch verb {
	case "check":
		if err := trial.Run(ctx, r, filepath.Join(scratch, "trial"), progress); err != nil {
			return err
		}
		if err := checkTag(ctx, r, filepath.Join(scratch, "tag")); err != nil {
			return err
		}
		if err := archives.CheckReproducible(ctx, r, filepath.Join(scratch, "builds"), progress); err != nil {
			return err
		}
		progress(fmt.Sprintf("%d modules of %s can be installed", len(r.Modules), version))
		return nil
	case "tag":
		if err := r.Tag(ctx, "."); err != nil {
			return err
		}
	}
	describe(r, verb == "tag")
	return nil
}

// checkTag takes the release up from its tag, as archives are built, and compares.
func checkTag(ctx context.Context, r *releasing.Release, scratch string) error {
	progress("modules of the tag")
	tagged, err := releasing.Open(ctx, r.Clone, scratch, r.Version)
	if err != nil {
		return err
	}
	if tagged.Commit != r.Commit || !slices.Equal(tagged.Modules, r.Modules) {
		return fmt.Errorf("tag %s holds other modules than the release: %v, want %v", r.Version, tagged.Modules, r.Modules)
	}
	return nil
}

// describe prints a release, and what is left to do.
func describe(r *releasing.Release, tagged bool) {
	fmt.Printf("\n%s, made from %s of %s:\n\n", r.Version, r.Base, r.Time.UTC().Format(time.DateOnly))
	for _, m := range r.Modules {
		fmt.Printf("  %-24s %-48s %s\n", m.Tag, m.Path, m.Hash)
	}
	if !tagged {
		fmt.Printf("\nNothing was changed. make release VERSION=%s TAG=1 makes this commit and these tags here.\n", r.Version)
		return
	}
	fmt.Printf("\nThe tags are here, on commit %s. Publish them in one step, then take the changelog to the main branch:\n\n  git push --atomic origin", r.Commit)
	for _, m := range r.Modules {
		fmt.Printf(" %s", m.Tag)
	}
	fmt.Printf("\n  git checkout %s -- CHANGELOG.md && git commit -m 'release: changelog of %s'\n", r.Version, r.Version)
}
