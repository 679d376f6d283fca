// Package webhooks finds real GitHub webhooks: the test data of
// github.com/go-playground/webhooks.
package webhooks

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	_ "github.com/go-playground/webhooks/v6/github" // keeps the module, with its test data, in the build list
)

// Folder returns the folder of the webhooks, one JSON file each. It asks the go
// command, so it works only in a module that depends on this one.
func Folder(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/go-playground/webhooks/v6").Output()
	if err != nil {
		return "", fmt.Errorf("webhooks: go list: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "testdata", "github"), nil
}
