package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"
)

// TestServiceBusProperties holds queues as the management API shows them, which
// the emulator has not, against what doctor finds.
func TestServiceBusProperties(t *testing.T) {
	yes, no, disabled, never, day, other := true, false, admin.EntityStatusDisabled, forever, "P1D", "other"
	for name, c := range map[string]struct {
		p    admin.QueueProperties
		want []string // the levels, and what the findings say
	}{
		"as it should be":     {admin.QueueProperties{DeadLetteringOnMessageExpiration: &yes, AutoDeleteOnIdle: &never}, []string{"ok: is dead-lettered"}},
		"deletes what is old": {admin.QueueProperties{DeadLetteringOnMessageExpiration: &no}, []string{"warning: is deleted by the broker"}},
		"does not say":        {admin.QueueProperties{}, []string{"warning: is deleted by the broker"}},
		"disabled":            {admin.QueueProperties{DeadLetteringOnMessageExpiration: &yes, Status: &disabled}, []string{"error: status is Disabled", "ok: "}},
		"forwards":            {admin.QueueProperties{DeadLetteringOnMessageExpiration: &yes, ForwardTo: &other}, []string{"ok: ", "error: no receiver of the other queue can open"}},
		"goes by itself":      {admin.QueueProperties{DeadLetteringOnMessageExpiration: &yes, AutoDeleteOnIdle: &day}, []string{"ok: ", "warning: idle for P1D"}},
		"partitioned":         {admin.QueueProperties{DeadLetteringOnMessageExpiration: &yes, EnablePartitioning: &yes}, []string{"ok: ", "note: the queue is partitioned"}},
		"hides dead letters":  {admin.QueueProperties{DeadLetteringOnMessageExpiration: &yes, ForwardDeadLetteredMessagesTo: &other}, []string{"ok: ", "warning: qrt dlq does not find them"}},
	} {
		x := &doctorRun{report: &doctorReport{}}
		x.properties(&c.p)
		var got []string
		for _, f := range x.report.Findings {
			got = append(got, string(f.Level)+": "+f.Finding)
			if f.Level != levelOK && f.Advice == "" {
				t.Errorf("%s: %q says not what to do", name, f.Finding)
			}
		}
		same := slices.EqualFunc(got, c.want, func(got, want string) bool {
			level, text, _ := strings.Cut(want, ": ")
			return strings.HasPrefix(got, level+": ") && strings.Contains(got, text)
		})
		if !same {
			t.Errorf("%s: found %q, want %q", name, got, c.want)
		}
	}
}
