package otelqueue

import (
	"maps"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// shape says which labels a series has.
type shape uint8

const (
	byQueue shape = iota
	byEncrypted
	byEnvironment
	byErrorType
	byDisposition
	byReason
	byResult
	byOutcome
	byOperation
	byKey
	byKeyUse
	byFailure
	byCache
)

// names are the labels of each shape.
var names = [...][]attribute.Key{
	byQueue:       {"queue"},
	byEncrypted:   {"queue", "encrypted"},
	byEnvironment: {"queue", "environment"},
	byErrorType:   {"queue", "error_type"},
	byDisposition: {"queue", "disposition"},
	byReason:      {"queue", "reason"},
	byResult:      {"queue", "result"},
	byOutcome:     {"queue", "outcome"},
	byOperation:   {"queue", "operation"},
	byKey:         {"queue", "key_id"},
	byKeyUse:      {"queue", "key_id", "operation"},
	byFailure:     {"queue", "operation", "error_type"},
	byCache:       {"cache", "call", "result"},
}

// labels are the labels of one series.
type labels struct {
	shape
	first, second, third string
}

// set returns the labels as the API has them.
func (l labels) set() metric.MeasurementOption {
	values := [...]string{l.first, l.second, l.third}
	attributes := make([]attribute.KeyValue, 0, len(values))
	for n, name := range names[l.shape] {
		if name == "encrypted" {
			attributes = append(attributes, name.Bool(values[n] == "true"))
			continue
		}
		attributes = append(attributes, name.String(values[n]))
	}
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

// table holds something for each series, or each queue, made once. The map is replaced
// when one is added, which is seldom, so that looking one up, which each message does,
// takes no lock. The zero value is ready to use.
type table[K comparable, V any] struct {
	all    atomic.Pointer[map[K]*V]
	adding sync.Mutex // held while all is replaced
}

func (t *table[K, V]) get(k K, fresh func(K) *V) *V {
	if all := t.all.Load(); all != nil {
		if v, ok := (*all)[k]; ok {
			return v
		}
	}
	t.adding.Lock()
	defer t.adding.Unlock()
	next := make(map[K]*V)
	if all := t.all.Load(); all != nil {
		if v, ok := (*all)[k]; ok {
			return v
		}
		maps.Copy(next, *all)
	}
	v := fresh(k)
	next[k] = v
	t.all.Store(&next)
	return v
}

// series are labels as options, so that what is counted allocates nothing.
type series struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func newSeries(l labels) *series {
	o := l.set()
	return &series{add: []metric.AddOption{o}, record: []metric.RecordOption{o}}
}

// tally counts what every message counts. The meter asks for it when it collects: an
// addition is one of the processor's, at a fraction of what it costs through the API.
type tally struct {
	table[labels, count]
	instrument metric.Int64Observable
}

type count struct {
	labels
	n atomic.Int64
	o []metric.ObserveOption
}

func newCount(l labels) *count { return &count{labels: l, o: []metric.ObserveOption{l.set()}} }

// at is a series, which begins with that.
func (t *tally) at(l labels) *count { return t.get(l, newCount) }

func (t *tally) report(o metric.Observer) {
	if all := t.all.Load(); all != nil {
		for _, c := range *all {
			o.ObserveInt64(t.instrument, c.n.Load(), c.o...)
		}
	}
}
