package cli

import (
	"context"
	"strings"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/deadletter"
)

// shortened ends an ID that a table has shortened.
const shortened = "…"

// fullID is the message ID of a dead letter that an argument stands for: that ID, or the
// only one that begins so.
func fullID(ctx context.Context, d *deadletter.Queue, text string) (string, error) {
	for _, err := range d.All(ctx, &deadletter.Filter{MessageIDs: []string{text}, Limit: 1}) {
		return text, err
	}
	prefix := strings.TrimSuffix(text, shortened)
	found := ""
	for p, err := range d.All(ctx, nil) {
		switch {
		case err != nil:
			return "", err
		case !strings.HasPrefix(p.ID, prefix) || p.ID == found:
		case found != "":
			return "", usagef("%q is the beginning of several message IDs, such as %q and %q: give more of it", display.Safe(text), display.Safe(found), display.Safe(p.ID))
		default:
			found = p.ID
		}
	}
	if found == "" {
		return text, nil // the caller says that there is none
	}
	return found, nil
}

// resolveIDs puts full message IDs in the place of those that a table has shortened. Only
// such are resolved: what deletes or moves must not take more than was named.
func resolveIDs(ctx context.Context, d *deadletter.Queue, f *deadletter.Filter) error {
	for i, id := range f.MessageIDs {
		if !strings.HasSuffix(id, shortened) {
			continue
		}
		full, err := fullID(ctx, d, id)
		if err != nil {
			return err
		}
		f.MessageIDs[i] = full
	}
	return nil
}
