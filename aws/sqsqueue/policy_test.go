package sqsqueue

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/docpage"
)

// TestPolicy: the policy of docs/brokers/sqs.md gives a receiver what this package asks of
// SQS, and nothing else: on its queue all but sending, on the dead-letter queue all but
// receiving. The stack on the same page has the same lists.
func TestPolicy(t *testing.T) {
	const path = "../../docs/brokers/sqs.md"
	var policy struct {
		Statement []struct {
			Effect           string
			Action, Resource json.RawMessage // of secrets, they have another form
		}
	}
	if err := json.Unmarshal([]byte(docpage.Block(t, path, "json")), &policy); err != nil {
		t.Fatal(err)
	}
	want := map[bool][]string{} // by whether the queue is one of dead letters
	all := reflect.TypeFor[api]()
	for i := range all.NumMethod() {
		// A batch needs the right to the single action (Developer Guide, Amazon SQS API
		// permissions).
		action := "sqs:" + strings.TrimSuffix(all.Method(i).Name, "Batch")
		sends, looks := action == "sqs:SendMessage", strings.HasPrefix(action, "sqs:GetQueue")
		for _, dead := range []bool{false, true} {
			if looks || sends == dead {
				want[dead] = append(want[dead], action)
			}
		}
	}
	got := map[bool][]string{}
	for _, s := range policy.Statement {
		var actions []string
		if s.Effect != "Allow" || json.Unmarshal(s.Action, &actions) != nil || !strings.HasPrefix(actions[0], "sqs:") {
			continue
		}
		dead := strings.Contains(string(s.Resource), "-dead")
		got[dead] = append(got[dead], actions...)
		if list := "Action: [" + strings.Join(actions, ", ") + "]"; !strings.Contains(docpage.Read(t, path), list) {
			t.Errorf("the stack does not say %s", list)
		}
	}
	for _, dead := range []bool{false, true} {
		slices.Sort(got[dead])
		slices.Sort(want[dead])
		if !slices.Equal(got[dead], want[dead]) {
			t.Errorf("dead letters %t: the policy allows %v, want %v", dead, got[dead], want[dead])
		}
	}
}
