package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// rootImports says, for each package of the root module, which packages of this
// repository it may import outside of its tests. A pattern that ends in /...
// means the folder and all below it. Everything may import the standard library.
var rootImports = map[string][]string{
	".":                 {"backoff", "driver", "envelope", "keys", "observe", "replay", "sessionkey", "internal/..."},
	"driver":            nil,
	"envelope":          nil,
	"keys":              {"internal/jsonscan"},
	"replay":            {"internal/replaystate"},
	"sessionkey":        {"internal/jsonscan"},
	"backoff":           nil,
	"observe":           {"driver", "keys", "replay"},
	"spec":              nil,
	"docs/first":        {".", "keys", "memqueue", "replay", "worker"},
	"memqueue":          {"driver"},
	"worker":            {".", "backoff", "driver", "observe"}, // the public API of queue alone
	"deadletter":        {".", "backoff", "driver", "envelope", "keys", "observe", "replay", "internal/intake", "internal/sealing", "internal/stream"},
	"drivertest":        {"backoff", "driver"},
	"attacktest":        {".", "backoff", "driver", "drivertest", "envelope", "keys", "observe", "replay"},
	"queuetest":         {".", "backoff", "deadletter", "memqueue", "driver", "keys", "replay"},
	"keys/keytest":      {"keys"},
	"replay/cas":        {"backoff", "replay", "internal/replaystate"},
	"replay/replaytest": {"replay"},
	// What decides and what seals never imports queue.
	"internal/intake":     {"backoff", "driver", "keys"},
	"internal/accounting": {"replay"},
	"internal/sealing":    {"driver", "envelope", "keys", "observe", "internal/stream"},
	"internal/httpclient": {"internal/dialing"},
	"internal/dialing":    nil,
	"internal/sqldriver":  {"driver"},
	"internal/stream":     nil,
	// The tests of queue, worker and deadletter stand on it.
	"internal/fixturetest": {".", "driver", "keys", "memqueue", "replay", "internal/drbg"},
	"internal/...":         {"driver", "envelope", "keys", "replay", "sessionkey", "internal/..."},
}

// kind is the purpose of a nested module.
type kind int

const (
	backend    kind = 1 + iota // the SDK of one broker or cloud: drivers, key providers, replay stores
	telemetry                  // an Observer of package queue
	connector                  // opens any backend by URL
	foundation                 // emulators, starters and attackers for tests: testbed
	program                    // a released program: imports any module, and no module imports it
	untagged                   // never released: imports any module, and no module imports it
)

// moduleKinds lists every nested module by its folder.
var moduleKinds = map[string]kind{
	"sqlite":      backend,
	"aws":         backend,
	"azure":       backend,
	"postgres":    backend,
	"nats":        backend,
	"rabbitmq":    backend,
	"redis":       backend,
	"otel":        telemetry,
	"connect":     connector,
	"testbed":     foundation,
	"cmd/qrt":     program,
	"examples":    untagged,
	"tests":       untagged,
	"tests/bench": untagged,
	"tools":       untagged,
}

// kindImports says which packages of the root module a nested module may import
// outside of its tests. Suites (drivertest, attacktest, keytest, replaytest) are in
// no list but that of testbed, whose attackers implement drivertest.Attacker.
var kindImports = map[kind][]string{
	backend:    {"backoff", "driver", "keys", "replay", "replay/cas"},
	telemetry:  {"backoff", "driver", "keys", "observe", "replay", ".", "worker"},
	connector:  {"driver", "keys", "replay", "memqueue"},
	foundation: {"backoff", "driver", "drivertest"},
}

// packageImports says what single packages of nested modules may import beyond that.
var packageImports = map[string][]string{
	// It takes what Sender.Prepare made, and is no driver.
	"postgres/outbox": {".", "envelope", "observe"},
	// It runs receivers of replay stores.
	"testbed/storefleet": {"replay"},
}

// shared are the internal packages of the root module that backends may import: what
// several of them do alike, and is no API.
var shared = []string{
	"internal/dialing",     // how often a process connects to a server that is away
	"internal/httpclient",  // what stands between a cloud's SDK and the network
	"internal/sqldriver",   // what the drivers over SQL databases do alike
	"internal/replaystate", // the state machine of replay stores
}

