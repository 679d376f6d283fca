package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"
)

// encodings are values beside their bytes, worked out by hand from types 1.6.
var encodings = []struct {
	name string
	hex  string
	v    any
}{
	{"null", "40", nil},
	{"true", "41", true},
	{"false", "42", false},
	{"uint0", "43", uint32(0)},
	{"ulong0", "44", uint64(0)},
	{"list0", "45", List{}},
	{"ubyte", "50ff", uint8(255)},
	{"byte", "51ff", int8(-1)},
	{"smalluint", "52ff", uint32(255)},
	{"smallulong", "5310", uint64(16)},
	{"smallint", "5480", int32(-128)},
	{"smalllong", "557f", int64(127)},
	{"ushort", "60fffe", uint16(65534)},
	{"short", "61fffe", int16(-2)},
	{"uint", "7000000100", uint32(256)},
	{"int", "7180000000", int32(math.MinInt32)},
	{"float", "723f800000", float32(1)},
	{"char", "730001f600", Char('😀')},
	{"decimal32", "7401020304", Decimal{0x74, []byte{1, 2, 3, 4}}},
	{"ulong", "80ffffffffffffffff", uint64(math.MaxUint64)},
	{"long", "818000000000000000", int64(math.MinInt64)},
	{"double", "82bff0000000000000", float64(-1)},
	{"timestamp", "8300000000000003e8", Timestamp(1000)},
	{"uuid", "98000102030405060708090a0b0c0d0e0f", UUID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
	{"binary", "a0020001", []byte{0, 1}},
	{"string", "a103e282ac", "€"},
	{"symbol", "a30161", Symbol("a")},
	{"list", "d00000000700000002" + "5001" + "40", List{uint8(1), nil}},
	{"described", "00a30161" + "43", Described{Symbol("a"), uint32(0)}},
	{"array of symbol", "f00000000900000002a3" + "0161" + "0162", Array{Code: 0xa3, Elems: []any{Symbol("a"), Symbol("b")}}},
	{"array of long", "f00000000d0000000181" + "00000000000000ff", Array{Code: 0x81, Elems: []any{int64(255)}}},
	{"empty array", "f0000000050000000083", Array{Code: 0x83, Elems: []any{}}},
	{"map", "d10000000800000002" + "a30161" + "41", Map{{Symbol("a"), true}}},
}

func TestValueEncodings(t *testing.T) {
	for _, e := range encodings {
		t.Run(e.name, func(t *testing.T) {
			want, err := hex.DecodeString(e.hex)
			if err != nil {
				t.Fatal(err)
			}
			if got := Append(nil, e.v); !bytes.Equal(got, want) {
				t.Errorf("encoded % x, want % x", got, want)
			}
			got, rest, err := Decode(append(want, 0xee))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(rest, []byte{0xee}) {
				t.Errorf("rest % x", rest)
			}
			if !reflect.DeepEqual(got, e.v) {
				t.Errorf("decoded %#v, want %#v", got, e.v)
			}
		})
	}
}

// TestDecodeOtherForms reads the forms that Append does not write.
func TestDecodeOtherForms(t *testing.T) {
	for _, e := range []struct {
		hex string
		v   any
	}{
		{"5601", true},
		{"5600", false},
		{"7000000000", uint32(0)},
		{"800000000000000007", uint64(7)},
		{"710000007f", int32(127)},
		{"810000000000000001", int64(1)},
		{"b000000001ff", []byte{0xff}},
		{"b10000000161", "a"},
		{"b30000000161", Symbol("a")},
		{"c0020141", List{true}},
		{"c10702a30161a10162", Map{{Symbol("a"), "b"}}},
		{"e00402520102", Array{Code: 0x52, Elems: []any{uint32(1), uint32(2)}}},
	} {
		b, err := hex.DecodeString(e.hex)
		if err != nil {
			t.Fatal(err)
		}
		v, rest, err := Decode(b)
		if err != nil || len(rest) != 0 || !reflect.DeepEqual(v, e.v) {
			t.Errorf("%s: %#v, %d bytes left, %v; want %#v", e.hex, v, len(rest), err, e.v)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, e := range []struct{ name, hex string }{
		{"empty", ""},
		{"unknown code", "46"},
		{"code below 0x40", "01"},
		{"short fixed", "7000"},
		{"boolean of 2", "5602"},
		{"string not UTF-8", "a101ff"},
		{"symbol not ASCII", "a301ff"},
		{"surrogate char", "730000d800"},
		{"binary longer than input", "b07fffffff00"},
		{"size beyond int32", "b0ffffffff"},
		{"list without room for its count", "c000"},
		{"list with more elements than bytes", "d000000004ffffffff"},
		{"list with bytes to spare", "c0030141" + "41"},
		{"map with a key and no value", "c1020141"},
		{"array of no width beyond the bound", "f00000000500ffffff40"},
		{"array of unknown code", "f0000000050000000001"},
		{"array of described descriptors", "f000000008000000000044" + "0044"},
		{"descriptor without value", "0044"},
	} {
		b, err := hex.DecodeString(e.hex)
		if err != nil {
			t.Fatal(err)
		}
		if v, _, err := Decode(b); !errors.Is(err, ErrDecode) {
			t.Errorf("%s: %#v, %v", e.name, v, err)
		}
	}
}

func TestDecodeDepth(t *testing.T) {
	for _, c := range []struct {
		depth int
		ok    bool
	}{{MaxDepth, true}, {MaxDepth + 1, false}, {100_000, false}} {
		described := append(bytes.Repeat([]byte{0x00, 0x44}, c.depth), 0x40)
		if _, _, err := Decode(described); (err == nil) != c.ok {
			t.Errorf("descriptors %d deep: %v", c.depth, err)
		}
		var v any
		for range min(c.depth, 1000) {
			v = List{v}
		}
		if _, _, err := Decode(Append(nil, v)); (err == nil) != c.ok {
			t.Errorf("lists %d deep: %v", c.depth, err)
		}
		v = nil
		for i := range min(c.depth, 1000) {
			if i == 0 {
				v = Array{Code: codeNull}
			} else {
				v = Array{Code: codeArray32, Elems: []any{v}}
			}
		}
		if _, _, err := Decode(Append(nil, v)); (err == nil) != c.ok {
			t.Errorf("arrays %d deep: %v", c.depth, err)
		}
	}
}

// TestDecodeBoundsAllocation decodes bytes that claim far more than they hold.
func TestDecodeBoundsAllocation(t *testing.T) {
	nulls := []byte{codeArray32, 0, 0, 0, 5, 0, 0, 0xff, 0xff, codeNull} // 65535 elements in 10 bytes
	list := append([]byte{codeList32}, 0, 0, 0, 0, 0, 0, 0, 0)
	for range 1000 {
		list = append(list, nulls...)
	}
	n := len(list) - 5
	list[3], list[4] = byte(n>>8), byte(n)
	list[7], list[8] = 1000>>8, 1000&0xff
	allocs := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for range b.N {
			if _, _, err := Decode(list); !errors.Is(err, ErrDecode) {
				b.Fatal(err)
			}
		}
	})
	if got := allocs.AllocedBytesPerOp(); got > 4<<20 {
		t.Errorf("%d bytes allocated for %d bytes of input", got, len(list))
	}
}

func TestMapAndConversions(t *testing.T) {
	m := Map{{Symbol("a"), int32(1)}, {"b", Symbol("x")}}
	if v, ok := m.Get("a"); !ok || v != int32(1) {
		t.Error("a:", v, ok)
	}
	if s, ok := m.String("b"); !ok || s != "x" {
		t.Error("b:", s, ok)
	}
	if s, ok := m.String("c"); ok || s != "" {
		t.Error("c:", s, ok)
	}
	if n := m.With(Symbol("a"), "new"); len(n) != 2 || len(m) != 2 || m[0].Value != int32(1) {
		t.Error("With changed its receiver or kept the old entry:", n, m)
	}
	for _, v := range []any{int8(5), int16(5), int32(5), int64(5), uint8(5), uint16(5), uint32(5), uint64(5)} {
		if n, ok := Int(v); !ok || n != 5 {
			t.Errorf("Int(%T) = %d, %v", v, n, ok)
		}
	}
	if _, ok := Int(uint64(math.MaxUint64)); ok {
		t.Error("a ulong beyond int64 was taken")
	}
	if _, ok := Items(Array{Descriptor: "d"}); ok {
		t.Error("an array of described values was taken for plain ones")
	}
	at := time.Date(2024, 2, 29, 1, 2, 3, 4_000_000, time.UTC)
	if got := TimestampOf(at).Time(); !got.Equal(at) {
		t.Error(got)
	}
	if TimestampOf(time.Time{}) != 0 {
		t.Error("the zero time is not the epoch")
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range encodings {
		b, _ := hex.DecodeString(e.hex)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, rest, err := Decode(b)
		if err != nil {
			return
		}
		if len(rest) >= len(b) {
			t.Fatal("nothing consumed")
		}
		again, rest, err := Decode(Append(nil, v))
		if err != nil || len(rest) != 0 {
			t.Fatalf("%#v does not decode from its own encoding: %v", v, err)
		}
		if !same(v, again) {
			t.Fatalf("%#v became %#v", v, again)
		}
	})
}

// same is reflect.DeepEqual, but for NaN being itself and for arrays whose
// compounds were widened.
func same(a, b any) bool {
	return bytes.Equal(Append(nil, a), Append(nil, b))
}
