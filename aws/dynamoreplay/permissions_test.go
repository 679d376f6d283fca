package dynamoreplay_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/docpage"
	"github.com/queue-runtime/queue/testbed/dynalite"
)

// testPolicy: the policy of docs/replay/dynamodb.md allows the requests that the whole suite
// has made of a server, and nothing else.
func testPolicy(t *testing.T, server *dynalite.Server) {
	const path = "../../docs/replay/dynamodb.md"
	var policy struct {
		Statement []struct {
			Effect, Resource string
			Action           []string
		}
	}
	if err := json.Unmarshal([]byte(docpage.Block(t, path, "json")), &policy); err != nil || len(policy.Statement) != 1 || policy.Statement[0].Effect != "Allow" {
		t.Fatalf("policy %+v, %v; want one statement that allows", policy, err)
	}
	var allowed []string
	for _, a := range policy.Statement[0].Action {
		allowed = append(allowed, strings.TrimPrefix(a, "dynamodb:"))
	}
	var used []string
	for name := range server.Counts() {
		if !strings.Contains(name, " ") {
			used = append(used, name)
		}
	}
	slices.Sort(used)
	slices.Sort(allowed)
	if !slices.Equal(used, allowed) {
		t.Errorf("used: %v, allowed by the policy: %v", used, allowed)
	}
	template := docpage.Block(t, path, "yaml")
	for _, line := range []string{"AttributeName: p, AttributeType: S", "AttributeName: s, AttributeType: S", "AttributeName: p, KeyType: HASH", "AttributeName: s, KeyType: RANGE"} {
		if !strings.Contains(template, line) {
			t.Errorf("the template does not say %q", line)
		}
	}
}
