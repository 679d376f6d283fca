package deadletter

import (
	"fmt"
	"slices"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// Filter selects dead letters. All that is set must match; the zero Filter matches
// everything. Reasons, times and key IDs are not authenticated.
type Filter struct {
	Reasons    []string  // codes, such as "authentication_failed"
	Since      time.Time // dead-lettered at or after; zero means no bound
	Until      time.Time // dead-lettered before; zero means no bound
	SessionIDs []string
	MessageIDs []string
	KeyIDs     []keys.ID
	// Limit is how many matches are taken at most; 0 means all. Less than zero is
	// queue.ErrInvalidOptions.
	Limit int
}

// check returns an error for a filter that cannot be meant. A nil Filter is valid.
func (f *Filter) check() error {
	if f != nil && f.Limit < 0 {
		return fmt.Errorf("%w: Filter.Limit is negative", queue.ErrInvalidOptions)
	}
	return nil
}

// match judges what can be told without opening.
func (f *Filter) match(m *driver.Delivery) bool {
	if f == nil {
		return true
	}
	why := reasonOf(m)
	switch {
	case len(f.Reasons) > 0 && !slices.Contains(f.Reasons, why.Reason),
		!f.Since.IsZero() && why.At.Before(f.Since),
		!f.Until.IsZero() && !why.At.Before(f.Until),
		len(f.SessionIDs) > 0 && !slices.Contains(f.SessionIDs, m.SessionID),
		len(f.MessageIDs) > 0 && !slices.Contains(f.MessageIDs, m.ID):
		return false
	}
	if len(f.KeyIDs) > 0 {
		e, err := envelope.Parse(m.Body)
		return err == nil && slices.Contains(f.KeyIDs, keys.ID(e.KeyID))
	}
	return true
}

// limit is how many matches are taken at most; 0 means all.
func (f *Filter) limit() int {
	if f == nil {
		return 0
	}
	return f.Limit
}

// reasonOf is why a letter was dead-lettered; zero if the broker keeps no reason.
func reasonOf(m *driver.Delivery) driver.DeadLetter {
	if m.DeadLetter == nil {
		return driver.DeadLetter{}
	}
	return *m.DeadLetter
}