// testbedDir is the folder of the module that tests of every other module may
// import.
const testbedDir = "testbed"

// checkDirection holds every import of this repository against the tables above.
func checkDirection(t *Tree) []Violation {
	var list []Violation
	for _, m := range t.Modules {
		if m != t.Root() && moduleKinds[m.Dir] == 0 {
			list = append(list, Violation{m.File(), 0, "unknown module: add it to moduleKinds in internal/archtest/direction.go with what it may import"})
		}
	}
	unknown := make(map[string]bool)
	for _, f := range t.Files {
		if f.Module == t.Root() && !f.Test {
			if _, ok := rootRow(f.Dir); !ok && !unknown[f.Dir] {
				unknown[f.Dir] = true
				list = append(list, Violation{f.Dir, 0, "unknown package: add it to rootImports in internal/archtest/direction.go with what it may import"})
			}
		}
		for _, i := range t.imports(f) {
			m, dir, ok := t.resolve(i.Path)
			if !ok || dir == f.Dir {
				continue
			}
			if reason := forbidden(t, f, m, dir); reason != "" {
				list = append(list, Violation{f.Path, i.Line, fmt.Sprintf("imports %s: %s", i.Path, reason)})
			}
		}
	}
	return sorted(list)
}

// forbidden says why f must not import the package in folder dir of module m, or
// "" if it may.
func forbidden(t *Tree, f *File, m *Module, dir string) string {
	from := moduleKinds[f.Module.Dir]
	switch {
	case f.Module == t.Root() && m != t.Root():
		return "the root module never imports a nested module; turn the dependency round"
	case f.Module == t.Root() && f.Test:
		return ""
	case f.Module == t.Root():
		row, ok := rootRow(f.Dir)
		if !ok || matches(row, dir) {
			return ""
		}
		return fmt.Sprintf("%s may import %s; move the code to where both sides may reach it", label(f.Dir), labels(row))
	case m == f.Module:
		return ""
	case m != t.Root() && moduleKinds[m.Dir] >= program:
		return "no module imports a program or an untagged module; move the code into a library package"
	case from >= program || from == 0:
		return ""
	case from == foundation && m != t.Root():
		return "testbed requires the root and third parties only, so that every module can use it"
	case m.Dir == testbedDir && f.Test:
		return ""
	case m.Dir == testbedDir:
		return "testbed is for tests and programs; import it from _test.go files only"
	case m != t.Root() && from == connector:
		return ""
	case m != t.Root():
		return "modules of backends do not import each other; put the shared code into the root module"
	case from == backend && matches(shared, dir):
		return ""
	case matches([]string{"internal/..."}, dir):
		return "the root's internal packages are not for nested modules, although the compiler lets them; export what is needed or write it anew"
	case f.Test || matches(kindImports[from], dir) || matches(packageImports[f.Dir], dir):
		return ""
	case strings.HasSuffix(path.Base(dir), "test"):
		return "suites are imported from _test.go files only"
	}
	return fmt.Sprintf("module %s may import %s of the root module outside of its tests", f.Module.Dir, labels(kindImports[from]))
}

// rootRow finds the row of rootImports for a folder.
func rootRow(dir string) ([]string, bool) {
	if row, ok := rootImports[dir]; ok {
		return row, true
	}
	for pattern, row := range rootImports {
		if strings.HasSuffix(pattern, "/...") && matches([]string{pattern}, dir) {
			return row, true
		}
	}
	return nil, false
}

// matches reports whether dir is in the list.
func matches(list []string, dir string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		if below, ok := strings.CutSuffix(p, "/..."); ok {
			_, in := within(dir, below)
			return in
		}
		return p == dir
	})
}

// label names a package for a person.
func label(dir string) string {
	if dir == "." {
		return "the root package"
	}
	return dir
}

func labels(list []string) string {
	if len(list) == 0 {
		return "nothing but the standard library"
	}
	names := make([]string, len(list))
	for i, d := range list {
		names[i] = label(d)
	}
	return strings.Join(names, ", ")
}
