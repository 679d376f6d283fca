// Package releasing makes the commit of a release.
//
// The main branch requires its own modules at v0.0.0 and replaces them by folders,
// so that a change to several modules is one commit. Other modules cannot build that:
// replace lines count in the main module only. The commit of a release drops them,
// requires the modules of this repository at its version, and writes each go.sum.
// It has the tags of all modules and is never merged.
//
// A go.sum names the hashes of modules that are not published yet. They are
// computed from the tree itself, in the order in which modules require each other,
// and served by a proxy in a folder.
package releasing

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"github.com/queue-runtime/queue/internal/archtest"
	"github.com/queue-runtime/queue/tools/internal/command"
	"github.com/queue-runtime/queue/tools/internal/modproxy"
)

// Release is a version of all modules, in a clone of the repository.
type Release struct {
	Version string
	Commit  string    // of the release, in the clone
	Base    string    // the commit that it was made from
	Time    time.Time // of Base; the commit of the release has it too
	Modules []Module  // in the order of release
	Clone   string    // folder of the clone, at Commit, with the tags
	Proxy   modproxy.Proxy
	// Uncommitted lists the changes of the work tree, one a line, that are not part
	// of the release. Empty if there are none.
	Uncommitted string

	scratch  string
	siblings map[string]bool // paths of every module of the repository
	git      command.In
}

// Module is one module of a release.
type Module struct {
	Path string
	Dir  string // slash-separated, "." for the root
	Tag  string
	Hash string // of its zip file, as go.sum writes it
}

