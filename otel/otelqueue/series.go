package otelqueue

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/queue-runtime/queue/observe"
)

// shape says which labels a series has.
type shape uint8

const (
	byQueue shape = iota
	byEncrypted
	byEnvironment
	byReason
	byDisposition
	byState
	byResult
	byPlanned
	byKey
	byKeyUse
	byFailure
	bySettleFailure
	byCache
)

// labelNames are the labels of each shape.
var labelNames = [...][]attribute.Key{
	byQueue:         {"queue"},
	byEncrypted:     {"queue", "encrypted"},
	byEnvironment:   {"queue", "environment"},
	byReason:        {"queue", "reason"},
	byDisposition:   {"queue", "disposition"},
	byState:         {"queue", "state"},
	byResult:        {"queue", "result"},
	byPlanned:       {"queue", "planned"},
	byKey:           {"queue", "key_id"},
	byKeyUse:        {"queue", "key_id", "operation"},
	byFailure:       {"queue", "operation", "error_type"},
	bySettleFailure: {"queue", "disposition", "error_type"}, // and operation="settle"
	byCache:         {"cache", "call", "result"},
}

// labels are the labels of one series, in the order of labelNames.
type labels struct {
	shape
	first, second, third string
}

// set returns the labels as the API has them.
func (l labels) set() metric.MeasurementOption {
	values := [...]string{l.first, l.second, l.third}
	attributes := make([]attribute.KeyValue, 0, len(values)+1)
	for n, name := range labelNames[l.shape] {
		switch name {
		case "encrypted", "planned":
			attributes = append(attributes, name.Bool(values[n] == "true"))
		default:
			attributes = append(attributes, name.String(values[n]))
		}
	}
	if l.shape == bySettleFailure {
		attributes = append(attributes, attribute.String("operation", string(observe.Settle)))
	}
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

// series are labels as options, so that what is counted allocates nothing.
type series struct {
	add     []metric.AddOption
	record  []metric.RecordOption
	observe []metric.ObserveOption
}

func newSeries(l labels) *series {
	o := l.set()
	return &series{add: []metric.AddOption{o}, record: []metric.RecordOption{o}, observe: []metric.ObserveOption{o}}
}

// sums are the series of an instrument to which every message adds. The meter asks for
// them when it collects: an addition is one of the processor's, at a fraction of what
// it costs through the API. A series begins with its first addition.
type sums struct {
	table[labels, sum]
	instrument metric.Int64Observable
}

type sum struct {
	labels labels
	n      atomic.Int64
	o      []metric.ObserveOption
}

func newSum(l labels) *sum { return &sum{labels: l, o: []metric.ObserveOption{l.set()}} }

func (s *sums) report(o metric.Observer) {
	s.each(func(one *sum) { o.ObserveInt64(s.instrument, one.n.Load(), one.o...) })
}

// latestSum is the series of sums that was added to last. For one key, which seals
// all messages for weeks, it is always the same.
type latestSum struct{ atomic.Pointer[sum] }

func (p *latestSum) add(to *sums, l labels, n int64) {
	s := p.Load()
	if s == nil || s.labels != l {
		s = to.get(l, newSum)
		p.Store(s)
	}
	s.n.Add(n)
}

// queueSeries are the series of one queue to which nearly every message adds. One
// look-up by the queue's name finds them all; a look-up by all labels of each would
// cost several times that.
type queueSeries struct {
	queue     *series // with no other label
	completed *series // with the disposition completed

	// By whether the message was encrypted: plaintext first.
	sent, received [2]latestSum

	running, sealed, opened latestSum
}

func (i *instruments) of(queue string) *queueSeries { return i.queues.get(queue, i.newQueueSeries) }

func (i *instruments) newQueueSeries(queue string) *queueSeries {
	return &queueSeries{
		queue:     i.series(labels{byQueue, queue, "", ""}),
		completed: i.series(labels{byDisposition, queue, completed, ""}),
	}
}

func (i *instruments) series(l labels) *series { return i.all.get(l, newSeries) }
