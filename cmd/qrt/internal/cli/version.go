package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/envelope"
)

// release and commit are set by the linker in the archives of a release
// (tools/internal/archives). Elsewhere they are empty, and the go command's build
// information says what is known.
var release, commit string

// versionReport is the output of version.
type versionReport struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Envelope string `json:"envelope"` // the version that is sealed with
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show the version of qrt",
		Example: example(`qrt version --json`),
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r := version()
			a.print(r, func(s *display.Screen) { s.Printf("%s\n", r.line(s.Bold(r.Version))) })
			return nil
		},
	}
}

// shortCommit is how much of a commit's name a line shows.
const shortCommit = 12

// line is the report in one line. name is the version as it is to be shown.
func (r versionReport) line(name string) string {
	from := ""
	if r.Revision != "" {
		from = "commit " + r.Revision[:min(len(r.Revision), shortCommit)]
		if r.Modified {
			from += " with changes"
		}
		from += ", "
	}
	return fmt.Sprintf("qrt %s (%s%s, %s, %s)", name, from, r.Envelope, r.Go, r.Platform)
}

func version() versionReport {
	r := versionReport{
		Version:  "(devel)",
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Envelope: envelope.Marker + " version 1",
	}
	if release != "" {
		r.Version, r.Revision = release, commit
		return r
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return r
	}
	if info.Main.Version != "" {
		r.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			r.Revision = s.Value
		case "vcs.modified":
			r.Modified = s.Value == "true"
		}
	}
	return r
}
