package postgresqueue

import (
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

const (
	// claimMessages and claimBytes bound what one Receive takes, in messages and in
	// bytes of bodies; the first message is taken whatever its size.
	claimMessages = 500
	claimBytes    = 32 << 20
)

// receive implements driver.Source.
func (s *source) receive(ctx context.Context, limit int, wait time.Duration) ([]*driver.Delivery, error) {
	if limit < 1 {
		return nil, driver.Errorf(driver.Invalid, "max is %d, it must be at least 1", limit)
	}
	if err := s.holder.Usable(ctx); err != nil {
		return nil, err
	}
	var out []*driver.Delivery
	err := s.await(ctx, wait, func() (done bool, err error) {
		if err := s.holder.Usable(ctx); err != nil {
			return false, err
		}
		out, err = s.claim(ctx, min(limit, claimMessages))
		return len(out) > 0, err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// claim takes what can be received now, in one round trip.
func (s *source) claim(ctx context.Context, limit int) ([]*driver.Delivery, error) {
	whole, cancel := unhurried(ctx)
	defer cancel()
	token := sqldriver.NewToken()
	var out []*driver.Delivery
	err := s.broker.request(whole, func(ctx context.Context, c *conn) (err error) {
		var rows pgx.Rows
		begin := time.Now() // the lock begins later there
		if s.hold != nil {
			token = s.hold.token
			rows, err = c.Query(ctx, s.broker.call("claim_session", "$1::bigint, $2::text, $3::bytea, $4::integer, $5::integer, $6::bigint"),
				s.queue, s.hold.id, token, s.settings.MaxDeliveries, limit, int64(claimBytes))
		} else {
			rows, err = c.Query(ctx, s.broker.call("claim", "$1::bigint, $2::bytea, $3::bigint, $4::integer, $5::integer, $6::bigint"),
				s.queue, token, s.settings.Lock.Microseconds(), s.settings.MaxDeliveries, limit, int64(claimBytes))
		}
		if err != nil {
			return err
		}
		out, err = s.deliveries(rows)
		s.lock(out, token, begin)
		return err
	})
	switch over := s.holder.Usable(ctx); {
	case len(out) > 0:
		return s.hand(ctx, out)
	case err != nil && over != nil:
		return nil, over // perhaps why it failed
	}
	return nil, err
}

// hand notes what was claimed for the caller, or gives it back if the caller has left or
// the source is closed.
func (s *source) hand(ctx context.Context, out []*driver.Delivery) ([]*driver.Delivery, error) {
	s.broker.changed(len(out))
	return s.holder.Hand(ctx, out, func(all []*sqldriver.Receipt) {
		_ = s.giveBack(ctx, all, driver.Release) // if this fails the locks run out
	})
}

// lock gives deliveries their receipts, for locks that began at begin.
func (s *source) lock(list []*driver.Delivery, token []byte, begin time.Time) {
	until := begin.Add(s.settings.Lock)
	for _, d := range list {
		seq, _ := strconv.ParseInt(d.BrokerID, 10, 64) // deliveries made it
		r := s.holder.NewReceipt(seq, token, d.SessionID)
		if s.hold != nil {
			d.LockedUntil = s.hold.end()
		} else {
			r.SetUntil(until)
			d.LockedUntil = until
		}
		d.Receipt = r
	}
}

// deliveries reads rows of the type delivery, and sorts them: UPDATE ... RETURNING has
// no order.
func (s *source) deliveries(rows pgx.Rows) ([]*driver.Delivery, error) {
	defer rows.Close()
	type numbered struct {
		seq      int64
		delivery *driver.Delivery
	}
	var all []numbered
	for rows.Next() {
		seq, d, err := s.delivery(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, numbered{seq, d})
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b numbered) int { return int(min(max(a.seq-b.seq, -1), 1)) })
	out := make([]*driver.Delivery, len(all))
	for i, n := range all {
		out[i] = n.delivery
	}
	return out, nil
}

// delivery reads one row. Contents that are missing, or not as they were stored, are
// handed up as undecodable: such a message must not block the queue, and must not be
// deleted either. An infinite time, which the database can store, is none.
func (s *source) delivery(rows pgx.Rows) (int64, *driver.Delivery, error) {
	var seq, count int64
	var enqueued, died, notBefore pgtype.Timestamptz
	var session, reason, description, id, correlation, contentType, dedup *string
	var attributes, trace, body []byte
	var sealed *bool
	var ttl *int64
	err := rows.Scan(&seq, &count, &enqueued, &session, &reason, &description, &died,
		&id, &correlation, &contentType, &attributes, &trace, &sealed, &notBefore, &ttl, &dedup, &body)
	if err != nil {
		return 0, nil, err
	}
	d := &driver.Delivery{
		Message: driver.Message{
			ID: value(id), SessionID: value(session), CorrelationID: value(correlation), ContentType: value(contentType),
			Body: body, Sealed: value(sealed), NotBefore: notBefore.Time, TTL: time.Duration(value(ttl)), DedupID: value(dedup),
		},
		BrokerID:   brokerID(seq),
		Count:      int(min(max(count, 0), math.MaxInt32)),
		EnqueuedAt: enqueued.Time,
	}
	var first, second error
	d.Attributes, first = sqldriver.DecodeAttributes(attributes)
	d.Trace, second = sqldriver.DecodeAttributes(trace)
	d.Undecodable = id == nil || first != nil || second != nil || notBefore.InfinityModifier != pgtype.Finite
	if died.Valid {
		d.DeadLetter = &driver.DeadLetter{Reason: value(reason), Description: value(description), Queue: s.name, At: died.Time}
	}
	return seq, d, nil
}

// value is what p points to, the zero value if it is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

func brokerID(seq int64) string { return strconv.FormatInt(seq, 10) }
