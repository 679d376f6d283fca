package replaytest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// Fixture is one memory that handles are opened on.
type Fixture struct {
	// Open returns another handle on the memory, with a clock of its own that
	// is off by shift if the store judges anything by the process's clock. A
	// test that drops a handle stands for a process that was killed. Required.
	Open func(shift time.Duration) replay.Store
	// Lose makes the memory empty, as a store that lost its disk. Handles stay
	// open. Nil means that it cannot happen.
	Lose func()
	// Backup takes a copy of the memory and returns what puts it back. Nil means
	// that the store has none.
	Backup func() (restore func())
}

// Options says how to run the suite.
type Options struct {
	// New returns an empty memory with those bounds, and has t clean it up.
	// Required.
	New func(t testing.TB, b replay.Bounds) Fixture
	// Advance returns once the clocks have moved on by d. Nil runs each test in
	// a bubble of testing/synctest, where a sleep takes no time.
	Advance func(d time.Duration)
	// Observes: the store has no clock, so that a claim is taken over only by a
	// handle that saw it unchanged for a whole lease.
	Observes bool
	// ChangesLate: the change number stands still for up to this long although
	// something was written. 0 means that each call that writes raises it.
	ChangesLate time.Duration
	// Approximate: quotas may be exceeded by what other handles added since
	// the last count, and Stats lag behind.
	Approximate bool
	// Unreliable: calls may fail, and are repeated then.
	Unreliable bool
	// Schedules is how many random schedules to run: 0 means 300. With QRT_SOAK=1
	// in the environment there are a hundred times as many.
	Schedules int
	// Seed of the first schedule, to repeat one that failed. 0 draws one.
	Seed uint64
}

// tests are the parts of the suite.
var tests = []struct {
	name string
	run  func(*trial)
}{
	{"claim", claim},
	{"claim again with the same token", sameToken},
	{"busy and taken over", busy},
	{"renew", renew},
	{"release", release},
	{"consume", consume},
	{"park", park},
	{"copies that keep coming", lateCopies},
	{"late finish", lateFinish},
	{"copies", copies},
	{"resealed copies", resealed},
	{"not fresh", notFresh},
	{"retry window", retryWindow},
	{"groups, senders and streams are apart", apart},
	{"order in a batch", batchOrder},
	{"invalid items", invalid},
	{"look", look},
	{"look finds what is unused", lookUnused},
	{"folding", folding},
	{"marks", marks},
	{"stream mark", streamMark},
	{"reach", reach},
	{"clock that jumps", clockJump},
	{"gap", gap},
	{"missing", missing},
	{"missing until handled", missingReleased},
	{"accounting from the start", accountingStart},
	{"accounting in the middle of a stream", accountingMiddle},
	{"void and rejected", voidRanges},
	{"implausible", implausible},
	{"end of a stream", endOfAStream},
	{"many rejected", manyRejected},
	{"many given back", manyGivenBack},
	{"many void", manyVoid},
	{"many missing", manyMissing},
	{"notes", notes},
	{"two handles", twoHandles},
	{"shifted clock", shiftedClock},
	{"killed between calls", killed},
	{"a crash costs one delivery", crashCost},
	{"lost answers", lostAnswers},
	{"lost memory", lostMemory},
	{"restored backup", restoredBackup},
	{"restored backup in use", restoredAndUsed},
	{"known keys", knownKeys},
	{"keys at the same time", racingKeys},
	{"many known keys", manyKnownKeys},
	{"an accepted loss", acceptedLoss},
	{"many accepted losses", acceptedLosses},
	{"accepted after a loss", acceptedAfterLoss},
	{"accepted beside another loss", acceptedOther},
	{"accepted beside calls", acceptedBesideCalls},
	{"accepted before a restore", acceptedBeforeRestore},
	{"one of many wins", oneWins},
	{"quota of a sender", senderQuota},
	{"full", full},
	{"old streams make room", makeRoom},
	{"full of young streams", fullOfYoung},
	{"quota of intervals", intervalQuota},
	{"tags beside retries", tagsBesideRetries},
	{"stats add up", statsAddUp},
	{"random schedules", schedules},
}

// Run runs the suite as subtests of t.
func Run(t *testing.T, o Options) {
	t.Helper()
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			for _, f := range o.perform(t, c.run) {
				t.Error(f)
			}
		})
	}
}

// Failures runs the suite until one of its tests fails, and returns what that test
// found; nil if none did. It does not fail t. It is for tests that plant faults in
// a store or below one.
func Failures(t *testing.T, o Options) []string {
	t.Helper()
	for _, c := range tests {
		if f := o.perform(t, c.run); len(f) > 0 {
			return append([]string{c.name}, f...)
		}
	}
	return nil
}

// perform runs one test and returns its failures.
func (o Options) perform(t *testing.T, run func(*trial)) (failures []string) {
	t.Helper()
	// The FIPS 140-3 module seeds its generator by measuring time, which stands
	// still in a bubble; so have it done before the first one.
	_, _ = rand.Read(make([]byte, 1))
	if o.Schedules == 0 {
		o.Schedules = 300
	}
	if os.Getenv("QRT_SOAK") == "1" {
		o.Schedules *= 100
	}
	if o.Advance != nil {
		return attempt(&trial{tb: t, ctx: t.Context(), o: o, advance: o.Advance}, run)
	}
	synctest.Test(t, func(t *testing.T) {
		failures = attempt(&trial{tb: t, ctx: t.Context(), o: o, advance: time.Sleep}, run)
	})
	return failures
}

// attempt runs a test to its end or to its first fatal failure.
func attempt(t *trial, run func(*trial)) []string {
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(errStop) {
				panic(r)
			}
		}()
		run(t)
	}()
	return t.failures
}

type stop struct{}

var errStop = &stop{}

// trial is one test. It collects failures, so that the suite's own test can plant
// faults and look for them.
type trial struct {
	tb       testing.TB
	ctx      context.Context //nolint:containedctx // one test
	o        Options
	advance  func(time.Duration)
	failures []string
	streams  byte
}

func (t *trial) errorf(format string, args ...any) {
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

// fatalf ends the test.
func (t *trial) fatalf(format string, args ...any) {
	t.errorf(format, args...)
	panic(errStop)
}

// fixture returns an empty memory.
func (t *trial) fixture(b replay.Bounds) Fixture {
	f := t.o.New(t.tb, b)
	if !t.o.Unreliable {
		return f
	}
	open := f.Open
	f.Open = func(shift time.Duration) replay.Store { return stubborn{open(shift)} }
	return f
}

// scope is a test within a test: what it cleans up is cleaned up at its end.
type scope struct {
	testing.TB
	cleanups []func()
}

// Cleanup implements testing.TB.
func (s *scope) Cleanup(f func()) { s.cleanups = append(s.cleanups, f) }

// scoped runs do and cleans up what it made.
func (t *trial) scoped(do func()) {
	outer := t.tb
	s := &scope{TB: outer}
	t.tb = s
	defer func() {
		t.tb = outer
		for i := len(s.cleanups) - 1; i >= 0; i-- {
			s.cleanups[i]()
		}
	}()
	do()
}

// handle returns a handle on an empty memory.
func (t *trial) handle() handle { return handle{t, t.fixture(replay.Bounds{}).Open(0)} }

func (t *trial) bounded(b replay.Bounds) handle { return handle{t, t.fixture(b).Open(0)} }
