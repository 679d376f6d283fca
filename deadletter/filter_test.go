package deadletter

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// TestFilterMatch has each field alone, at its bound.
func TestFilterMatch(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	m := &driver.Delivery{Message: driver.Message{ID: "m", SessionID: "s", Body: []byte("plain")}, DeadLetter: &driver.DeadLetter{Reason: "gave_up", At: at}}
	bare := &driver.Delivery{Message: driver.Message{ID: "m"}}
	for name, c := range map[string]struct {
		f    *Filter
		m    *driver.Delivery
		want bool
	}{
		"nil":                          {nil, m, true},
		"zero":                         {&Filter{}, m, true},
		"zero, a letter without why":   {&Filter{}, bare, true},
		"since its time":               {&Filter{Since: at}, m, true},
		"since later":                  {&Filter{Since: at.Add(1)}, m, false},
		"until its time":               {&Filter{Until: at}, m, false},
		"until later":                  {&Filter{Until: at.Add(1)}, m, true},
		"its reason":                   {&Filter{Reasons: []string{"x", "gave_up"}}, m, true},
		"another reason":               {&Filter{Reasons: []string{"x"}}, m, false},
		"a reason, and it has none":    {&Filter{Reasons: []string{"x"}}, bare, false},
		"its session":                  {&Filter{SessionIDs: []string{"s"}}, m, true},
		"another session":              {&Filter{SessionIDs: []string{"x"}}, m, false},
		"its ID":                       {&Filter{MessageIDs: []string{"m"}}, m, true},
		"another ID":                   {&Filter{MessageIDs: []string{"x"}}, m, false},
		"a key, and it is not sealed":  {&Filter{KeyIDs: []keys.ID{"k1"}}, m, false},
		"no key, and it is not sealed": {&Filter{KeyIDs: []keys.ID{""}}, m, false},
	} {
		if got := c.f.match(c.m); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestStatsTimes: Oldest and Newest are of the letters whose time is known, in whatever order
// they come.
func TestStatsTimes(t *testing.T) {
	at := time.UnixMilli(1_800_000_000_000)
	s := Stats{ByReason: map[string]int{}, ByKey: map[keys.ID]int{}}
	if s.add(&driver.Delivery{}); !s.Oldest.IsZero() || !s.Newest.IsZero() {
		t.Errorf("a letter without a time: %+v", s)
	}
	for _, d := range []time.Duration{5, 9, 2, 7} {
		s.add(&driver.Delivery{Message: driver.Message{Body: []byte(envelope.Marker + " and nothing of it")}, DeadLetter: &driver.DeadLetter{At: at.Add(d)}})
	}
	s.add(&driver.Delivery{})
	if !s.Oldest.Equal(at.Add(2)) || !s.Newest.Equal(at.Add(9)) || s.Count != 6 || s.Plain != 2 || len(s.ByKey) != 0 {
		t.Errorf("summary %+v, want 6 letters, 2 of them plain, from 2 to 9", s)
	}
}
