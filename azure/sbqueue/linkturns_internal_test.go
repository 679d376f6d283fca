package sbqueue

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Turns come one after the other, those that calls wait for before further links. A call that
// ends its wait, also at the moment of its turn, keeps no other from its own.
func TestLinkTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns linkTurns
		if err := turns.wait(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		var order []string
		begin := func(ctx context.Context, name string, further bool) {
			go func() {
				if turns.wait(ctx, further) == nil {
					order = append(order, name)
					time.Sleep(time.Second)
					turns.done()
				}
			}()
			synctest.Wait()
		}
		leaving, leave := context.WithCancel(t.Context())
		begin(t.Context(), "further", true)
		begin(leaving, "left", false)
		begin(t.Context(), "first", false)
		begin(t.Context(), "second", false)
		leave()
		synctest.Wait()
		turns.done()
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := []string{"first", "second", "further"}; !slices.Equal(order, want) {
			t.Errorf("turns of %v, want %v", order, want)
		}
		ended, end := context.WithCancel(t.Context())
		end()
		for range 100 { // whichever of the two a wait sees
			if err := turns.wait(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- turns.wait(ended, false) }()
			turns.done()
			if <-done == nil {
				turns.done()
			}
		}
		if turns.busy || len(turns.needed) > 0 {
			t.Errorf("a turn is left: %v, %d wait", turns.busy, len(turns.needed))
		}
	})
}
