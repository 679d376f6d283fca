package postgresqueue

import (
	"context"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

// source is what messages are received from: an open queue, an open dead-letter queue,
// or a session.
type source struct {
	broker   *Broker
	queue    int64 // negative: the dead letters of the queue of that number
	name     string
	settings QueueOptions // the queue's, with what this holder asked for
	hold     *hold        // of a session, nil otherwise
	holder   sqldriver.Holder
	settler  *settler // nil in a session
}

func newSource(b *Broker, queue int64, name string, settings QueueOptions) source {
	return source{broker: b, queue: queue, name: name, settings: settings, holder: sqldriver.NewHolder(queue)}
}

// giveBack settles deliveries of which no caller will hear again: as Abandon if one
// has seen them, as Release otherwise. Callers often close because their context is
// over: it goes on for a while after that.
func (s *source) giveBack(ctx context.Context, all []*sqldriver.Receipt, kind driver.SettleKind) error {
	if len(all) == 0 {
		return nil
	}
	list := make([]order, len(all))
	for i, r := range all {
		list[i] = order{receipt: r, kind: kind}
	}
	err := sqldriver.GiveBack(ctx, errSilent, func(ctx context.Context) error {
		_, err := s.perform(ctx, list)
		return err
	})
	s.broker.announce(s.queue, -s.queue)
	return err
}
