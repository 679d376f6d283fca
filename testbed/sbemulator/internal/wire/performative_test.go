package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"testing"
)

func ptr[T any](v T) *T { return &v }

// performatives has one of each kind with every field set.
var performatives = []Performative{
	&Open{ContainerID: "c", Hostname: "h", MaxFrameSize: 65536, ChannelMax: 9, IdleTimeout: 1000,
		Properties: Map{{Symbol("product"), "p"}}},
	&Open{ContainerID: "c", MaxFrameSize: noLimit, ChannelMax: 0xffff},
	&Begin{RemoteChannel: ptr[uint16](3), NextOutgoingID: 1, IncomingWindow: 2, OutgoingWindow: 3, HandleMax: 4},
	&Attach{Name: "l", Handle: 1, Receiver: true, SenderSettle: SenderSettled, ReceiverSettle: ReceiverSecond,
		Source: &Source{Address: "q", Dynamic: true, Filter: Map{{Symbol("f"), Described{uint64(0x137000000C), nil}}}},
		Target: &Target{Address: "t", Dynamic: true}, InitialDeliveryCount: ptr[uint32](0), MaxMessageSize: 7,
		Properties: Map{{Symbol("p"), int64(1)}}},
	&Attach{Name: "refused", SenderSettle: SenderMixed},
	&Flow{NextIncomingID: ptr[uint32](1), IncomingWindow: 2, NextOutgoingID: 3, OutgoingWindow: 4, Handle: ptr[uint32](5),
		DeliveryCount: ptr[uint32](6), LinkCredit: ptr[uint32](7), Available: ptr[uint32](8), Drain: true, Echo: true},
	&Transfer{Handle: 1, DeliveryID: ptr[uint32](2), DeliveryTag: []byte("tag"), MessageFormat: ptr[uint32](0x80013700),
		Settled: ptr(true), More: true, State: Accepted{}, Resume: true, Aborted: true},
	&Disposition{Receiver: true, First: 1, Last: ptr[uint32](2), Settled: true, State: Released{}},
	&Disposition{First: 1, State: Rejected{&Error{Condition: "c:d", Description: "no", Info: Map{{Symbol("k"), "v"}}}}},
	&Disposition{First: 1, State: Modified{DeliveryFailed: true, UndeliverableHere: true, Annotations: Map{{Symbol("k"), "v"}}}},
	&Disposition{First: 1, State: Received{3, 4}},
	&Detach{Handle: 1, Closed: true, Error: &Error{Condition: "c"}},
	&End{&Error{Condition: "c"}},
	&Close{},
	&Mechanisms{[]Symbol{"ANONYMOUS", "PLAIN"}},
	&Init{Mechanism: "PLAIN", InitialResponse: []byte("\x00u\x00p"), Hostname: "h"},
	&Challenge{[]byte("c")},
	&Response{[]byte("r")},
	&Outcome{SASLAuth},
}

func frameType(p Performative) byte {
	if p.code() >= descMechanisms {
		return FrameSASL
	}
	return FrameAMQP
}

func TestPerformatives(t *testing.T) {
	for _, p := range performatives {
		var payload []byte
		if _, ok := p.(*Transfer); ok {
			payload = []byte("payload")
		}
		b := AppendFrame(nil, frameType(p), 7, p, payload)
		f, err := ReadFrame(bytes.NewReader(b), uint32(len(b)))
		if err != nil {
			t.Fatalf("%T: %v", p, err)
		}
		if f.Channel != 7 || f.Type != frameType(p) {
			t.Errorf("%T: channel %d, type %d", p, f.Channel, f.Type)
		}
		if f.Body[0] != 0 || f.Body[1] != codeSmallUlong || uint64(f.Body[2]) != p.code() {
			t.Errorf("%T starts with % x: some clients read a smallulong descriptor only", p, f.Body[:3])
		}
		got, rest, err := ParsePerformative(f.Type, f.Body)
		if err != nil {
			t.Fatalf("%T: %v", p, err)
		}
		if !reflect.DeepEqual(got, p) || !bytes.Equal(rest, payload) {
			t.Errorf("%#v became %#v, payload %q", p, got, rest)
		}
	}
}

// TestPerformativeBytes checks whole frames that were worked out by hand from
// transport 2.3 and 2.7.
func TestPerformativeBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Performative
		hex  string
	}{
		{"open", &Open{ContainerID: "c", MaxFrameSize: 512, ChannelMax: 1},
			"0000002002000000" + "005310" + "d00000001000000004" + "a10163" + "40" + "7000000200" + "600001"},
		{"close", &Close{}, "0000000c02000000" + "005318" + "45"},
		{"disposition", &Disposition{Receiver: true, First: 1, Settled: true, State: Accepted{}},
			"0000001d02000000" + "005315" + "d00000000d00000005" + "41" + "5201" + "40" + "41" + "005324" + "45"},
		{"outcome", &Outcome{SASLOK}, "0000001602010000" + "005344" + "d00000000600000001" + "5000"},
		{"heartbeat", nil, "0000000802000000"},
	} {
		want, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		kind := FrameAMQP
		if c.p != nil {
			kind = frameType(c.p)
		}
		if got := AppendFrame(nil, kind, 0, c.p, nil); !bytes.Equal(got, want) {
			t.Errorf("%s:\n got % x\nwant % x", c.name, got, want)
		}
	}
}

