package consumer

import (
	"context"
	"encoding/json"
	"io"
	"sync"
)

// Task is what one webhook makes a bot do. It has no text of the webhook but
// names of branches: what a private repository's people write goes no further.
type Task struct {
	ID        string `json:"id"` // the message's: GitHub's delivery GUID
	Bot       string `json:"bot"`
	Event     string `json:"event"`
	Session   string `json:"session"`
	What      string `json:"what"`
	SHA256    string `json:"sha256"` // of the webhook as it arrived
	Encrypted bool   `json:"encrypted"`
	KeyID     string `json:"key_id,omitempty"`
	Sender    string `json:"sender,omitempty"` // who sealed it, authentic
	Delivery  int    `json:"delivery"`         // the broker's count
}

// Tracker takes the tasks, for example a ticket system. Do returns nil once the task is
// safe there; only then is its message completed. The same task may come again, with
// the same ID, and must then have no second effect. It is called from many goroutines
// at once.
type Tracker interface {
	Do(ctx context.Context, t Task) error
}

// Journal is a Tracker that writes each task as one line of JSON. It writes repeats,
// too; readers recognise them by their ID.
type Journal struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

// NewJournal returns a Journal that writes to w.
func NewJournal(w io.Writer) *Journal { return &Journal{w: w} }

// Do implements Tracker.
func (j *Journal) Do(_ context.Context, t Task) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.w.Write(append(line, '\n')) // in one call, so that no crash leaves half of two lines
	return err
}
