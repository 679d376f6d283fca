package webhooks_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/queue-runtime/queue/testbed/webhooks"
)

func TestFolder(t *testing.T) {
	dir, err := webhooks.Folder(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(list) < 20 {
		t.Fatalf("%d webhooks in %s, %v, want at least 20", len(list), dir, err)
	}
	for _, name := range list {
		if text, err := os.ReadFile(name); err != nil || !json.Valid(text) {
			t.Errorf("%s is not JSON, or %v", name, err)
		}
	}
}
