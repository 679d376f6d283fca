package postgresqueue

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// order is a settlement whose receipt is known.
type order struct {
	receipt             *receipt
	kind                driver.SettleKind
	delay               time.Duration
	reason, description string
}

// settle implements driver.Source: all of them in one transaction.
func (s *source) settle(ctx context.Context, list []driver.Settlement) []error {
	errs := make([]error, len(list))
	if err := s.usable(ctx); err != nil {
		return fill(errs, err)
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
		switch {
		case err != nil:
			errs[places[k]] = err
			o.receipt.state.Store(open)
		case !done[k]:
			errs[places[k]] = &driver.Error{Kind: driver.LockLost}
			o.receipt.state.Store(open)
			s.forget(o.receipt)
		default:
			o.receipt.state.Store(settled)
			s.forget(o.receipt)
			news = news || o.receipt.session != "" || o.kind != driver.Complete
		}
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
	if s.hold != nil || slices.ContainsFunc(orders, func(o order) bool { return o.receipt.session != "" }) {
		return s.perform(ctx, orders)
	}
	return s.settler.settle(ctx, orders)
}

// fill sets every error.
func fill(errs []error, err error) []error {
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// begin checks a settlement and takes its receipt.
func (s *source) begin(t *driver.Settlement) (order, error) {
	r, err := s.receipt(t.Delivery)
	if err != nil {
		return order{}, err
	}
	switch {
	case t.Kind < driver.Complete || t.Kind > driver.Release:
		return order{}, driver.Errorf(driver.Invalid, "an unknown way to settle")
	case t.Kind == driver.MoveToDeadLetter && s.queue < 0:
		return order{}, driver.Unsupported("dead-lettering a dead letter")
	case t.Delay < 0:
		return order{}, driver.Errorf(driver.Invalid, "a negative delay")
	case !r.state.CompareAndSwap(open, settling):
		return order{}, &driver.Error{Kind: driver.Settled}
	}
	return order{r, t.Kind, t.Delay, storable(t.Reason), storable(t.Description)}, nil
}

// storable is text as the database can store it.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

// receipt returns the receipt of a delivery that was received here.
func (s *source) receipt(d *driver.Delivery) (*receipt, error) {
	if d == nil {
		return nil, driver.Errorf(driver.Invalid, "nil delivery")
	}
	r, ok := d.Receipt.(*receipt)
	if !ok || r.source != s {
		return nil, driver.Errorf(driver.Invalid, "the delivery was not received here")
	}
	return r, nil
}

// renewable returns the receipt of a delivery that is not settled.
func (s *source) renewable(d *driver.Delivery) (*receipt, error) {
	r, err := s.receipt(d)
	if err == nil && r.state.Load() == settled {
		err = &driver.Error{Kind: driver.Settled}
	}
	return r, err
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
	places := bySeq(n, func(i int) int64 { return list[i].receipt.seq })
	for k, i := range places {
		o := &list[i]
		seqs[k], tokens[k], kinds[k] = o.receipt.seq, o.receipt.token, int16(o.kind)
		// Longer by less than a microsecond, never shorter.
		delays[k] = (min(o.delay, maxDuration) + time.Microsecond - 1).Microseconds()
		reasons[k], descriptions[k] = o.reason, o.description
		if o.receipt.session != "" {
			owners = append(owners, o.receipt.session)
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

// renew implements driver.Source for deliveries with locks of their own.
func (s *source) renew(ctx context.Context, list []*driver.Delivery) ([]time.Time, []error) {
	ends, errs := make([]time.Time, len(list)), make([]error, len(list))
	if err := s.usable(ctx); err != nil {
		return ends, fill(errs, err)
	}
	var receipts []*receipt
	var places []int // of the receipts in list
	for i, d := range list {
		r, err := s.renewable(d)
		if errs[i] = err; err == nil {
			receipts, places = append(receipts, r), append(places, i)
		}
	}
	if len(receipts) == 0 {
		return ends, errs
	}
	sorted := bySeq(len(receipts), func(i int) int64 { return receipts[i].seq })
	var seqs []int64
	var tokens [][]byte
	for _, i := range sorted {
		seqs, tokens = append(seqs, receipts[i].seq), append(tokens, receipts[i].token)
	}
	var until time.Time
	var done []bool
	err := s.broker.request(ctx, func(ctx context.Context, c *conn) error {
		until = time.Now().Add(s.settings.Lock) // the lock begins later there
		return c.QueryRow(ctx, s.broker.call("renew", "$1::bigint, $2::bigint[], $3::bytea[], $4::bigint"),
			s.queue, seqs, tokens, s.settings.Lock.Microseconds()).Scan(&done)
	})
	if err == nil && len(done) != len(receipts) {
		err = driver.Errorf(driver.Corrupt, "the server answered for %d of %d locks", len(done), len(receipts))
	}
	s.broker.changed(len(receipts))
	for k, n := range sorted {
		r, i := receipts[n], places[n]
		switch {
		case err != nil:
			errs[i] = err
		case !done[k]:
			errs[i] = &driver.Error{Kind: driver.LockLost}
		default:
			r.until.Store(&until)
			list[i].LockedUntil, ends[i] = until, until
		}
	}
	return ends, errs
}
