package intake

import (
	"slices"
	"testing"
	"time"
)

// TestAlarm: few messages raise no alarm, however long they go on; many raise it once a
// minute for as long as they go on, with their number.
func TestAlarm(t *testing.T) {
	begin := time.UnixMilli(1_800_000_000_000)
	slow := Alarm{Limit: 20}
	for i := range 1000 {
		if n := slow.Count(begin.Add(time.Duration(i) * 4 * time.Second)); n > 0 {
			t.Fatalf("alarm of %d at 15 a minute, want none below 20", n)
		}
	}
	fast := Alarm{Limit: 20}
	var told []int
	var at []time.Duration
	for i := range 3000 { // 10 a second for five minutes
		d := time.Duration(i) * 100 * time.Millisecond
		if n := fast.Count(begin.Add(d)); n > 0 {
			told, at = append(told, n), append(at, d.Round(time.Second))
		}
	}
	if want := []int{20, 600, 600, 600, 600}; !slices.Equal(told, want) {
		t.Errorf("alarms of %v at %v, want %v", told, at, want)
	}
	if n := fast.Count(begin.Add(time.Hour)); n > 0 {
		t.Errorf("alarm of %d an hour later, want none", n)
	}
}
