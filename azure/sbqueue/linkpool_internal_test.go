package sbqueue

import "testing"

// A call that finds a link dead which was dropped before takes no link along that was made
// since.
func TestLinkIsDroppedOnce(t *testing.T) {
	q := &queue{}
	p := &linkPool{s: newSource(q, false, 1)}
	dead, idle := q.newLink(), q.newLink()
	p.alive = 2
	p.put(idle)
	p.drop(dead) // and the other, of the same connection
	if p.alive != 0 || len(p.idle) != 0 || idle.up.Err() == nil {
		t.Fatalf("%d links, %d of them idle, want none", p.alive, len(p.idle))
	}
	fresh := q.newLink()
	p.alive = 1
	p.put(fresh)
	p.drop(dead)
	if p.alive != 1 || len(p.idle) != 1 || fresh.up.Err() != nil {
		t.Errorf("%d links, %d of them idle, want the one that was made since", p.alive, len(p.idle))
	}
}
