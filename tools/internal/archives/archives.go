// Package archives builds what a release offers for download: for each platform an
// archive with the command, its licence, its man pages and the completions for
// shells; a list of what is in the command (SBOM, in CycloneDX); and checksums of
// all files.
//
// The same commit gives the same bytes, in any folder and with or without git,
// if the version of Go is the same: paths are trimmed, version and commit are
// passed to the linker, and times are those of the commit.
package archives

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/queue-runtime/queue/tools/internal/command"
)

// cli is the package whose variables hold version and commit.
const cli = "github.com/queue-runtime/queue/cmd/qrt/internal/cli"

// sbomTool is the variable that names the program that lists what is in a binary
// (cyclonedx-gomod); the Makefile installs it and sets the variable.
const sbomTool = "CYCLONEDX_GOMOD"

// Platform is a value of GOOS and one of GOARCH.
type Platform struct{ OS, Arch string }

// Platforms are those that releases have archives for.
var Platforms = []Platform{
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"linux", "amd64"}, {"linux", "arm64"},
	{"windows", "amd64"},
}

// Options say what to build.
type Options struct {
	Source    string // folder of the tree
	Version   string
	Commit    string // that the tree is of
	Time      time.Time
	Env       []string   // NAME=value, added to the environment of the go command
	Dir       string     // folder for the files; made if it is not there
	Platforms []Platform // at least one
}

// Build writes the archives. It calls progress with each step.
func Build(ctx context.Context, o Options, progress func(step string)) error {
	tool := os.Getenv(sbomTool)
	if tool == "" {
		return errors.New("set " + sbomTool + " to the path of cyclonedx-gomod, or use make archives, which installs it")
	}
	if err := os.MkdirAll(o.Dir, 0o750); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "queue-archives-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch) //nolint:errcheck // the system empties its folder of temporary files
	pages, err := o.documents(ctx, scratch)
	if err != nil {
		return err
	}
	for _, p := range o.Platforms {
		name := strings.Join([]string{"qrt", o.Version, p.OS, p.Arch}, "_")
		progress("archive " + name)
		binary := filepath.Join(scratch, p.OS+"-"+p.Arch, p.program())
		if err := o.compile(ctx, p, binary); err != nil {
			return err
		}
		if err := p.archive(filepath.Join(o.Dir, name), o.Time, append(pages, entry{p.program(), binary, 0o755})); err != nil {
			return err
		}
		in := command.In{Dir: o.Source, Env: o.environment()}
		_, err := in.Output(ctx, tool, "bin", "-json", "-std", "-noserial", "-notimestamp", "-version", o.Version, "-output", filepath.Join(o.Dir, name+".cdx.json"), binary)
		if err != nil {
			return err
		}
	}
	return writeChecksums(o.Dir)
}

func (p Platform) program() string {
	if p.OS == "windows" {
		return "qrt.exe"
	}
	return "qrt"
}

// environment has every variable that the bytes of a build depend on.
func (o Options) environment() []string {
	return append(slices.Clone(o.Env),
		"GOWORK=off", "GOFLAGS=-modcacherw", "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off",
		"SOURCE_DATE_EPOCH="+strconv.FormatInt(o.Time.Unix(), 10))
}

// compile builds the command for a platform. The version control system is left
// out: what it says would depend on whether the tree is a clone.
func (o Options) compile(ctx context.Context, p Platform, binary string) error {
	in := command.In{Dir: filepath.Join(o.Source, "cmd", "qrt"), Env: o.environment()}
	_, err := in.With("GOOS="+p.OS, "GOARCH="+p.Arch).Output(ctx, "go", "build", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -X "+cli+".release="+o.Version+" -X "+cli+".commit="+o.Commit, "-o", binary, ".")
	return err
}

// documents makes the files that are the same for each platform.
func (o Options) documents(ctx context.Context, scratch string) ([]entry, error) {
	in := command.In{Dir: filepath.Join(o.Source, "cmd", "qrt"), Env: o.environment()}
	man := filepath.Join(scratch, "man")
	if _, err := in.Output(ctx, "go", "run", "-trimpath", "-buildvcs=false", "./internal/manpages", o.Version, man); err != nil {
		return nil, err
	}
	list := []entry{{"LICENSE", filepath.Join(o.Source, "LICENSE"), 0o644}}
	pages, err := os.ReadDir(man)
	if err != nil {
		return nil, err
	}
	for _, p := range pages {
		list = append(list, entry{"man/man1/" + p.Name(), filepath.Join(man, p.Name()), 0o644})
	}
	for shell, name := range map[string]string{"bash": "qrt.bash", "zsh": "_qrt", "fish": "qrt.fish", "powershell": "qrt.ps1"} {
		text, err := in.Output(ctx, "go", "run", "-trimpath", "-buildvcs=false", ".", "completion", shell)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(scratch, name)
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			return nil, err
		}
		list = append(list, entry{"completions/" + name, file, 0o644})
	}
	return list, nil
}

// checksumFile lists the SHA-256 of the other files, as sha256sum --check reads it.
const checksumFile = "SHA256SUMS"

func writeChecksums(dir string) error {
	files, err := os.ReadDir(dir) // sorted
	if err != nil {
		return err
	}
	var lines strings.Builder
	for _, f := range files {
		if f.Name() == checksumFile {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&lines, "%x  %s\n", sha256.Sum256(data), f.Name())
	}
	return os.WriteFile(filepath.Join(dir, checksumFile), []byte(lines.String()), 0o600)
}
