package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/envelope"
)

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
			a.print(r, func(s *display.Screen) {
				s.Printf("qrt %s (%s, %s, %s)\n", s.Bold(r.Version), r.Envelope, r.Go, r.Platform)
			})
			return nil
		},
	}
}

func version() versionReport {
	r := versionReport{
		Version:  "(devel)",
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Envelope: envelope.Marker + " version 1",
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
