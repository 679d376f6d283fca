package demo

import "testing"

func content(id, session string) *Content {
	return &Content{ID: id, Session: session, CorrelationID: "c", ContentType: "t", Attributes: map[string]string{"a": "1", "b": "2"}, Body: []byte("body")}
}

func TestLedger(t *testing.T) {
	l := NewLedger()
	l.Sent("q", content("1", "s"))
	l.Sent("q", content("2", "s"))
	l.Sent("q", content("3", ""))
	l.Sent("other", content("1", "s"))
	if n := l.Lost("q"); n != 3 {
		t.Errorf("%d lost before anything arrived, want 3", n)
	}
	if a := l.Arrived("q", content("2", "s")); !a.Known || a.Times != 1 || a.Turn != 2 {
		t.Errorf("%+v, want the second of its session, once", a)
	}
	if a := l.Arrived("q", content("1", "s")); !a.Known || a.Turn != 1 || a.InLine == "" {
		t.Errorf("%+v, want the first of its session", a)
	}
	if a := l.Arrived("q", content("1", "s")); a.Times != 2 {
		t.Errorf("%+v, want it to have arrived twice", a)
	}
	if a := l.Arrived("q", content("3", "")); a.Turn != 0 {
		t.Errorf("%+v, want no place in a session", a)
	}
	if n, all := l.Lost("q"), l.Lost(""); n != 0 || all != 1 {
		t.Errorf("%d lost of q, %d of all, want 0 and 1", n, all)
	}
	if !l.Parked("other", content("1", "s")) || l.Parked("other", content("9", "s")) {
		t.Error("parked")
	}
	if l.Lost("") != 0 || l.Sessions() != 2 {
		t.Errorf("%d lost, %d sessions", l.Lost(""), l.Sessions())
	}
}

// TestLedgerForged: whatever an attacker changes, it is no content that was sent.
func TestLedgerForged(t *testing.T) {
	l := NewLedger()
	l.Sent("q", content("1", "s"))
	for name, change := range map[string]func(*Content){
		"id":          func(c *Content) { c.ID = "2" },
		"session":     func(c *Content) { c.Session = "" },
		"correlation": func(c *Content) { c.CorrelationID = "x" },
		"type":        func(c *Content) { c.ContentType = "" },
		"attribute":   func(c *Content) { c.Attributes["a"] = "2" },
		"added":       func(c *Content) { c.Attributes["c"] = "" },
		"removed":     func(c *Content) { delete(c.Attributes, "a") },
		"body":        func(c *Content) { c.Body = []byte("bodY") },
		"shifted":     func(c *Content) { c.ContentType, c.CorrelationID = "", "ct" },
	} {
		c := content("1", "s")
		change(c)
		if l.Arrived("q", c).Known {
			t.Errorf("%s: taken for what was sent", name)
		}
	}
	if l.Arrived("p", content("1", "s")).Known {
		t.Error("in another queue: taken for what was sent")
	}
}
