package tablereplay_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/azurite"
	"github.com/queue-runtime/queue/testbed/docpage"
)

// dataActions are what a request for an entity needs (Azure Storage, "Authorize with
// Microsoft Entra ID", Permissions for Table service operations). The operations of a
// batch are authorized one by one; those of this package are PUTs with a condition, which
// is Update Entity.
var dataActions = map[string]string{
	"GET":    "read",
	"POST":   "add/action",
	"PUT":    "update/action",
	"batch":  "update/action",
	"DELETE": "delete",
}

// testRole: the role of docs/replay/aztable.md allows the requests that the whole suite has
// made of a server, and nothing else.
func testRole(t *testing.T, server *azurite.Server) {
	var role struct {
		Actions, DataActions []string
	}
	if err := json.Unmarshal([]byte(docpage.Block(t, "../../docs/replay/aztable.md", "json")), &role); err != nil || len(role.Actions) > 0 {
		t.Fatalf("role %+v, %v; want one without Actions", role, err)
	}
	var allowed, used []string
	for _, a := range role.DataActions {
		allowed = append(allowed, strings.TrimPrefix(a, "Microsoft.Storage/storageAccounts/tableServices/tables/entities/"))
	}
	for name := range server.Counts() {
		method, _, _ := strings.Cut(name, " ") // the rest is a status
		action, ok := dataActions[method]
		if !ok {
			t.Errorf("a request %q: which action does it need?", name)
		}
		used = append(used, action)
	}
	slices.Sort(used)
	slices.Sort(allowed)
	if used = slices.Compact(used); !slices.Equal(used, allowed) {
		t.Errorf("used: %v, allowed by the role: %v", used, allowed)
	}
}
