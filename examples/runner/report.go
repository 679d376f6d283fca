package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Report is all that was seen.
type Report struct {
	Webhooks []Webhook `json:"webhooks"`
	Repeats  Repeats   `json:"repeats"`
	Refused  []Refused `json:"refused"`
	Attacks  []Attack  `json:"attacks"`
	Metrics  []Metric  `json:"metrics"`

	// Faults are what differs from what was sent. None: all is well.
	Faults []string `json:"faults"`

	BuildSeconds float64 `json:"build_seconds"`
	RunSeconds   float64 `json:"run_seconds"`
}

// Webhook is one that was posted, and what arrived of it.
type Webhook struct {
	Event    string `json:"event"`
	Delivery string `json:"delivery"`
	Bytes    int    `json:"bytes"`
	SHA256   string `json:"sha256"` // as sent
	Status   int    `json:"status"` // of the answer

	Bot     string `json:"bot"` // that reported it; empty means none did
	Arrived string `json:"arrived_sha256"`
	KeyID   string `json:"key_id"`
	Session string `json:"session"`
	What    string `json:"what"` // the bot makes of it
}

// Repeats are deliveries that were posted once more.
type Repeats struct {
	Posted  int `json:"posted"`
	Handled int `json:"handled"` // a second time
}

// Refused is a request that the router must not take.
type Refused struct {
	What   string `json:"what"`
	Status int    `json:"status"`
	Answer string `json:"answer"`
}

// Attack is what an attacker who controls the broker did to a stored message.
type Attack struct {
	Queue   string `json:"queue"`
	What    string `json:"what"`
	Want    string `json:"want"`
	Outcome string `json:"outcome"`
}

// Metric is one that a program served, beside what the runner did.
type Metric struct {
	Process string  `json:"process"`
	Name    string  `json:"name"`
	Value   float64 `json:"value"`
	Want    float64 `json:"want"`
	// AtLeast says that Value may be more than Want: a message that waits is looked at
	// again, and each look counts.
	AtLeast bool `json:"at_least,omitempty"`
}

// right reports whether the value is one that is wanted.
func (m *Metric) right() bool { return m.Value == m.Want || m.AtLeast && m.Value > m.Want }

func (r *Report) fault(format string, args ...any) {
	r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
}

// printer writes lines until one fails.
type printer struct {
	w   *tabwriter.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// end flushes, so that the next table has columns of its own.
func (p *printer) end() {
	p.line("")
	if p.err == nil {
		p.err = p.w.Flush()
	}
}

const hashShown = 12 // characters of a hash

func short(hash string) string { return hash[:min(len(hash), hashShown)] }

func (r *Report) print(w io.Writer) error {
	p := &printer{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	p.line("What arrived where: %d webhooks, as the bots report them", len(r.Webhooks))
	p.end()
	p.line("  event\tbytes\tsent\tarrived\tbot\tkey\twhat the bot makes of it")
	for _, h := range r.Webhooks {
		p.line("  %s\t%d\t%s\t%s\t%s\t%s\t%s", h.Event, h.Bytes, short(h.SHA256), short(h.Arrived), h.Bot, h.KeyID, h.What)
	}
	p.end()
	p.line("Posted again under the same delivery: %d; handled twice: %d", r.Repeats.Posted, r.Repeats.Handled)
	p.end()
	p.line("What the router refused")
	p.end()
	for _, x := range r.Refused {
		p.line("  %s\t%d\t%s", x.What, x.Status, x.Answer)
	}
	p.end()
	p.line("What became of messages that were edited in the broker's file")
	p.end()
	p.line("  queue\tedit\toutcome")
	for _, a := range r.Attacks {
		p.line("  %s\t%s\t%s", a.Queue, a.What, a.Outcome)
	}
	p.end()
	p.line("What the programs' metrics say")
	p.end()
	p.line("  process\tmetric\tvalue\twant")
	for _, m := range r.Metrics {
		want := fmt.Sprint(m.Want)
		if m.AtLeast {
			want = "at least " + want
		}
		p.line("  %s\t%s\t%g\t%s", m.Process, m.Name, m.Value, want)
	}
	p.end()
	if len(r.Faults) == 0 {
		p.line("All of it is as it was sent. Built in %.1f s, ran for %.1f s.", r.BuildSeconds, r.RunSeconds)
	} else {
		p.line("What differs:")
		for _, f := range r.Faults {
			p.line("  %s", f)
		}
	}
	if p.err == nil {
		p.err = p.w.Flush()
	}
	return p.err
}