// TestSymbolicDescriptors: a peer may name a type in words.
func TestSymbolicDescriptors(t *testing.T) {
	b := Append(nil, Described{Symbol("amqp:detach:list"), List{uint32(1), true,
		Described{Symbol("amqp:error:list"), List{Symbol("c")}}}})
	p, _, err := ParsePerformative(FrameAMQP, b)
	if want := (&Detach{Handle: 1, Closed: true, Error: &Error{Condition: "c"}}); err != nil || !reflect.DeepEqual(p, want) {
		t.Errorf("%#v, %v", p, err)
	}
}

func TestParsePerformativeRefuses(t *testing.T) {
	enc := func(desc, v any) []byte { return Append(nil, Described{desc, v}) }
	for _, c := range []struct {
		name string
		kind byte
		b    []byte
	}{
		{"no description", FrameAMQP, Append(nil, uint32(1))},
		{"unknown descriptor", FrameAMQP, enc(uint64(0x19), List{})},
		{"unknown symbol", FrameAMQP, enc(Symbol("amqp:open:map"), List{})},
		{"sasl in an amqp frame", FrameAMQP, enc(uint64(descInit), List{Symbol("PLAIN")})},
		{"amqp in a sasl frame", FrameSASL, enc(uint64(descClose), List{})},
		{"a section", FrameAMQP, enc(uint64(descData), []byte{})},
		{"no list", FrameAMQP, enc(uint64(descOpen), Map{})},
		{"open without container", FrameAMQP, enc(uint64(descOpen), List{})},
		{"begin with a string", FrameAMQP, enc(uint64(descBegin), List{nil, "1", uint32(1), uint32(1)})},
		{"attach with settle mode 3", FrameAMQP, enc(uint64(descAttach), List{"n", uint32(0), true, uint8(3)})},
		{"attach with a target for source", FrameAMQP, enc(uint64(descAttach), List{"n", uint32(0), true, nil, nil, (&Target{}).value()})},
		{"transfer without handle", FrameAMQP, enc(uint64(descTransfer), List{})},
		{"transfer with a long tag", FrameAMQP, enc(uint64(descTransfer), List{uint32(0), nil, make([]byte, 33)})},
		{"disposition of unknown state", FrameAMQP, enc(uint64(descDisposition), List{true, uint32(0), nil, nil, Described{uint64(0x33), List{}}})},
		{"detach with one field more", FrameAMQP, enc(uint64(descDetach), List{uint32(0), nil, nil, true})},
		{"end with a string for error", FrameAMQP, enc(uint64(descEnd), List{"e"})},
		{"payload after close", FrameAMQP, append(enc(uint64(descClose), List{}), 1)},
		{"mechanisms of strings", FrameSASL, enc(uint64(descMechanisms), List{Array{Code: codeStr8, Elems: []any{"PLAIN"}}})},
	} {
		if p, _, err := ParsePerformative(c.kind, c.b); !errors.Is(err, ErrDecode) {
			t.Errorf("%s: %#v, %v", c.name, p, err)
		}
	}
}

func TestReadFrameRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		hex  string
		err  error
	}{
		{"nothing", "", io.EOF},
		{"half a header", "00000008", io.ErrUnexpectedEOF},
		{"size below the header", "0000000702000000", ErrFrame},
		{"size beyond the limit", "0000020102000000", ErrFrame},
		{"size of 4 GiB", "ffffffff02000000", ErrFrame},
		{"data offset in the header", "0000000801000000", ErrFrame},
		{"data offset beyond the frame", "0000000803000000", ErrFrame},
		{"unknown type", "0000000802020000", ErrFrame},
		{"half a body", "0000000a0200000001", io.ErrUnexpectedEOF},
	} {
		b, err := hex.DecodeString(c.hex)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFrame(bytes.NewReader(b), MinMaxFrame); !errors.Is(err, c.err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	b, _ := hex.DecodeString("0000000e03000000" + "aabbccdd" + "0102") // an extended header is skipped
	if f, err := ReadFrame(bytes.NewReader(b), MinMaxFrame); err != nil || !bytes.Equal(f.Body, []byte{1, 2}) {
		t.Errorf("extended header: % x, %v", f.Body, err)
	}
}

func TestProtocol(t *testing.T) {
	b := AppendProtocol(nil, ProtocolSASL)
	if p, err := ReadProtocol(bytes.NewReader(b)); err != nil || p != ProtocolSASL {
		t.Error(p, err)
	}
	for _, s := range []string{"HTTP/1.1", "AMQP\x00\x00\x09\x01", "AMQP\x00\x01\x00\x01"} {
		if _, err := ReadProtocol(bytes.NewReader([]byte(s))); !errors.Is(err, ErrFrame) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, p := range performatives {
		f.Add(AppendFrame(nil, frameType(p), 1, p, nil))
	}
	f.Add(AppendFrame(nil, FrameAMQP, 0, &Transfer{}, []byte("payload")))
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := ReadFrame(bytes.NewReader(b), 1<<16)
		if err != nil {
			return
		}
		p, payload, err := ParsePerformative(frame.Type, frame.Body)
		if err != nil {
			return
		}
		out := AppendFrame(nil, frame.Type, frame.Channel, p, payload)
		again, err := ReadFrame(bytes.NewReader(out), uint32(len(out)))
		if err != nil {
			t.Fatal(err)
		}
		q, rest, err := ParsePerformative(again.Type, again.Body)
		if err != nil {
			t.Fatalf("%#v does not parse from its own encoding: %v", p, err)
		}
		if !bytes.Equal(AppendFrame(nil, again.Type, again.Channel, q, rest), out) {
			t.Fatalf("%#v became %#v", p, q)
		}
	})
}
