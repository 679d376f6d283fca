package demo

import (
	"context"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cost"
	"github.com/queue-runtime/queue/drivertest"
)

// rounds are as few as bound a median with 95 % confidence by more than their extremes.
const rounds = 9

// throughput moves the same bodies plain and encrypted, in pairs of which each half is the
// first in turn, so that both meet the same machine.
func (r *run) throughput(ctx context.Context) error {
	r.Progress.Begin("plaintext beside encrypted", rounds*2)
	bodies := make([][]byte, len(r.Events))
	for i := range r.Events {
		bodies[i] = r.Events[i].Body
	}
	result, err := cost.Run(ctx, cost.Config{
		Connect: r.Broker.Connect,
		NewQueue: func(ctx context.Context, purpose string) (string, error) {
			return r.Broker.NewQueue(ctx, purpose, drivertest.QueueSpec{})
		},
		Bodies:   bodies,
		Messages: max(MinMessages/3, min(100, r.Messages/12)),
		Singles:  1,
		Rounds:   rounds,
		Step:     func() { r.Progress.Step(1) },
	})
	if err != nil {
		return err
	}
	r.report.Throughput = Throughput{
		PlaintextPerSecond: result.Plain.PerSecond, EncryptedPerSecond: result.Sealed.PerSecond,
		Pairs: rounds, Overhead: 100 * result.Overhead, OverheadLow: 100 * result.Low, OverheadHigh: 100 * result.High,
		SealNS: float64(result.Seal), OpenNS: float64(result.Open), Bytes: result.Bytes,
	}
	return nil
}
