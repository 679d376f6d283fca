package sqsqueue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/testbed/sqsattack"
)

// kind is one of SQS's two kinds of queue.
type kind string

const (
	standard kind = ""
	fifoKind kind = ".fifo"
)

// queueAttributes are those of a queue that a case asks for.
func queueAttributes(k kind, s drivertest.QueueSpec, short time.Duration, deadLetterARN string) (map[string]string, error) {
	if k == standard && (s.Sessions || s.Dedup) {
		return nil, errors.ErrUnsupported
	}
	attrs := map[string]string{"VisibilityTimeout": "30"}
	if k == fifoKind {
		attrs["FifoQueue"] = "true"
	}
	if s.ShortLock {
		attrs["VisibilityTimeout"] = fmt.Sprint(int(short / time.Second))
	}
	n := s.MaxDeliveries
	if n == 0 {
		n = 1000
	}
	attrs["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"%d"}`, deadLetterARN, n)
	return attrs, nil
}

var invalidNames = []string{"with space", "with.dot", "umläut", ".fifo", "a/b", strings.Repeat("n", 81)}

// TestConformanceFake runs the suite on SQS as documented, where time costs
// nothing and groups come in batches.
func TestConformanceFake(t *testing.T) {
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			inBubbles(t, drivertest.Cases(fakeHarness(k)))
		})
	}
}

func fakeHarness(k kind) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		f := newFakeSQS()
		t.Cleanup(f.polls.Wait)
		serial := 0
		return &drivertest.Instance{
			Attacker:     sqsattack.New(f),
			Missing:      "missing",
			InvalidNames: invalidNames,
			Connect: func(context.Context) (driver.Broker, error) {
				return newBroker(f, &Options{}), nil
			},
			NewQueue: func(_ context.Context, s drivertest.QueueSpec) (string, error) {
				serial++
				name := fmt.Sprintf("q%d", serial)
				attrs, err := queueAttributes(k, s, time.Second, fakeARN+name+"-dead"+string(k))
				if err != nil {
					return "", err
				}
				f.create(name+string(k), attrs)
				f.create(name+"-dead"+string(k), map[string]string{"VisibilityTimeout": attrs["VisibilityTimeout"]})
				return name, nil
			},
		}
	}}
}

// peer is a service that the suites run against.
type peer struct {
	cfg   aws.Config
	short time.Duration     // the lock of cases that let locks run out, on a busy machine
	slack time.Duration     // 0: the suite's own
	only  func(string) bool // the cases that run; nil: all
}

// harness describes the peer to a suite. Each case has queues of its own, which
// it removes.
func (p peer) harness(k kind) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		client := rawClient(p.cfg)
		create := func(ctx context.Context, name string, attrs map[string]string) (arn string, err error) {
			out, err := client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name), Attributes: attrs})
			if err != nil {
				return "", err
			}
			t.Cleanup(func() {
				_, _ = client.DeleteQueue(context.Background(), &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
			})
			a, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: out.QueueUrl, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
			if err != nil {
				return "", err
			}
			return a.Attributes["QueueArn"], nil
		}
		return &drivertest.Instance{
			Missing:      "missing-" + rand.Text(),
			InvalidNames: invalidNames,
			Slack:        p.slack,
			Foreign:      func(stack string) bool { return strings.Contains(stack, "net/http.(*persistConn)") },
			Connect: func(context.Context) (driver.Broker, error) {
				return New(p.cfg, &Options{Poll: time.Second})
			},
			NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
				name := "qrt-" + rand.Text()
				attrs, err := queueAttributes(k, s, p.short, "")
				if err != nil {
					return "", err
				}
				dead := maps.Clone(attrs)
				delete(dead, "RedrivePolicy")
				arn, err := create(ctx, name+"-dead"+string(k), dead)
				if err != nil {
					return "", err
				}
				if attrs, err = queueAttributes(k, s, p.short, arn); err != nil {
					return "", err
				}
				_, err = create(ctx, name+string(k), attrs)
				return name, err
			},
		}
	}}
}

func TestConformanceFauxqs(t *testing.T) {
	cfg := awspeer.Config(awspeer.Fauxqs(t))
	conformance(t, peer{cfg: cfg, short: 4 * time.Second})
}

// moto is slow, and two of its faults (below) touch whatever receives from one
// group at several places. So it gives its opinion on what a message carries, on
// limits, settling, dead letters and the order of a session:
//
//   - of a group whose locks end together it delivers the last message first;
//     SQS keeps the order of a group in every case;
//   - its receive is not atomic: two calls at once may get one message; SQS
//     locks it for the first.
func TestConformanceMoto(t *testing.T) {
	cfg := awspeer.Config(awspeer.Moto(t))
	conformance(t, peer{
		cfg: cfg, short: 5 * time.Second, slack: 20 * time.Second,
		only: func(c string) bool {
			for _, prefix := range []string{"message_", "limits_", "settle_", "deadletter_keeps", "deadletter_redrive", "lock_stale_settle", "session_order", "session_dead_letter", "session_close_releases"} {
				if strings.HasPrefix(c, prefix) {
					return true
				}
			}
			return false
		},
	})
}

func TestConformanceLive(t *testing.T) {
	conformance(t, peer{cfg: live(t), short: 4 * time.Second, slack: 20 * time.Second})
}

// conformance runs the suite on both kinds of queue.
func conformance(t *testing.T, p peer) {
	t.Parallel()
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			beside(t, slices.DeleteFunc(drivertest.Cases(p.harness(k)), func(c drivertest.Case) bool {
				return c.Name == countsGoroutines || p.only != nil && !p.only(c.Name)
			}))
		})
	}
}

// beside runs cases as subtests beside each other: they mostly wait.
func beside(t *testing.T, cases []drivertest.Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			c.Run(t)
		})
	}
}

// inBubbles runs cases as subtests, each in a bubble of its own.
func inBubbles(t *testing.T, cases []drivertest.Case) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { c.Run(t) }) })
	}
}

// countsGoroutines is the one case that must run alone.
const countsGoroutines = "goroutines"

func TestGoroutines(t *testing.T) {
	cfg := awspeer.Config(awspeer.Fauxqs(t))
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		t.Run(name, func(t *testing.T) {
			cases := drivertest.Cases(peer{cfg: cfg, short: 4 * time.Second}.harness(k))
			cases[slices.IndexFunc(cases, func(c drivertest.Case) bool { return c.Name == countsGoroutines })].Run(t)
		})
	}
}
