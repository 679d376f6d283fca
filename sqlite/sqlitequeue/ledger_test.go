package sqlitequeue_test

import (
	"bufio"
	"context"
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// ledger reads the pipe of the kill tests and holds what happens against the
// promises of the driver.
type ledger struct {
	testing.TB
	lines *bufio.Scanner
	round int
	at    int // number of the current line

	doing map[string]string // what a process has begun and not ended, by its name
	claim map[string]int    // line of its last claim
	next  map[string]int    // number after the last that a producer has announced

	sent      map[string]bool // confirmed
	got       map[string]bool
	finishing map[string]bool // complete was announced
	completed map[string]int  // line of the confirmation
	waiting   map[string][]string
	lastFirst map[string]int // by session: the highest number that came for a first time

	kills map[string]int // by what was in flight, "" for nothing
	again int            // redeliveries
}

type event struct{ name, verb string }

func newLedger(tb testing.TB) *ledger {
	return &ledger{
		TB:    tb,
		doing: make(map[string]string), claim: make(map[string]int), next: make(map[string]int),
		sent: make(map[string]bool), got: make(map[string]bool),
		finishing: make(map[string]bool), completed: make(map[string]int),
		waiting: make(map[string][]string), lastFirst: make(map[string]int),
		kills: make(map[string]int),
	}
}

// read takes one line.
func (l *ledger) read() event {
	l.Helper()
	if !l.lines.Scan() {
		l.Fatalf("the pipe ended: %v", l.lines.Err())
	}
	l.at++
	f := strings.Fields(l.lines.Text())
	name, verb := f[0], f[1]
	switch verb {
	case "send":
		l.doing[name] = "send"
		l.next[name] = number(l, f[4]) + 1
	case "sent":
		delete(l.doing, name)
		l.sent[f[2]] = true
		// IDs are NAME.NUMBER and the session is known from the number.
		if s := sessionOf(f[2]); s != "" && !l.finishing[f[2]] {
			l.waiting[s] = append(l.waiting[s], f[2])
		}
	case "claim":
		l.doing[name], l.claim[name] = "claim", l.at
	case "got":
		l.delivered(name, f[2], f[3], number(l, f[4]), number(l, f[5]))
	case "claimed":
		delete(l.doing, name)
	case "complete":
		l.doing[name] = "complete"
		l.finishing[f[2]] = true
		s := sessionOf(f[2])
		for i, id := range l.waiting[s] {
			if id == f[2] {
				l.waiting[s] = append(l.waiting[s][:i:i], l.waiting[s][i+1:]...)
				break
			}
		}
	case "completed":
		delete(l.doing, name)
		l.completed[f[2]] = l.at
	case "lost":
		delete(l.doing, name)
	}
	return event{name, verb}
}

func number(tb testing.TB, s string) int {
	tb.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// sessionOf is what producerRole chooses.
func sessionOf(id string) string {
	name, n, _ := strings.Cut(id, ".")
	if i, err := strconv.Atoi(n); err == nil && i%4 != 0 {
		return name + "." + strconv.Itoa(i%4)
	}
	return ""
}

// delivered checks one delivery.
func (l *ledger) delivered(name, id, session string, number, count int) {
	l.Helper()
	if session != strconv.Quote(sessionOf(id)) {
		l.Errorf("line %d: message %s came in session %s", l.at, id, session)
	}
	if done := l.completed[id]; done != 0 && l.claim[name] > done {
		l.Errorf("line %d: message %s was completed at line %d and came again in a claim that began at line %d", l.at, id, done, l.claim[name])
	}
	if l.got[id] {
		l.again++
		if count == 1 {
			l.Errorf("line %d: message %s came again and its Count is 1", l.at, id)
		}
	}
	if s := sessionOf(id); s != "" {
		for _, earlier := range l.waiting[s] {
			if _, n, _ := strings.Cut(earlier, "."); atoi(n) < number {
				l.Errorf("line %d: message %s overtook %s of its session", l.at, id, earlier)
			}
		}
		if !l.got[id] {
			if number < l.lastFirst[s] {
				l.Errorf("line %d: message %s came for the first time after number %d of its session", l.at, id, l.lastFirst[s])
			}
			l.lastFirst[s] = number
		}
	}
	l.got[id] = true
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

// killed notes that a process was killed; its last line has been read.
func (l *ledger) killed(name string) {
	doing := l.doing[name]
	left := len(l.sent) - len(l.got)
	if doing == "claim" && left < 10 {
		doing = "" // it may just have waited
	}
	l.kills[doing]++
	if doing == "send" || doing == "claim" {
		l.Logf("round %d, line %d: %s was killed with a %s in flight and %d messages waiting", l.round, l.at, name, doing, left)
		l.round++
	}
	delete(l.doing, name)
}

// finish checks what must hold at the end.
func (l *ledger) finish(b *sqlitequeue.Broker, q driver.Queue) {
	for id := range l.sent {
		if !l.got[id] {
			l.Errorf("message %s was confirmed and never received", id)
		}
	}
	st, err := q.Stats(context.Background())
	if err != nil || st.Ready+st.InFlight+st.Scheduled+st.DeadLetters != 0 {
		l.Errorf("at the end: %+v, %v; want an empty queue", st, err)
	}
	holds(l, b.Path())
	if err := b.Check(context.Background()); err != nil {
		l.Errorf("the file is damaged: %v", err)
	}
	l.Logf("%d kills in a send, %d in a claim, %d in a settlement, %d in none; %d messages sent, %d received, %d of them again, %d completed",
		l.kills["send"], l.kills["claim"], l.kills["complete"], l.kills[""], len(l.sent), len(l.got), l.again, len(l.completed))
	if len(l.sent) == 0 || len(l.completed) == 0 {
		l.Errorf("nothing was sent or nothing completed")
	}
}
