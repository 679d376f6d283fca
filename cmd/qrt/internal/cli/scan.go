package cli

import (
	"context"
	"errors"
	"iter"

	"github.com/queue-runtime/queue/driver"
)

// peekAll returns all messages of a queue as they are stored. A broker that
// cannot peek answers errors.ErrUnsupported.
func peekAll(ctx context.Context, q driver.Queue) iter.Seq2[*driver.Delivery, error] {
	return func(yield func(*driver.Delivery, error) bool) {
		if q.Capabilities().Peek == driver.None {
			yield(nil, driver.Unsupported("looking at messages without taking them"))
			return
		}
		for cursor := ""; ; {
			batch, next, err := q.Peek(ctx, cursor, 100)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, d := range batch {
				if !yield(d, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}

// unsupported reports whether a broker cannot do something.
func unsupported(err error) bool { return errors.Is(err, errors.ErrUnsupported) }