// Prepare makes the release of HEAD in new folders below scratch. The repository at
// repo is only read. progress is called with each step.
func Prepare(ctx context.Context, repo, scratch, version string, progress func(step string)) (*Release, error) {
	r := newRelease(scratch, version)
	if err := r.clone(ctx, repo, "HEAD"); err != nil {
		return nil, err
	}
	tree, err := archtest.Load(os.DirFS(r.Clone))
	if err != nil {
		return nil, err
	}
	tags, err := command.In{Dir: repo}.Output(ctx, "git", "tag", "--list")
	if err != nil {
		return nil, err
	}
	if err := checkVersion(tree.Root().Path, version, strings.Fields(tags)); err != nil {
		return nil, err
	}
	if err := r.writeChangelog(); err != nil {
		return nil, err
	}
	order, err := tree.ReleaseOrder()
	if err != nil {
		return nil, err
	}
	r.know(tree)
	for _, m := range tree.Modules {
		if err := pin(filepath.Join(r.Clone, m.File()), m, r.siblings, version); err != nil {
			return nil, err
		}
	}
	env, err := r.Environment(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range order {
		progress("go.sum of " + m.Path)
		if err := r.publish(ctx, m, command.In{Dir: filepath.Join(r.Clone, m.Dir), Env: env}); err != nil {
			return nil, err
		}
	}
	return r, r.commit(ctx)
}

// Open takes up a version that was tagged in the repository at repo, in new folders
// below scratch. Its modules need not be published: the proxy has them. The repository
// is only read.
func Open(ctx context.Context, repo, scratch, version string) (*Release, error) {
	r := newRelease(scratch, version)
	commit, err := command.In{Dir: repo}.Output(ctx, "git", "rev-parse", "--verify", "--quiet", "refs/tags/"+version+"^{commit}")
	if err != nil {
		return nil, fmt.Errorf("there is no tag %s here: fetch it, or make it with make release VERSION=%s TAG=1", version, version)
	}
	if err := r.clone(ctx, repo, commit); err != nil {
		return nil, err
	}
	r.Commit = commit
	tree, err := archtest.Load(os.DirFS(r.Clone))
	if err != nil {
		return nil, err
	}
	order, err := tree.ReleaseOrder()
	if err != nil {
		return nil, err
	}
	r.know(tree)
	for _, m := range order {
		if err := r.add(m, commit); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func newRelease(scratch, version string) *Release {
	return &Release{
		Version:  version,
		scratch:  scratch,
		Clone:    filepath.Join(scratch, "release"),
		Proxy:    modproxy.Proxy{Dir: filepath.Join(scratch, "proxy")},
		siblings: make(map[string]bool),
	}
}

// know notes the modules of the repository.
func (r *Release) know(tree *archtest.Tree) {
	for _, m := range tree.Modules {
		r.siblings[m.Path] = true
	}
}

// clone makes the clone at a commit of repo, and reads what that commit and the work
// tree are.
func (r *Release) clone(ctx context.Context, repo, commit string) error {
	in := command.In{Dir: repo}
	if _, err := in.Output(ctx, "git", "rev-parse", "--verify", commit); err != nil {
		return fmt.Errorf("a release is made from a commit, and this folder has none: %w", err)
	}
	top, err := in.Output(ctx, "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	in = in.At(top)
	if r.Uncommitted, err = in.Output(ctx, "git", "status", "--porcelain"); err != nil {
		return err
	}
	if r.Base, err = in.Output(ctx, "git", "rev-parse", commit); err != nil {
		return err
	}
	day, err := in.Output(ctx, "git", "show", "--no-patch", "--format=%cI", commit)
	if err != nil {
		return err
	}
	if r.Time, err = time.Parse(time.RFC3339, day); err != nil {
		return err
	}
	if _, err := in.Output(ctx, "git", "clone", "--quiet", "--no-checkout", top, r.Clone); err != nil {
		return err
	}
	name, mail := author(ctx, in)
	r.git = command.In{Dir: r.Clone, Env: []string{
		"GIT_AUTHOR_NAME=" + name, "GIT_AUTHOR_EMAIL=" + mail, "GIT_AUTHOR_DATE=" + day,
		"GIT_COMMITTER_NAME=" + name, "GIT_COMMITTER_EMAIL=" + mail, "GIT_COMMITTER_DATE=" + day,
	}}
	_, err = r.git.Output(ctx, "git", "checkout", "--quiet", "--detach", r.Base)
	return err
}

// author is the author that git knows in a repository, which the clone does not
// inherit. A trial needs none, so there is a name for it; Tag insists on one.
func author(ctx context.Context, in command.In) (name, mail string) {
	name, err := in.Output(ctx, "git", "config", "user.name")
	if err == nil {
		mail, err = in.Output(ctx, "git", "config", "user.email")
	}
	if err != nil {
		return "release-check", "release-check@invalid"
	}
	return name, mail
}

func (r *Release) writeChangelog() error {
	name := filepath.Join(r.Clone, changelogFile)
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	dated, err := datedChangelog(string(text), r.Version, r.Time)
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(dated), 0o600)
}

// publish writes the go.mod and go.sum of one module and adds it to the proxy.
func (r *Release) publish(ctx context.Context, m *archtest.Module, in command.In) error {
	if _, err := in.Output(ctx, "go", "mod", "tidy"); err != nil {
		return err
	}
	if _, err := r.git.Output(ctx, "git", "add", "--all"); err != nil {
		return err
	}
	tree, err := r.git.Output(ctx, "git", "write-tree")
	if err != nil {
		return err
	}
	return r.add(m, tree)
}

// add adds a module of a tree of the clone to the proxy and to the list.
func (r *Release) add(m *archtest.Module, tree string) error {
	source := modproxy.Source{Repository: r.Clone, Tree: tree, Dir: strings.TrimPrefix(path.Clean(m.Dir), "."), Time: r.Time}
	hash, err := r.Proxy.Add(module.Version{Path: m.Path, Version: r.Version}, source)
	if err != nil {
		return err
	}
	r.Modules = append(r.Modules, Module{Path: m.Path, Dir: m.Dir, Tag: tagOf(m.Dir, r.Version), Hash: hash})
	return nil
}

// commit makes the commit and the tags in the clone.
func (r *Release) commit(ctx context.Context) error {
	steps := [][]string{
		{"add", "--all"},
		{"commit", "--quiet", "--message", "release: " + r.Version + "\n\nMade from " + r.Base + " by make release. Not to be merged."},
	}
	for _, m := range r.Modules {
		steps = append(steps, []string{"tag", "--annotate", "--message", m.Path + " " + r.Version, m.Tag})
	}
	for _, args := range steps {
		if _, err := r.git.Output(ctx, "git", args...); err != nil {
			return err
		}
	}
	var err error
	r.Commit, err = r.git.Output(ctx, "git", "rev-parse", "HEAD")
	return err
}

// Tag brings the commit and its tags into the repository at repo. It pushes
// nothing.
func (r *Release) Tag(ctx context.Context, repo string) error {
	in := command.In{Dir: repo}
	if r.Uncommitted != "" {
		return fmt.Errorf("commit or put away these changes first, they would not be part of the release:\n%s", r.Uncommitted)
	}
	for _, key := range []string{"user.name", "user.email"} {
		if _, err := in.Output(ctx, "git", "config", key); err != nil {
			return fmt.Errorf("a release has an author: set %s with git config", key)
		}
	}
	args := []string{"fetch", "--quiet", "--no-tags", r.Clone}
	for _, m := range r.Modules {
		args = append(args, "refs/tags/"+m.Tag+":refs/tags/"+m.Tag)
	}
	_, err := in.Output(ctx, "git", args...)
	return err
}

// Environment is what the go command needs to find the modules of the release in
// the proxy. Other modules come from the module cache of this process if they are
// there, and otherwise from where this process gets them. Only the modules of
// this repository, which no checksum database knows yet, are exempt from it. They
// go into a module cache of the release: in that of this process they would
// pretend to be what is published later.
func (r *Release) Environment(ctx context.Context) ([]string, error) {
	var in command.In
	text, err := in.Output(ctx, "go", "env", "GOMODCACHE", "GOPROXY", "GOSUMDB", "GOTOOLCHAIN", "GONOSUMDB")
	if err != nil {
		return nil, err
	}
	values := strings.Split(text+"\n", "\n") // Output cuts off a last value that is empty
	cache, proxies, sums, toolchain, unchecked := values[0], values[1], values[2], values[3], values[4]
	own := ""
	for p := range r.siblings {
		if own == "" || len(p) < len(own) {
			own = p // the root, whose path is the prefix of all
		}
	}
	downloaded := modproxy.Proxy{Dir: filepath.Join(cache, "cache", "download")}
	return []string{
		"GOWORK=off",
		"GOMODCACHE=" + filepath.Join(r.scratch, "modules"),
		"GOPROXY=" + join(r.Proxy.URL(), downloaded.URL(), proxies),
		"GONOSUMDB=" + join(unchecked, own),
		"GOSUMDB=" + sums,
		"GOTOOLCHAIN=" + toolchain,
		// What is private here must not send the go command past the proxy.
		"GOENV=off", "GOPRIVATE=", "GONOPROXY=",
		"GOFLAGS=-mod=mod -modcacherw",
	}, nil
}

// join joins the lists that are not empty.
func join(lists ...string) string {
	var filled []string
	for _, l := range lists {
		if l != "" {
			filled = append(filled, l)
		}
	}
	return strings.Join(filled, ",")
}
