package postgresqueue

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sqldriver"
)

// order is a settlement whose receipt is known.
type order struct {
	receipt             *sqldriver.Receipt
	kind                driver.SettleKind
	delay               time.Duration
	reason, description string
}

// settle implements driver.Source: all of them in one transaction.
func (s *source) settle(ctx context.Context, list []driver.Settlement) []error {
	errs := make([]error, len(list))
	if err := s.holder.Usable(ctx); err != nil {
		return sqldriver.Fill(errs, err)
	}
	var orders []order
	var places []int // of the orders in list
	for i := range list {
		o, err := s.begin(&list[i])
		if errs[i] = err; err == nil {
			orders, places = append(orders, o), append(places, i)
		}
	}
	if len(orders) == 0 {
		return errs
	}
	done, err := s.join(ctx, orders)
	news := false // for calls that wait
	for k, o := range orders {
		end := o.receipt.End(err == nil && done[k], err)
		errs[places[k]] = end
		news = news || end == nil && (o.receipt.Session != "" || o.kind != driver.Complete)
	}
	s.broker.changed(len(orders))
	if news {
		s.broker.announce(s.queue, -s.queue)
	}
	return errs
}

// join settles orders together with what other goroutines settle. A message of a session
// shares no call: a transaction that sends to its session could hold up the others.
func (s *source) join(ctx context.Context, orders []order) ([]bool, error) {
	if s.hold != nil || slices.ContainsFunc(orders, func(o order) bool { return o.receipt.Session != "" }) {
		return s.perform(ctx, orders)
	}
	return s.settler.settle(ctx, orders)
}

// begin checks a settlement and takes its receipt.
func (s *source) begin(t *driver.Settlement) (order, error) {
	r, err := s.holder.Begin(t)
	if err != nil {
		return order{}, err
	}
	return order{r, t.Kind, t.Delay, storable(t.Reason), storable(t.Description)}, nil
}

// storable is text as the database can store it.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// perform settles, and says of each order whether its lock still was there.
func (s *source) perform(ctx context.Context, list []order) (done []bool, err error) {
	holder := ""
	if s.hold != nil {
		holder = s.hold.id
	}
	n := len(list)
	seqs, tokens := make([]int64, n), make([][]byte, n)
	kinds, delays := make([]int16, n), make([]int64, n)
	reasons, descriptions := make([]string, n), make([]string, n)
	owners := []string{}
	places := bySeq(n, func(i int) int64 { return list[i].receipt.Seq })
	for k, i := range places {
		o := &list[i]
		seqs[k], tokens[k], kinds[k] = o.receipt.Seq, o.receipt.Token[:], int16(o.kind)
		// Longer by less than a microsecond, never shorter.
		delays[k] = (min(o.delay, maxDuration) + time.Microsecond - 1).Microseconds()
		reasons[k], descriptions[k] = o.reason, o.description
		if o.receipt.Session != "" {
			owners = append(owners, o.receipt.Session)
		}
	}
	slices.Sort(owners)
	owners = slices.Compact(owners)
	var settled []bool
	err = s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		return c.QueryRow(ctx, s.broker.call("settle", "$1::bigint, $2::text, $3::bigint[], $4::bytea[], $5::smallint[], $6::bigint[], $7::text[], $8::text[], $9::text[]"),
			s.queue, holder, seqs, tokens, kinds, delays, reasons, descriptions, owners).Scan(&settled)
	})
	if err == nil && len(settled) != n {
		err = driver.Errorf(driver.Corrupt, "the server answered for %d of %d settlements", len(settled), n)
	}
	if err != nil {
		return nil, err
	}
	done = make([]bool, n)
	for k, i := range places {
		done[i] = settled[k]
	}
	return done, nil
}

// bySeq returns the places of a list by the sequences of their messages. Calls lock the rows
// of several messages in this order, so that two of them do not deadlock.
func bySeq(n int, seq func(i int) int64) []int {
	places := make([]int, n)
	for i := range places {
		places[i] = i
	}
	slices.SortFunc(places, func(a, b int) int { return cmp.Compare(seq(a), seq(b)) })
	return places
}

// heldLock is the lock of one delivery of a list that is renewed.
type heldLock struct {
	receipt *sqldriver.Receipt
	place   int // of the delivery in the list
}

// renew implements driver.Source for deliveries with locks of their own.
func (s *source) renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	if err := s.holder.Usable(ctx); err != nil {
		return sqldriver.NotRenewed(len(list), err)
	}
	results := make([]driver.RenewResult, len(list))
	var locks []heldLock
	for i, d := range list {
		r, err := s.holder.Renewable(d)
		if results[i].Err = err; err == nil {
			locks = append(locks, heldLock{r, i})
		}
	}
	if len(locks) == 0 {
		return results
	}
	// In the order of bySeq.
	slices.SortFunc(locks, func(a, b heldLock) int { return cmp.Compare(a.receipt.Seq, b.receipt.Seq) })
	var seqs []int64
	var tokens [][]byte // two arrays are what the function of the database takes
	for _, l := range locks {
		seqs, tokens = append(seqs, l.receipt.Seq), append(tokens, l.receipt.Token[:])
	}
	var until time.Time
	var done []bool
	err := s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		until = time.Now().Add(s.settings.Lock) // the lock begins later there
		return c.QueryRow(ctx, s.broker.call("renew", "$1::bigint, $2::bigint[], $3::bytea[], $4::bigint"),
			s.queue, seqs, tokens, s.settings.Lock.Microseconds()).Scan(&done)
	})
	if err == nil && len(done) != len(locks) {
		err = driver.Errorf(driver.Corrupt, "the server answered for %d of %d locks", len(done), len(locks))
	}
	s.broker.changed(len(locks))
	for k, l := range locks {
		x := &results[l.place]
		switch {
		case err != nil:
			x.Err = err
		case !done[k]:
			x.Err = &driver.Error{Kind: driver.LockLost}
		default:
			l.receipt.SetUntil(until)
			list[l.place].LockedUntil, x.LockedUntil = until, until
		}
	}
	return results
}
