package faultproxy

import (
	"bytes"
	"encoding/binary"
	"time"
)

// Clock changes in place the times in what a server sends, as if its clock were off by so
// much.
type Clock func(sent []byte, by time.Duration)

// ServiceBusClock is a Clock of Service Bus: the ends of locks of messages and sessions, and
// when messages were enqueued. A time that is not whole in sent stays as it is.
func ServiceBusClock(sent []byte, by time.Duration) {
	move := func(at int, by int64) {
		v := int64(binary.BigEndian.Uint64(sent[at:])) + by //nolint:gosec // G115: a time
		binary.BigEndian.PutUint64(sent[at:], uint64(v))    //nolint:gosec // G115: a time
	}
	// value calls do with where the value of each property of that name begins.
	value := func(name string, do func(at int)) {
		for from := 0; ; {
			i := bytes.Index(sent[from:], []byte(name))
			if i < 0 {
				return
			}
			from += i + len(name)
			do(from)
		}
	}
	timestamp := func(at int) { // AMQP 1.0, Part 1, Section 1.6.17
		if at+9 <= len(sent) && sent[at] == 0x83 {
			move(at+1, by.Milliseconds())
		}
	}
	for _, name := range [...]string{"x-opt-locked-until", "x-opt-enqueued-time", "expiration"} {
		value(name, timestamp)
	}
	value("expirations", func(at int) { // an array of timestamps (Part 1, Section 1.6.25)
		first, n := 0, 0
		switch {
		case at+10 <= len(sent) && sent[at] == 0xf0 && sent[at+9] == 0x83:
			first, n = at+10, int(binary.BigEndian.Uint32(sent[at+5:]))
		case at+4 <= len(sent) && sent[at] == 0xe0 && sent[at+3] == 0x83:
			first, n = at+4, int(sent[at+2])
		}
		for ; n > 0 && first+8 <= len(sent); n, first = n-1, first+8 {
			move(first, by.Milliseconds())
		}
	})
	value("com.microsoft:locked-until-utc", func(at int) { // a long of 100 ns
		if at+9 <= len(sent) && sent[at] == 0x81 {
			move(at+1, int64(by/100))
		}
	})
}
