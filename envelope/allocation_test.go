package envelope

import (
	"fmt"
	"testing"
)

func (s *Sealer) mustPad(t *testing.T, h *Header, plaintext, data []byte) []byte {
	t.Helper()
	b, err := s.SealPadded(nil, h, plaintext, data, Padme)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool allocate; the test runs without it")
	}
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	o := NewOpener(nil)
	h, app := testHeader(t), appHeader(t)
	data := testData(t, &testContext, h.Bound)
	for _, n := range []int{0, 256, 1024, 64 << 10, 1 << 20} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			plaintext := make([]byte, n)
			dst := make([]byte, 0, SealedSize(h, n))
			check := func(what string, want float64, f func() error) {
				t.Helper()
				if err := f(); err != nil { // warms the epoch and the cache
					t.Fatal(err)
				}
				got := testing.AllocsPerRun(50, func() {
					if err := f(); err != nil {
						t.Fatal(err)
					}
				})
				if got != want {
					t.Errorf("%s: %v allocations, want %v", what, got, want)
				}
			}
			check("Seal", 0, func() error { _, err := s.Seal(dst, h, plaintext, data); return err })
			padded := make([]byte, 0, SealedSize(h, Padme.Size(n)))
			check("SealPadded", 0, func() error { _, err := s.SealPadded(padded, h, plaintext, data, Padme); return err })
			check("SealPadded without padding", 0, func() error { _, err := s.SealPadded(dst, h, plaintext, data, NoPadding); return err })
			check("SealApp", 0, func() error { _, err := s.SealApp(dst, app, plaintext, data); return err })
			check("Seal into nil", 1, func() error { _, err := s.Seal(nil, h, plaintext, data); return err })
			sealed, err := s.Seal(dst, h, plaintext, data)
			if err != nil {
				t.Fatal(err)
			}
			m := mustParse(t, sealed)
			want := 1.0
			if n == 0 {
				want = 0
			}
			check("Open into nil", want, func() error { _, err := o.Open(nil, m, key, data); return err })
			room := make([]byte, 0, n)
			check("Open", 0, func() error { _, err := o.Open(room, m, key, data); return err })
			length := mustParse(t, s.mustPad(t, h, plaintext, data))
			check("Open padded into nil", 1, func() error { _, err := o.Open(nil, length, key, data); return err })
			check("Parse", 3, func() error { _, err := Parse(sealed); return err })
		})
	}
}
