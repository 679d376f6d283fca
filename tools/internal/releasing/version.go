package releasing

import (
	"fmt"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// checkVersion refuses what cannot be the next version of a module of that path.
// tags are the versions that the root module has.
func checkVersion(path, version string, tags []string) error {
	if !semver.IsValid(version) || semver.Canonical(version) != version || semver.Build(version) != "" {
		return fmt.Errorf("%q is not a version: write vMAJOR.MINOR.PATCH, for example v0.1.0", version)
	}
	if semver.Compare(version, "v0.0.1-0") < 0 {
		return fmt.Errorf("%s is what the main branch requires its own modules at: release a later version", version)
	}
	if err := module.CheckPathMajor(version, ""); err != nil {
		return fmt.Errorf("%s needs the path %s/%s: change the module paths first (https://go.dev/ref/mod#major-version-suffixes)", version, path, semver.Major(version))
	}
	for _, tag := range tags {
		if semver.IsValid(tag) && semver.Compare(tag, version) == 0 {
			return fmt.Errorf("the tag %s exists: a version is never released twice", tag)
		}
		if semver.IsValid(tag) && semver.MajorMinor(tag) == semver.MajorMinor(version) && semver.Compare(tag, version) > 0 {
			return fmt.Errorf("%s is older than the tag %s", version, tag)
		}
	}
	return nil
}

// tagOf is the tag of a module's version (https://go.dev/ref/mod#vcs-version).
func tagOf(dir, version string) string {
	if dir == "." {
		return version
	}
	return strings.Trim(dir, "/") + "/" + version
}
