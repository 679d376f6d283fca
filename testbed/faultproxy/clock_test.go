package faultproxy

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// be is a number of 8 bytes as AMQP has it.
func be(v int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(v))) //nolint:gosec // G115: a time
}

func TestServiceBusClock(t *testing.T) {
	const at, by = int64(1_800_000_000_000), -time.Minute
	ms := func(v int64) string { return be(v) }
	sent := func(ms func(int64) string, ticks int64) string {
		return "\xa3\x12x-opt-locked-until\x83" + ms(at) + "\xa3\x13x-opt-enqueued-time\x83" + ms(at+1) + "\xa3\x05other\x83" + be(at) +
			"\xa1\x0aexpiration\x83" + ms(at+2) + "\xa1\x0bexpirations\xe0\x12\x02\x83" + ms(at+3) + ms(at+4) +
			"\xa1\x0bexpirations\xf0\x00\x00\x00\x0d\x00\x00\x00\x01\x83" + ms(at+5) + "\xa3\x1ecom.microsoft:locked-until-utc\x81" + be(ticks)
	}
	b := []byte(sent(ms, 10_000*at))
	ServiceBusClock(b, by)
	moved := func(v int64) string { return be(v + by.Milliseconds()) }
	if want := sent(moved, 10_000*(at+by.Milliseconds())); string(b) != want {
		t.Errorf("sent\n%q, want\n%q", b, want)
	}
	for cut := range b { // what is cut off is not touched, and nothing beyond it
		ServiceBusClock(b[:cut:cut], by)
	}
	for _, odd := range []string{"x-opt-locked-until", "expirations\xf0\xff\xff\xff\xff\xff\xff\xff\xff\x83", "expirations\xe0\x00\xff\x83123456789"} {
		ServiceBusClock([]byte(odd), by)
	}
}

// A proxy with a clock tells wrong times now and then, in what the server sends.
func TestWrongClock(t *testing.T) {
	f := New(1, 3)
	p, err := NewTCP(echo(t), f, func(sent []byte, by time.Duration) {
		if by != wrongBy && by != -wrongBy {
			t.Errorf("a clock that is off by %s", by)
		}
		copy(sent, "wrong")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for range 200 {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		answer, err := say(c, "right")
		_ = c.Close()
		switch {
		case err != nil || answer == "right":
		case answer == "wrong" && f.Counts()[WrongClock] > 0:
			return
		default:
			t.Fatalf("%q came back, after %s", answer, f)
		}
	}
	t.Errorf("no wrong time: %s", f)
}
