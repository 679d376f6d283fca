// Command licenses reads a list of what a module is made of (SBOM, in CycloneDX's
// JSON, with licences) and fails if a module has no licence, or one that is not in
// the list below:
//
//	licenses FILE
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// own is the path of this repository's modules, whose licence is LICENSE.
const own = "github.com/queue-runtime/queue"

// allowed are licences, by their SPDX identifiers, that ask users of a program for
// no more than a notice (https://spdx.org/licenses/).
var allowed = []string{
	"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT",
	"Unlicense",       // asks for nothing
	"BSD-Source-Code", // what the detector calls the licence of golang.org/x, which is BSD-3-Clause
}

// bill is the part of an SBOM that this program reads
// (https://cyclonedx.org/docs/1.6/json/).
type bill struct {
	Components []component `json:"components"`
}

type component struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Licenses []struct {
		License struct {
			ID string `json:"id"`
		} `json:"license"`
	} `json:"licenses"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "licenses:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: licenses FILE")
	}
	text, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	var b bill
	if err := json.Unmarshal(text, &b); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	foreign, err := b.check()
	if err == nil && foreign == 0 {
		return fmt.Errorf("%s lists no module of others", args[0])
	}
	if err == nil {
		fmt.Printf("%d modules of others, all under %s\n", foreign, strings.Join(allowed, ", "))
	}
	return err
}

// check counts the modules of others. It names each that has no licence or one that
// is not allowed.
func (b bill) check() (foreign int, err error) {
	var faults []error
	for _, c := range b.Components {
		if c.Name == own || strings.HasPrefix(c.Name, own+"/") {
			continue
		}
		foreign++
		if len(c.Licenses) == 0 {
			faults = append(faults, fmt.Errorf("%s %s: no licence found", c.Name, c.Version))
		}
		for _, l := range c.Licenses {
			if !slices.Contains(allowed, l.License.ID) {
				faults = append(faults, fmt.Errorf("%s %s: licence %q is not allowed", c.Name, c.Version, l.License.ID))
			}
		}
	}
	return foreign, errors.Join(faults...)
}
