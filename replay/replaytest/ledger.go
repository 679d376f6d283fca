package replaytest

import (
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// ledger knows every message of a schedule and what was promised about it. It
// keeps one entry for each and forgets nothing, so it shares no means with the
// stores.
type ledger struct {
	observes bool
	keep     time.Duration // for how long a stream is kept at least
	entries  map[replay.Identity]*entry
	newest   time.Time // newest SealedAt consumed
	calm     bool      // too little time has passed for anything to be forgotten
}

type entry struct {
	sealed    replay.Request // as it was sealed
	status    string         // "", "claimed", "released", "parked", "consumed"
	token     replay.Token   // of the last grant
	until     time.Time      // end of its lease
	keep      time.Time      // until when the record is kept
	firstSeen time.Time
	rejected  bool // once refused as not fresh
	settled   bool // parked once: final for the accounting
}

func (l *ledger) entry(r *replay.Request) *entry {
	e := l.entries[r.ID]
	if e == nil {
		e = &entry{sealed: *r}
		l.entries[r.ID] = e
	}
	return e
}

// forgettable reports whether a store may have forgotten a message that was sealed
// then.
func (l *ledger) forgettable(sealed time.Time) bool { return !sealed.Add(l.keep).After(l.newest) }

// known reports whether the store must still have a record of the message.
func (e *entry) known(now time.Time) bool {
	switch e.status {
	case "claimed", "released", "parked":
		return now.Before(e.keep)
	}
	return false
}

// keepFor has the record kept for that long at least.
func (e *entry) keepFor(d time.Duration) {
	if t := time.Now().Add(d); t.After(e.keep) {
		e.keep = t
	}
}

// begun checks the answer to a request and takes it over.
func (l *ledger) begun(r *replay.Request, c *replay.Claim) error {
	e, now := l.entry(r), time.Now()
	same := r.Tag == e.sealed.Tag
	live := e.status == "claimed" && now.Before(e.until)
	stale := r.Now.After(r.FreshUntil) && (!e.known(now) || r.Now.Sub(e.firstSeen) > r.RetryWindow)
	switch {
	case errors.Is(c.Err, replay.ErrFull), errors.Is(c.Err, replay.ErrQuota), errors.Is(c.Err, replay.ErrInvalid):
		return fmt.Errorf("%w, although there is room", c.Err)
	case errors.Is(c.Err, replay.ErrCollision):
		if same {
			return fmt.Errorf("%w, although the tag is the same", c.Err)
		}
	case errors.Is(c.Err, replay.ErrDuplicate):
		if !same || e.status != "consumed" {
			return fmt.Errorf("%w of a message that is %q, same tag: %v", c.Err, e.status, same)
		}
	case errors.Is(c.Err, replay.ErrReused):
		if e.status != "consumed" {
			return fmt.Errorf("%w of a message that is %q", c.Err, e.status)
		}
	case errors.Is(c.Err, replay.ErrBusy):
		if !live && !(l.observes && e.status == "claimed") {
			return fmt.Errorf("%w, although the message is %q until %v at %v", c.Err, e.status, e.until, now)
		}
	case errors.Is(c.Err, replay.ErrNotFresh):
		if !stale && !l.forgettable(r.SealedAt) {
			return fmt.Errorf("%w of a message that is %q, sealed %v, newest %v", c.Err, e.status, r.SealedAt, l.newest)
		}
		e.rejected = true
	case c.Err != nil:
		return fmt.Errorf("%w", c.Err)
	default:
		return l.granted(e, r, c, live, stale)
	}
	return nil
}

func (l *ledger) granted(e *entry, r *replay.Request, c *replay.Claim, live, stale bool) error {
	now := time.Now()
	switch {
	case e.status == "consumed":
		return errors.New("granted although it was consumed")
	case live && e.token != r.Token:
		return errors.New("granted although another claim is live")
	case stale && e.token != r.Token:
		return errors.New("granted although it is not fresh")
	case r.Tag != e.sealed.Tag && e.known(now):
		return errors.New("granted although the tag is another")
	}
	if e.known(now) {
		if d := c.FirstSeen.Sub(e.firstSeen).Abs(); d > time.Millisecond {
			return fmt.Errorf("first seen %v, want %v", c.FirstSeen, e.firstSeen)
		}
	} else {
		e.firstSeen = r.Now
		e.sealed.Tag = r.Tag
	}
	if err := l.gap(r, c); err != nil {
		return err
	}
	if !e.known(now) {
		e.keep = time.Time{} // a new record
	}
	e.keepFor(r.RetryWindow)
	e.status, e.token, e.until = "claimed", r.Token, now.Add(r.Lease)
	return nil
}

// gap checks Claim.Gap as far as the ledger can tell.
func (l *ledger) gap(r *replay.Request, c *replay.Claim) error {
	if r.Previous == 0 || !l.calm {
		return nil
	}
	id := r.ID
	id.Sequence = r.Previous
	e := l.entries[id]
	switch {
	case e != nil && e.rejected:
		return nil // as good as seen if its stream was held then
	case e == nil, e.status == "released" && !e.settled, e.status == "":
		if !c.Gap {
			return fmt.Errorf("no gap, although sequence %d was not seen", r.Previous)
		}
	case c.Gap:
		return fmt.Errorf("a gap, although sequence %d is %q", r.Previous, e.status)
	}
	return nil
}

// expect takes over what a call may consume that is repeated: its last run may
// find dropped what an earlier one made old.
func (l *ledger) expect(batch []replay.Finish) {
	for _, f := range batch {
		if e := l.entries[f.ID]; e != nil && f.Kind == replay.Consumed && e.sealed.SealedAt.After(l.newest) {
			l.newest = e.sealed.SealedAt
		}
	}
}

// finished checks the answer to a Finish and takes it over.
func (l *ledger) finished(f *replay.Finish, got error) error {
	e, now := l.entries[f.ID], time.Now()
	if e == nil {
		e = &entry{}
	}
	owner := e.token == f.Token
	if errors.Is(got, replay.ErrHandled) && owner && e.status == "claimed" && f.Kind == replay.Consumed {
		// The call was repeated, and its first run consumed what has been
		// folded since.
		got = nil
	}
	want := map[replay.FinishKind]string{replay.Consumed: "consumed", replay.Released: "released", replay.Parked: "parked"}[f.Kind]
	switch {
	case e.status == "consumed":
		if got != nil && !errors.Is(got, replay.ErrHandled) && !l.forgettable(e.sealed.SealedAt) {
			return fmt.Errorf("%w of a message that is consumed", got)
		}
		if got == nil && !owner {
			return errors.New("another token ended a message that is consumed")
		}
	case got == nil && (!owner || e.status != "claimed" && e.status != want):
		return fmt.Errorf("ended as %s, although the message is %q, owner: %v", want, e.status, owner)
	case got == nil:
		e.status = want
		if want == "parked" {
			e.settled = true
			e.keepFor(replay.DefaultParkedTTL)
		}
		if want == "consumed" && e.sealed.SealedAt.After(l.newest) {
			l.newest = e.sealed.SealedAt
		}
	case errors.Is(got, replay.ErrHandled):
		return fmt.Errorf("%w, although the message is %q", got, e.status)
	case owner && (e.status == "claimed" || e.status == want) && e.known(now) && !l.forgettable(e.sealed.SealedAt):
		return fmt.Errorf("%w, although the message is %q by this token", got, e.status)
	case owner && e.status == "claimed" && e.known(now) && f.Kind == replay.Consumed:
		// The call was repeated, and what its first run consumed is too old to be
		// remembered. It must not be granted again all the same.
		e.status = "consumed"
	case owner && e.status == "claimed" && !e.known(now):
		// The call was repeated, and what its first run released was past its
		// time: a sweep has dropped it.
		e.until = now
	}
	return nil
}

// looked checks the answer to a Query.
func (l *ledger) looked(q *replay.Query, got *replay.Look) error {
	e, now := l.entries[q.ID], time.Now()
	status := ""
	if e != nil {
		status = e.status
	}
	s := got.State.String()
	switch {
	case s == status:
		return nil
	case s == "unused" && status == "" && q.SealedAt.After(got.Stamp.Birth.Add(skew)):
		return nil
	case s == "unknown" && status == "":
		return nil
	case (s == "unused" || s == "unknown") && e != nil && status != "consumed" && !e.known(now):
		return nil
	case s == "unknown" && status == "consumed" && l.forgettable(q.SealedAt):
		return nil
	}
	return fmt.Errorf("a look finds %v, the message is %q", got.State, status)
}

// missing returns what is missing of a stream that settled up to a sequence.
func (l *ledger) missing(id replay.Identity, settled uint64, void map[uint64]bool) (missing map[uint64]bool, unsure map[uint64]bool) {
	missing, unsure = make(map[uint64]bool), make(map[uint64]bool)
	for n := uint64(1); n <= settled; n++ {
		id.Sequence = n
		e := l.entries[id]
		switch {
		case void[n]:
		case e == nil:
			missing[n] = true
		case e.status == "consumed" || e.status == "parked" || e.settled:
		case e.rejected:
			unsure[n] = true // it depends on whether the stream was held then
		case e.status == "claimed" && time.Now().Before(e.until):
		case e.status == "claimed" && l.observes:
			unsure[n] = true
		default:
			missing[n] = true
		}
	}
	return missing, unsure
}
