package worker

import (
	"math/rand/v2"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
)

// The default retry policy is made to survive a database that is away for an hour,
// within the deliveries that the broker gives a message: ten by default. The delays
// grow from firstRetry by the same factor.
const (
	// outage is how long the delays between all deliveries last at the least.
	outage = time.Hour
	// firstRetry bounds the first delay: most failures are over in a second.
	firstRetry = time.Second
	// maxRetry bounds a delay, so that a message is back an hour after a long outage.
	maxRetry = time.Hour
	// minRetry is what maxRetry is cut to at the least to fit the retry limit.
	minRetry = 100 * time.Millisecond
	// minFactor is for 9 deliveries and more: 9 delays add up to 101 to 203 minutes.
	// With the usual 2 it would be 9 minutes.
	minFactor = 4
	// maxFactor makes the second delay an hour. Four deliveries need it.
	maxFactor = 4096
)

// growing is a retry policy: each delay is drawn between half of its bound and the
// whole. The fixed half guarantees the time that the delays add up to; the drawn half
// keeps what failed together from coming back together.
type growing struct {
	factor time.Duration // by how much each bound exceeds the one before
	limit  time.Duration // of every bound
}

var _ backoff.Policy = growing{}

// newGrowing returns the policy with the smallest factor whose delays between that many
// deliveries last for outage. Fewer than 4 cannot.
func newGrowing(deliveries int) growing {
	g := growing{factor: minFactor, limit: maxRetry}
	// Bounds that add up to twice the time guarantee the time.
	for g.factor < maxFactor && !backoff.Exceeds(g, deliveries, 2*outage-1) {
		g.factor *= 2
	}
	return g
}

// Delay implements [backoff.Policy].
func (g growing) Delay(attempt int) time.Duration {
	bound := g.Longest(attempt)
	return bound - rand.N(bound/2+1) //nolint:gosec // G404: jitter, not a secret
}

// Longest is the bound of the delay after an attempt.
func (g growing) Longest(attempt int) time.Duration {
	bound := min(firstRetry, g.limit)
	for i := 1; i < attempt && bound < g.limit; i++ {
		bound = min(bound*g.factor, g.limit)
	}
	return bound
}

// resolveRetry fills in the retry policy, and keeps the retries within the time that
// the receiver lets a message be tried for.
func (o *HandleOptions) resolveRetry(r *queue.Receiver) error {
	limit := r.RetryLimit()
	if o.Retry == nil {
		g := newGrowing(o.MaxDeliveries)
		// Half of the limit is for the retries: the other is for waiting in the queue.
		for limit > 0 && g.limit > minRetry && backoff.Exceeds(g, o.MaxDeliveries, limit/2) {
			g.limit = max(g.limit/2, minRetry)
		}
		o.Retry = g
	}
	if limit > 0 && backoff.Exceeds(o.Retry, o.MaxDeliveries, limit) {
		return invalidOption("%d deliveries by this retry policy can take longer than MaxMessageAge (%s), and a message older than that is dead-lettered as expired: track replays, which exempts retries, or retry faster or less often", o.MaxDeliveries, limit)
	}
	return nil
}
