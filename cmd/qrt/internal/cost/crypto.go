// Package cost measures what encryption costs on a broker: the same bodies plain
// and sealed, in pairs, so that both meet the same machine and the same broker.
//
// It starts no goroutine that outlives a call.
package cost

import (
	"context"
	"slices"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// Crypto measures sealing and opening alone, on one core, over the bodies in
// turn, for about as long as that. It returns medians, since a busy machine
// interrupts some.
func Crypto(ctx context.Context, bodies [][]byte, long time.Duration) (seal, open time.Duration, err error) {
	k, err := keys.Generate("cost", nil)
	if err != nil {
		return 0, 0, err
	}
	ring, err := keys.NewRing(k)
	if err != nil {
		return 0, 0, err
	}
	provider, err := queue.NewAESGCM(ring)
	if err != nil {
		return 0, 0, err
	}
	const least = 50
	var sealing, opening []time.Duration
	data := []byte("context of a message, as long as it usually is: ids, session, attributes")
	for begin := time.Now(); time.Since(begin) < long || len(opening) < least; {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		body := bodies[len(opening)%len(bodies)]
		h := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Sequence: 1, Origin: "cost"}
		t := time.Now()
		m, err := provider.Encrypt(ctx, "cost", h, body, data)
		sealing = append(sealing, time.Since(t))
		if err != nil {
			return 0, 0, err
		}
		t = time.Now()
		_, err = provider.Decrypt(ctx, m, data)
		opening = append(opening, time.Since(t))
		if err != nil {
			return 0, 0, err
		}
	}
	return quantile(sealing, 0.5), quantile(opening, 0.5), nil
}

// quantile returns the q-quantile of a list (nearest rank), which it sorts; 0 of
// an empty one.
func quantile[N ~int64 | ~float64](list []N, q float64) N {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	i := int(q * float64(len(list)))
	return list[min(i, len(list)-1)]
}
