package releasing

import (
	"os"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/internal/archtest"
)

// The updates of dependencies reach every module of the repository.
func TestUpdatesOfEveryModule(t *testing.T) {
	const root = "../../.."
	tree, err := archtest.Load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(root + "/.github/dependabot.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range tree.Modules {
		dir := "/" + strings.TrimPrefix(m.Dir, ".")
		if !strings.Contains(string(config), "\n      - "+dir+"\n") {
			t.Errorf(".github/dependabot.yml does not list %s: add it to the directories of gomod", dir)
		}
	}
}
