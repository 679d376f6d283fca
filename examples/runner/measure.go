package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/queue-runtime/queue/examples/internal/fleet"
)

// scraped is what a process served at /metrics.
type scraped map[string]*dto.MetricFamily

func (s *session) scrape(ctx context.Context, p *fleet.Process) (scraped, error) {
	text, err := s.Scrape(ctx, p)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	return parser.TextToMetricFamilies(strings.NewReader(text))
}

// value is that of one series, 0 if there is none.
func (s scraped) value(name string, labels map[string]string) float64 {
	for _, m := range s[name].GetMetric() {
		found := 0
		for _, l := range m.GetLabel() {
			if v, ok := labels[l.GetName()]; ok && v == l.GetValue() {
				found++
			}
		}
		if found == len(labels) {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

// measure compares what the programs count with what was done. The bots have been
// started anew before the attacks, and so count from there. A message is settled a
// moment before that is counted.
func (s *session) measure(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.stepTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		all, err := s.counts(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		s.report.Metrics = all
		done = !slices.ContainsFunc(all, func(m Metric) bool { return !m.right() })
		select {
		case <-tick.C:
		case <-ctx.Done():
			done = true
		}
	}
	for _, m := range s.report.Metrics {
		if !m.right() {
			s.report.fault("%s: %s is %g, want %g", m.Process, m.Name, m.Value, m.Want)
		}
	}
	s.repeats()
	return nil
}

// counts scrapes all processes once.
func (s *session) counts(ctx context.Context) (all []Metric, err error) {
	of, err := s.scrape(ctx, s.Router)
	if err != nil {
		return nil, err
	}
	add := func(process string, of scraped, name string, labels map[string]string, want int) {
		var text []string
		for _, l := range slices.Sorted(maps.Keys(labels)) {
			text = append(text, fmt.Sprintf("%s=%q", l, labels[l]))
		}
		all = append(all, Metric{
			Process: process, Name: name + "{" + strings.Join(text, ",") + "}", Value: of.value(name, labels), Want: float64(want),
		})
	}
	add(s.Router.Name, of, "webhook_deliveries_total", map[string]string{"outcome": "accepted"}, s.accepted)
	for _, outcome := range slices.Sorted(maps.Keys(s.refused)) {
		add(s.Router.Name, of, "webhook_deliveries_total", map[string]string{"outcome": outcome}, s.refused[outcome])
	}
	for i, q := range fleet.Queues {
		add(s.Router.Name, of, "queue_messages_sent_total", map[string]string{"queue": q, "encrypted": "true"}, s.sent[i])
		add(s.Router.Name, of, "queue_messages_sent_total", map[string]string{"queue": q, "encrypted": "false"}, 0)
	}
	good := 0
	for _, e := range edits {
		if e.want == delivered {
			good++
		}
	}
	for i, q := range fleet.Queues {
		of, err := s.scrape(ctx, s.Bots[i])
		if err != nil {
			return nil, err
		}
		add(q, of, "queue_crypto_enabled", map[string]string{"queue": q, "environment": "development"}, 1)
		add(q, of, "queue_messages_received_total", map[string]string{"queue": q, "encrypted": "true"}, good)
		add(q, of, "queue_messages_received_total", map[string]string{"queue": q, "encrypted": "false"}, 0)
		for _, f := range slices.SortedFunc(maps.Keys(s.findings), func(a, b finding) int { return strings.Compare(a.code, b.code) }) {
			if f.queue != q {
				continue
			}
			add(q, of, "queue_crypto_errors_total", map[string]string{"queue": q, "reason": f.code}, s.findings[f])
			all[len(all)-1].AtLeast = true
			if f.code != keyNotFound { // that one waits
				add(q, of, "queue_messages_dead_lettered_total", map[string]string{"queue": q, "reason": f.code}, s.findings[f])
			}
		}
	}
	return all, nil
}

// repeats counts what was handled more than once by the end.
func (s *session) repeats() {
	times := make(map[string]int)
	for _, t := range s.Tasks() {
		times[t.ID]++
	}
	for id, n := range times {
		if n > 1 {
			s.report.Repeats.Handled++
			s.report.fault("delivery %s was handled %d times", id, n)
		}
	}
}
