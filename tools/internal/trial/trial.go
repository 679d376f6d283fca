// Package trial uses a release as its users do: in empty folders, with an empty
// module cache, without the repository.
package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/queue-runtime/queue/tools/internal/command"
	"github.com/queue-runtime/queue/tools/internal/releasing"
)

// commandModule is the folder of the module that is installed as a program.
const commandModule = "cmd/qrt"

// Trial is a release and a place to try it.
type Trial struct {
	release  *releasing.Release
	scratch  string
	in       command.In
	progress func(step string)
}

// Run tries everything that this package knows of: it installs the command and uses
// it, builds and vets a program for each module, and runs the README's first
// program. It makes its folders below scratch. progress is called with each step.
func Run(ctx context.Context, r *releasing.Release, scratch string, progress func(step string)) error {
	env, err := r.Environment(ctx)
	if err != nil {
		return err
	}
	t := &Trial{release: r, scratch: scratch, progress: progress}
	// With -trimpath, objects do not depend on the folder of the module cache, so
	// that the build cache has those of other modules.
	t.in = command.In{Env: append(env,
		"GOMODCACHE="+filepath.Join(scratch, "modules"),
		"GOBIN="+filepath.Join(scratch, "bin"),
		"GOFLAGS=-mod=mod -modcacherw -trimpath",
	)}
	if err := t.install(ctx); err != nil {
		return err
	}
	for _, m := range r.Modules {
		if m.Dir == commandModule {
			continue
		}
		if err := t.build(ctx, m); err != nil {
			return err
		}
	}
	return t.first(ctx)
}

// folder makes an empty folder.
func (t *Trial) folder(name string) (string, error) {
	dir := filepath.Join(t.scratch, "programs", filepath.FromSlash(name))
	return dir, os.MkdirAll(dir, 0o750)
}

// install installs the command by its version and sends a message with it.
func (t *Trial) install(ctx context.Context) error {
	version := t.release.Version
	dir, err := t.folder("installed")
	if err != nil {
		return err
	}
	in := t.in.At(dir).With("HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_STATE_HOME="+dir)
	target := t.modulePath(commandModule) + "@" + version
	t.progress("go install " + target)
	if _, err := t.in.At(dir).Output(ctx, "go", "install", target); err != nil {
		return err
	}
	qrt := filepath.Join(t.scratch, "bin", "qrt")
	if runtime.GOOS == "windows" {
		qrt += ".exe"
	}
	for _, args := range [][]string{{"version"}, {"--version"}} {
		out, err := in.Output(ctx, qrt, args...)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(out, "qrt "+version+" ") {
			return fmt.Errorf("qrt %s prints %q, want a line with %s", args[0], out, version)
		}
		t.progress("qrt " + args[0] + ": " + out)
	}
	const body = "sent by an installed command"
	if _, err := in.Output(ctx, qrt, "keys", "new"); err != nil {
		return err
	}
	if _, err := in.Pipe(ctx, body, qrt, "send", "orders"); err != nil {
		return err
	}
	out, err := in.Output(ctx, qrt, "receive", "orders")
	if err != nil {
		return err
	}
	if !strings.Contains(out, body) {
		return fmt.Errorf("qrt receive prints %q, want what was sent", out)
	}
	t.progress("qrt keys new, send, receive: the message came back")
	return nil
}

func (t *Trial) modulePath(dir string) string {
	for _, m := range t.release.Modules {
		if m.Dir == dir {
			return m.Path
		}
	}
	return ""
}

// build builds and vets a program that imports every package of a module that
// programs can import.
func (t *Trial) build(ctx context.Context, m releasing.Module) error {
	packages, err := t.packages(ctx, m)
	if err != nil {
		return err
	}
	var program strings.Builder
	program.WriteString("package main\n\nimport (\n")
	for _, p := range packages {
		fmt.Fprintf(&program, "\t_ %q\n", p)
	}
	program.WriteString(")\n\nfunc main() {}\n")
	t.progress(fmt.Sprintf("a program with the %d packages of %s", len(packages), m.Path))
	in, err := t.program(ctx, path.Join("imports", path.Base(m.Path)), program.String(), m)
	if err != nil {
		return err
	}
	if _, err := in.Output(ctx, "go", "build", "-o", os.DevNull, "."); err != nil {
		return err
	}
	_, err = in.Output(ctx, "go", "vet", ".")
	return err
}

// packages lists the packages of a module that a program can import.
func (t *Trial) packages(ctx context.Context, m releasing.Module) ([]string, error) {
	in := t.in.At(filepath.Join(t.release.Clone, m.Dir))
	out, err := in.Output(ctx, "go", "list", "-f", `{{if and .GoFiles (ne .Name "main")}}{{.ImportPath}}{{end}}`, "./...")
	if err != nil {
		return nil, err
	}
	var list []string
	for _, p := range strings.Fields(out) {
		if !strings.Contains("/"+p+"/", "/internal/") {
			list = append(list, p)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no package that a program can import", m.Path)
	}
	return list, nil
}

// program writes a program into a folder of its own and requires a module.
func (t *Trial) program(ctx context.Context, name, text string, m releasing.Module) (command.In, error) {
	dir, err := t.folder(name)
	if err != nil {
		return t.in, err
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(text), 0o600); err != nil {
		return t.in, err
	}
	in := t.in.At(dir)
	if _, err := in.Output(ctx, "go", "mod", "init", "example.org/"+path.Base(dir)); err != nil {
		return in, err
	}
	_, err = in.Output(ctx, "go", "get", m.Path+"@"+t.release.Version)
	return in, err
}

// first runs the first program of the README and compares what it prints.
func (t *Trial) first(ctx context.Context) error {
	readme, err := os.ReadFile(filepath.Join(t.release.Clone, "README.md"))
	if err != nil {
		return err
	}
	program, want, err := firstProgram(string(readme))
	if err != nil {
		return err
	}
	t.progress("the README's first program")
	in, err := t.program(ctx, "first", program, t.release.Modules[0])
	if err != nil {
		return err
	}
	got, err := in.Output(ctx, "go", "run", ".")
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("the README's first program prints %q, and the README says %q", got, want)
	}
	return nil
}

// firstProgram cuts the first Go block out of a document, and the block of text
// after it, which is what the program prints.
func firstProgram(readme string) (program, output string, err error) {
	program, rest, found := block(readme, "go")
	output, _, after := block(rest, "text")
	if !found || !after {
		return "", "", errors.New("README.md needs a program in a Go block and what it prints in a text block after it")
	}
	return program, strings.TrimSpace(output), nil
}

// block finds the first fenced block of a language and returns what follows it, too.
func block(text, language string) (content, rest string, found bool) {
	_, text, found = strings.Cut(text, "```"+language+"\n")
	if !found {
		return "", "", false
	}
	return strings.Cut(text, "```\n")
}
