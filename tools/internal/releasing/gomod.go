package releasing

import (
	"os"

	"golang.org/x/mod/modfile"

	"github.com/queue-runtime/queue/internal/archtest"
)

// pin makes the go.mod in the file named name require the modules of siblings (by
// path) at version. A module that is tagged loses its replace lines: they count in
// the main module only. One that is not tagged keeps them, so that it still builds
// alone.
func pin(name string, m *archtest.Module, siblings map[string]bool, version string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	f, err := modfile.Parse(name, text, nil)
	if err != nil {
		return err
	}
	for _, r := range f.Require {
		if siblings[r.Mod.Path] {
			if err := f.AddRequire(r.Mod.Path, version); err != nil {
				return err
			}
		}
	}
	if m.Tagged() {
		for _, r := range append([]*modfile.Replace(nil), f.Replace...) {
			if err := f.DropReplace(r.Old.Path, r.Old.Version); err != nil {
				return err
			}
		}
	}
	f.Cleanup()
	text, err = f.Format()
	if err != nil {
		return err
	}
	return os.WriteFile(name, text, 0o600)
}
