package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestDependencies: what a program that imports one of our packages builds with,
// and so downloads, contains no test library, no SDK of OpenTelemetry, no
// Prometheus, and no browser driver. Azidentity brings the latter for signing in
// interactively, so only packages that need azidentity may have it.
func TestDependencies(t *testing.T) {
	unwanted := []string{
		"github.com/queue-runtime/queue/testbed", "go.opentelemetry.io/otel/sdk", "github.com/prometheus",
		"github.com/stretchr/testify", "github.com/rogpeppe", "github.com/c2sp",
	}
	const browser = "github.com/pkg/browser"
	for folder, unwanted := range map[string][]string{
		"../azure/sbqueue":           append(slices.Clone(unwanted), browser, "github.com/Azure/azure-sdk-for-go/sdk/azidentity"),
		"../azure/kvkeys":            unwanted,
		"../azure/tablereplay":       unwanted,
		"../aws/dynamoreplay":        append(slices.Clone(unwanted), browser),
		"../aws/sqsqueue":            append(slices.Clone(unwanted), browser),
		"../aws/smkeys":              append(slices.Clone(unwanted), browser),
		"../sqlite/sqlitequeue":      append(slices.Clone(unwanted), browser),
		"../sqlite/sqlitereplay":     append(slices.Clone(unwanted), browser),
		"../otel/otelqueue":          append(slices.Clone(unwanted), browser),
		"../postgres/outbox":         append(slices.Clone(unwanted), browser),
		"../postgres/postgresreplay": append(slices.Clone(unwanted), browser),
		"../redis/redisreplay":       append(slices.Clone(unwanted), browser),
		"../connect":                 unwanted,
	} {
		t.Run(strings.TrimPrefix(folder, "../"), func(t *testing.T) {
			t.Parallel()
			noteFiles(t, folder)
			list := exec.CommandContext(t.Context(), "go", "list", "-deps", ".")
			list.Dir, list.Env = folder, append(os.Environ(), "GOWORK=off")
			out, err := list.Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			imports := strings.Fields(string(out))
			if !slices.Contains(imports, "context") {
				t.Fatalf("go list names %d packages, and not package context", len(imports))
			}
			for _, path := range imports {
				for _, u := range unwanted {
					if path == u || strings.HasPrefix(path, u+"/") {
						t.Errorf("depends on %s", path)
					}
				}
			}
		})
	}
}

// noteFiles reads the files that decide what a package depends on. The go command
// uses a cached result only if no file that the test itself has opened has changed.
func noteFiles(t *testing.T, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d Go files, %v", len(files), err)
	}
	module := folder
	for ; ; module = filepath.Dir(module) {
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			break
		}
	}
	for _, name := range append(files, filepath.Join(module, "go.mod")) {
		if _, err := os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
}
