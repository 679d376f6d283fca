package sqsqueue

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
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
			drivertest.Conformance(drivertest.NewIn(t, synctest.Test), fakeHarness(k))
		})
	}
}

func fakeHarness(k kind) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Broker {
		f := newFakeSQS()
		t.Cleanup(f.polls.Wait)
		serial := 0
		return &drivertest.Broker{
			Missing:      "missing",
			InvalidNames: invalidNames,
			Connect: func(context.Context) (driver.Provider, error) {
				return newProvider(f, &Options{}), nil
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

// peerHarness describes a service that cfg reaches, whose locks are short for a
// busy machine. Each case has queues of its own, which it removes.
func peerHarness(cfg aws.Config, k kind, short time.Duration) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Broker {
		client := rawClient(cfg)
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
		return &drivertest.Broker{
			Missing:      "missing-" + rand.Text(),
			InvalidNames: invalidNames,
			Foreign:      func(stack string) bool { return strings.Contains(stack, "net/http.(*persistConn)") },
			Connect: func(context.Context) (driver.Provider, error) {
				return New(cfg, &Options{Poll: time.Second})
			},
			NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
				name := "qrt-" + rand.Text()
				attrs, err := queueAttributes(k, s, short, "")
				if err != nil {
					return "", err
				}
				dead := maps.Clone(attrs)
				delete(dead, "RedrivePolicy")
				arn, err := create(ctx, name+"-dead"+string(k), dead)
				if err != nil {
					return "", err
				}
				if attrs, err = queueAttributes(k, s, short, arn); err != nil {
					return "", err
				}
				_, err = create(ctx, name+string(k), attrs)
				return name, err
			},
		}
	}}
}

func TestConformanceFauxqs(t *testing.T) {
	cfg, _ := fauxqs(t)
	conformance(t, cfg, 3*time.Second, nil)
}

func TestConformanceMoto(t *testing.T) {
	cfg, _ := moto(t)
	conformance(t, cfg, 10*time.Second, nil)
}

func TestConformanceLive(t *testing.T) { conformance(t, live(t), 3*time.Second, nil) }

// conformance runs the suite on both kinds of queue, but for what the peer does
// otherwise than SQS. Most cases run beside each other; one counts goroutines and
// runs alone.
func conformance(t *testing.T, cfg aws.Config, short time.Duration, departs map[string]string) {
	t.Helper()
	const alone = "goroutines"
	for name, k := range map[string]kind{"standard": standard, "fifo": fifoKind} {
		h := peerHarness(cfg, k, short)
		h.Only = func(c string) bool { return c == alone }
		t.Run(name+"-alone", func(t *testing.T) { drivertest.Conformance(drivertest.New(t), h) })
		h.Only = func(c string) bool {
			if why, ok := departs[c]; ok {
				t.Logf("%s is left out: %s", c, why)
				return false
			}
			return c != alone
		}
		drivertest.Conformance(drivertest.NewIn(t, func(t *testing.T, f func(*testing.T)) {
			t.Parallel()
			f(t)
		}), h)
	}
}
