package sealing

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// BenchmarkPath is what a Sender and a Receiver do with a message between application and
// broker: by=queue, with two attributes. by=gcm is AES-256-GCM alone, with random nonces;
// it seals into a buffer that is there and opens into new memory.
func BenchmarkPath(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context()
	for _, size := range []int{256, 1 << 10, 8 << 10} {
		p := newPath(b)
		p.template.Body = make([]byte, size)
		p.template.Attributes = map[string]string{"event": "pull_request", "action": "opened"}
		sealed := p.template
		p.pair.seal(&sealed)
		delivery := &driver.Delivery{Message: sealed}
		bare := gcm.Seal(nil, nil, p.template.Body, nil) //nolint:gosec // G407: it draws the nonce itself
		dst := make([]byte, 0, len(bare))
		for _, way := range []struct {
			name string
			do   func()
		}{
			{"seal/by=gcm", func() { gcm.Seal(dst, nil, p.template.Body, nil) }}, //nolint:gosec // G407
			{"seal/by=queue", func() {
				m := p.template
				if f := sealOne(ctx, p.sealer, &m); f != nil {
					b.Fatal(f)
				}
			}},
			{"open/by=gcm", func() {
				if _, err := gcm.Open(nil, nil, bare, nil); err != nil {
					b.Fatal(err)
				}
			}},
			{"open/by=queue", func() {
				if _, f := open(ctx, p.opener, delivery); f != nil {
					b.Fatal(f)
				}
			}},
		} {
			b.Run(fmt.Sprintf("%s/size=%d", way.name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					way.do()
				}
			})
		}
	}
}
