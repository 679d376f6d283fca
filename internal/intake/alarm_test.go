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

// TestAlarmAtItsBounds: an interval ends after exactly AlarmInterval, its limit counts, and
// what is not told of one flood is not counted to the next.
func TestAlarmAtItsBounds(t *testing.T) {
	begin := time.UnixMilli(1_800_000_000_000)
	for _, c := range []struct {
		name string
		at   []time.Duration
		want []int
	}{
		{"below the limit in each interval", []time.Duration{0, 0, AlarmInterval, AlarmInterval}, []int{0, 0, 0, 0}},
		{"the limit in one", []time.Duration{0, 1, AlarmInterval - 1}, []int{0, 0, 3}},
		{"goes on at the end of the interval", []time.Duration{0, 0, 0, AlarmInterval - 1, AlarmInterval}, []int{0, 0, 3, 0, 2}},
		{"a pause of two intervals", []time.Duration{0, 0, 0, 2 * AlarmInterval}, []int{0, 0, 3, 0}},
		{"a pause of less", []time.Duration{0, 0, 0, 2*AlarmInterval - 1}, []int{0, 0, 3, 1}},
		{"what was not told is forgotten", []time.Duration{0, 0, 2 * AlarmInterval, 2 * AlarmInterval, 2 * AlarmInterval}, []int{0, 0, 0, 0, 3}},
	} {
		a := Alarm{Limit: 3}
		var got []int
		for _, d := range c.at {
			got = append(got, a.Count(begin.Add(d)))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
