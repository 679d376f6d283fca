// Package accounting decides what a receiver reports about messages that its replay
// store says are missing. It does no I/O and reads no clock.
//
// A sequence is missing in the store's account if its sender says that it is settled and
// no receiver has seen it. It counts as late once it was missing for [Limits].Late, and as
// missing once it was for [Limits].Missing: then no receiver takes it any more.
package accounting

import (
	"time"

	"github.com/queue-runtime/queue/replay"
)

// MaxRanges bounds the ranges that one [Account] reports. What is beyond it is counted,
// and reported by the next account, which is due at once.
const MaxRanges = 4096

// Limits are the ages from which on missing messages are reported. Both are above zero.
type Limits struct {
	Late    time.Duration // at this age they count as late, unless they count as missing
	Missing time.Duration // at this age they count as missing
}

// LimitsOf returns the limits of a receiver. Until a message has been missing for
// missingAfter its delay is taken for an ordinary one, even if it cannot be fresh any more.
func LimitsOf(missingAfter, maxMessageAge, maxClockSkew time.Duration) Limits {
	return Limits{Late: missingAfter, Missing: max(missingAfter, maxMessageAge+maxClockSkew)}
}

// Report is what became due of one stream.
type Report struct {
	Sender string
	Stream [16]byte
	Kind   replay.NoteKind // NoteLate or NoteMissing
	Ranges []replay.Range  // ascending
}

// Notes returns what to enter into the store, one note for each range.
func (r *Report) Notes() []replay.Note {
	notes := make([]replay.Note, len(r.Ranges))
	for i, v := range r.Ranges {
		notes[i] = replay.Note{Sender: r.Sender, Stream: r.Stream, Range: v, Kind: r.Kind}
	}
	return notes
}

// Entered returns the part of r that s lists as missing and as reported so: what a call with
// the Notes of r has entered whose answer was lost, or what another receiver entered.
func (r *Report) Entered(s *replay.Stream) []replay.Range {
	if s.Sender != r.Sender || s.Stream != r.Stream {
		return nil
	}
	var out []replay.Range
	for i := range s.Missing {
		m := &s.Missing[i]
		if r.Kind == replay.NoteMissing && !m.ReportedMissing || r.Kind == replay.NoteLate && !m.ReportedLate {
			continue
		}
		for _, v := range r.Ranges {
			if both := (replay.Range{First: max(v.First, m.Range.First), Last: min(v.Last, m.Range.Last)}); both.First <= both.Last {
				out = append(out, both)
			}
		}
	}
	return out
}

// StreamID names a stream whose account is not plausible.
type StreamID struct {
	Sender string
	Stream [16]byte
}

// Account sums up the streams of one group at one moment. The zero value is the account
// of no stream.
type Account struct {
	// Late and Missing count the messages that are so now, reported or not. None is in
	// both.
	Late, Missing uint64
	// Reports are to be reported, unless another receiver did.
	Reports []Report
	// Implausible are streams of which more is missing than a store lists. They count
	// in neither number.
	Implausible []StreamID
	// Next is when the next range is due. Zero if none is missing that was not reported.
	Next time.Time

	ranges int // in Reports
}

// Add takes a stream into the account of now.
func (a *Account) Add(s *replay.Stream, now time.Time, l Limits) {
	if s.Implausible {
		a.Implausible = append(a.Implausible, StreamID{s.Sender, s.Stream})
		return
	}
	a.Missing += s.MissingForgotten
	late := Report{Sender: s.Sender, Stream: s.Stream, Kind: replay.NoteLate}
	missing := Report{Sender: s.Sender, Stream: s.Stream, Kind: replay.NoteMissing}
	for i := range s.Missing {
		m := &s.Missing[i]
		n := m.Range.Last - m.Range.First + 1
		switch d := decide(m, now, l); d.state {
		case isMissing:
			a.Missing += n
			a.report(&missing, m.Range, d, now)
		case isLate:
			a.Late += n
			a.report(&late, m.Range, d, now)
		case isDelayed:
			a.due(d.next)
		}
	}
	for _, r := range []Report{missing, late} {
		if len(r.Ranges) > 0 {
			a.Reports = append(a.Reports, r)
		}
	}
}

// report adds a range to r unless it was reported, and notes when it is due next.
func (a *Account) report(r *Report, v replay.Range, d decision, now time.Time) {
	switch {
	case d.reported:
	case a.ranges == MaxRanges:
		a.due(now)
	default:
		r.Ranges = append(r.Ranges, v)
		a.ranges++
	}
	a.due(d.next)
}

// due notes a time at which something has to be reported; zero is none.
func (a *Account) due(t time.Time) {
	if !t.IsZero() && (a.Next.IsZero() || t.Before(a.Next)) {
		a.Next = t
	}
}

// state is how long a message has been missing.
type state uint8

const (
	isDelayed state = iota // not for long enough
	isLate
	isMissing
)

// decision is what to do about a run of sequences.
type decision struct {
	state    state
	reported bool      // as what it is
	next     time.Time // when its state changes; zero if it does not
}

func decide(m *replay.Missing, now time.Time, l Limits) decision {
	age := now.Sub(m.Since)
	switch {
	case age >= l.Missing:
		return decision{state: isMissing, reported: m.ReportedMissing}
	case age >= l.Late:
		// Once reported as missing it is not reported as late: its limit was raised since.
		return decision{isLate, m.ReportedLate || m.ReportedMissing, m.Since.Add(l.Missing)}
	}
	return decision{state: isDelayed, next: m.Since.Add(min(l.Late, l.Missing))}
}

const (
	// maxPause is for the gauges: they follow what arrives after all within it.
	maxPause = 15 * time.Minute
	// minPause bounds how often a small store is looked at.
	minPause = time.Second
	// lookShare is how many times as long as a look took the store is left alone: a
	// sender whose messages go missing one by one costs it at most 5 % of its time.
	lookShare = 20
)

// Pause is how long to wait at now for the next look at the streams, after one that took
// so long and found that something is due at next; zero means nothing.
func Pause(next, now time.Time, took, missingAfter time.Duration) time.Duration {
	pause := min(missingAfter/4, maxPause)
	if !next.IsZero() {
		pause = min(pause, next.Sub(now))
	}
	return max(pause, lookShare*took, minPause)
}
