package sealing

import (
	"fmt"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// BenchmarkPadding is the path of BenchmarkPath without padding and with Padme, which
// adds 6.2 % to 8 KiB.
func BenchmarkPadding(b *testing.B) {
	ctx := b.Context()
	for _, size := range []int{1 << 10, 8 << 10} {
		for _, padding := range []envelope.Padding{envelope.NoPadding, envelope.Padme} {
			p := newPath(b)
			p.sealer.Padding = padding
			p.template.Body = make([]byte, size)
			sealed := p.template
			p.pair.seal(&sealed)
			delivery := &driver.Delivery{Message: sealed}
			b.Run(fmt.Sprintf("seal/padding=%v/size=%d", padding, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					m := p.template
					if f := sealOne(ctx, p.sealer, &m); f != nil {
						b.Fatal(f)
					}
				}
			})
			b.Run(fmt.Sprintf("open/padding=%v/size=%d", padding, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, f := open(ctx, p.opener, delivery); f != nil {
						b.Fatal(f)
					}
				}
			})
		}
	}
}
