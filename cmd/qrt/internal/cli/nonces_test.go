package cli

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

func TestProjected(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	bounds, err := replay.Bounds{Store: replay.Quota{Records: 2000, Streams: 2000, Intervals: 2000}, Group: replay.Quota{Records: 1000, Streams: 1000, Intervals: 1000}}.Resolved()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name                        string
		age                         time.Duration
		records, streams, intervals int64
		want                        float64
	}{
		{"too young", projectAge - 1, 999, 999, 999, 0},
		{"records of a day, kept for 15", day, 20, 0, 0, 0.3},
		{"they will not fit", day, 100, 0, 0, 1},
		{"streams", 3 * day, 0, 100, 0, 0.5},
		{"after 15 days they leave as they come", 15 * day, 100, 0, 0, 0.1},
		{"older", 60 * day, 0, 300, 0, 0.3},
		{"intervals are not projected", day, 0, 0, 400, 0.4},
	} {
		s := &replay.Stats{Records: c.records, Streams: c.streams, Intervals: c.intervals, Capacity: bounds, Stamp: replay.Stamp{Birth: now.Add(-c.age)}}
		if got := projected(s, now); got < c.want-0.001 || got > c.want+0.001 {
			t.Errorf("%s: %.3f, want %.3f", c.name, got, c.want)
		}
	}
}
