package deadletter

import "testing"

func TestRemainderLeft(t *testing.T) {
	exact := func(n int64) letterCount { return letterCount{n: n} }
	about := func(n int64) letterCount { return letterCount{n: n, approximate: true} }
	for _, c := range []struct {
		name string
		r    remainder
		want int64
	}{
		{"all reached", remainder{end: drained, begun: exact(5), now: exact(0), reached: 5}, 0},
		{"the rest was taken away by others", remainder{end: drained, begun: exact(5), now: exact(2), reached: 2, kept: 2}, 0},
		{"others hold the rest", remainder{end: drained, begun: exact(5), now: exact(5), reached: 2, kept: 2}, 3},
		{"nothing was there, others came", remainder{end: bounded, begun: exact(0), now: exact(9)}, 0},
		{"others came meanwhile", remainder{end: bounded, begun: exact(5), now: exact(9), reached: 5}, 0},
		{"came round again", remainder{end: repeated, begun: exact(50), now: exact(50), reached: 20, kept: 20}, 30},
		{"came round again, all of them", remainder{end: repeated, begun: exact(20), now: exact(20), reached: 20, kept: 20}, 0},
		{"more than one call reads", remainder{end: bounded, begun: exact(maxRead + 7), now: exact(maxRead + 7), reached: maxRead, kept: maxRead}, 7},
		{"nothing is counted", remainder{end: drained, begun: exact(-1), now: exact(-1), reached: 3}, 0},
		{"nothing is counted, came round again", remainder{end: repeated, begun: exact(-1), now: exact(-1), reached: 3}, -1},
		{"nothing is counted, too many", remainder{end: bounded, begun: exact(-1), now: exact(-1), reached: maxRead}, -1},
		{"estimated too high", remainder{end: drained, begun: about(9), now: about(0), reached: 5}, 0},
		{"estimated too low", remainder{end: bounded, begun: about(3), now: about(4000), reached: 1006, kept: 1000}, 3000},
		{"estimated, came round again", remainder{end: repeated, begun: about(50), now: about(45), reached: 20, kept: 20}, 25},
	} {
		if got := c.r.left(); got != c.want {
			t.Errorf("%s: %d left, want %d", c.name, got, c.want)
		}
	}
}

func TestLetterCountBound(t *testing.T) {
	for _, c := range []struct {
		count letterCount
		want  int
	}{
		{letterCount{n: -1}, maxRead},
		{letterCount{n: 0}, 0},
		{letterCount{n: 12}, 12},
		{letterCount{n: 12, approximate: true}, 1024},
		{letterCount{n: 1 << 62}, maxRead},
		{letterCount{n: 1 << 62, approximate: true}, maxRead},
	} {
		if got := c.count.bound(); got != c.want {
			t.Errorf("%+v: bound %d, want %d", c.count, got, c.want)
		}
	}
}
