package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
)

// explainMissing adds to the error of a queue that is not there which queue was perhaps
// meant.
func (c *connection) explainMissing(ctx context.Context, err error, named []string) error {
	if !errors.Is(err, queue.ErrQueueNotFound) {
		return err
	}
	existing := c.existing(ctx)
	for _, name := range named {
		if !slices.Contains(existing, name) {
			return advise(err, "%s", missingAdvice(name, existing))
		}
	}
	return err
}

// existing are the queues that are known to exist: those that the broker lists, or else
// those of the configuration.
func (c *connection) existing(ctx context.Context) []string {
	if l, ok := c.broker.(queueLister); ok {
		if names, err := l.Queues(ctx); err == nil {
			return slices.DeleteFunc(names, func(name string) bool { return name == probeQueue })
		}
	}
	return c.app.settings.queueNames()
}

// missingAdvice says what to do about a queue that is not there.
func missingAdvice(name string, existing []string) string {
	if near := nearest(name, existing); near != "" {
		return fmt.Sprintf("did you mean %s?", display.Safe(near))
	}
	const shown = 8
	if len(existing) > 0 && len(existing) <= shown {
		return "there are: " + display.Safe(wordList(existing))
	}
	return "check its name: qrt stats lists the queues of a file; qrt send makes a queue where the broker makes them on demand"
}

// nearest is the name that differs least, "" if none is near: one character in three may
// be another, and capitals do not count.
func nearest(name string, existing []string) string {
	best, least := "", len([]rune(name))/3+1
	for _, other := range existing {
		if d := distance(strings.ToLower(name), strings.ToLower(other)); d < least {
			best, least = other, d
		}
	}
	return best
}

// distance is how many characters have to be added, removed or changed (Levenshtein).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i, r := range x {
		before := row[0]
		row[0] = i + 1
		for j, q := range y {
			cost := 1
			if r == q {
				cost = 0
			}
			before, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, before+cost)
		}
	}
	return row[len(y)]
}
