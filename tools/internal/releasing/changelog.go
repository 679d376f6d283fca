package releasing

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

const changelogFile = "CHANGELOG.md"

// unreleasedHeading opens the section of what the next release brings, in the form
// of Keep a Changelog.
const unreleasedHeading = "## [Unreleased]\n"

// datedChangelog turns the section of unreleased changes into the section of a
// version and leaves an empty one above it. It fails if there is nothing to
// release, or if the version has a section already.
func datedChangelog(text, version string, day time.Time) (string, error) {
	number := strings.TrimPrefix(version, "v")
	if strings.Contains(text, "## ["+number+"]") {
		return "", fmt.Errorf("%s has a section for %s already: was it released?", changelogFile, version)
	}
	before, rest, found := strings.Cut(text, unreleasedHeading)
	if !found {
		return "", fmt.Errorf("%s has no line %q", changelogFile, strings.TrimSpace(unreleasedHeading))
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	if !strings.Contains(section, "\n- ") {
		return "", errors.New(changelogFile + ` lists no change under "Unreleased": write down what the release changes for users`)
	}
	return before + unreleasedHeading + "\n## [" + number + "] - " + day.UTC().Format(time.DateOnly) + "\n" + rest, nil
}

// Section returns what a changelog says of one version, without the heading.
func Section(text, version string) (string, error) {
	_, rest, found := strings.Cut(text, "\n## ["+strings.TrimPrefix(version, "v")+"]")
	if !found {
		return "", fmt.Errorf("%s has no section for %s", changelogFile, version)
	}
	_, rest, _ = strings.Cut(rest, "\n") // the date
	section, _, _ := strings.Cut(rest, "\n## ")
	return strings.TrimSpace(section) + "\n", nil
}
