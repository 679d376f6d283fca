package replaystate

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// full returns a page and a head with a value of its own in every field.
func full() (*Page, *Head) {
	p := &Page{
		Index: 2, Mark: -3, Newest: 1_000_007, Settled: 300, bits: make([]uint64, 2), quiet: 2_000_003,
		records: []record{
			{offset: 1, status: claimed, gap: true, beat: 9, token: [16]byte{1, 2}, tag: [8]byte{3}, firstSeen: 1_000_100, sealedAt: 1_000_050, lease: 30_000, changed: 1_000_200, keep: 1_100_000},
			{offset: 5, status: released, resealed: true, beat: 1, token: [16]byte{4}, tag: [8]byte{5}, firstSeen: 1_000_300, sealedAt: 1_000_400, lease: 7, changed: 1_000_301, keep: 1_000_302},
			{offset: 127, status: parked, token: [16]byte{6}, firstSeen: 5, sealedAt: 4, changed: 3, keep: 2},
		},
		recents: []recent{{offset: 64, resealed: true, tag: [8]byte{7}, token: [8]byte{8}}, {offset: 3, tag: [8]byte{9}, token: [8]byte{10}}},
		excused: Ranges{{1, 1}, {5, 9}, {300, 301}},
		steps:   []Step{{10, 1_000_000}, {300, 1_002_000}},
	}
	for _, r := range []Range{{260, 260}, {262, 262}, {300, 330}} {
		p.setConsumed(r)
	}
	h := &Head{
		Mark: 77, Newest: 1_000_500, Start: 3, Settled: 900, Lost: 4,
		Intervals: []Interval{{3, 10, 1_000_100}, {12, 12, 1_000_600}, {100, 900, 1_000_400}},
		Excused:   Ranges{{11, 11}}, Late: Ranges{{13, 20}, {30, 31}}, Missing: Ranges{{14, 15}}, Apart: Ranges{{128, 255}},
		Steps: []Step{{20, 999_000}, {900, 1_000_900}},
	}
	return p, h
}

// What full returns, as version 1 stores it.
const (
	goldenPage = "0102058e897aac028692f4010304000200261e031601020000000000000000000000000000030000000000000009c88a7a63e0d403c801b0970c59" +
		"04000000000000000000000000000000050000000000000001d88d7ac8010e0202fc0f060000000000000000000000000000000000000000000000000a01000301" +
		"028101070000000000000008000000000000000609000000000000000a000000000000000301000404a30201020a80897aa202a01f"
	goldenGroup = "010a0bf80a1002066f7264657273026b31090000000000000000000000000000000171026b3200000000000000000000000000000001"
	goldenHead  = "019a01e8907a038407040303079f060200e80758a0068f03010b00020d070a01010e010180017f0214b0f979f006d81d"
)

// TestEncodingStays: what an earlier release stored reads as it was.
func TestEncodingStays(t *testing.T) {
	p, h := full()
	g := &Group{Mark: 5, Newest: -6, Reach: 700, Skew: 8, Keys: []KnownKey{{"orders", "k1", [16]byte{9}}, {"q", "k2", [16]byte{15: 1}}}}
	for name, c := range map[string]struct {
		got   []byte
		want  string
		again func([]byte) (any, error)
		value any
	}{
		"page":  {AppendPage(nil, p), goldenPage, func(b []byte) (any, error) { return DecodePage(b, 2, 128) }, p},
		"head":  {AppendHead(nil, h), goldenHead, func(b []byte) (any, error) { return DecodeHead(b) }, h},
		"group": {AppendGroup(nil, g), goldenGroup, func(b []byte) (any, error) { return DecodeGroup(b) }, g},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("the %s is stored as %s, want %s", name, got, c.want)
		}
		got, err := c.again(c.got)
		if err != nil || !reflect.DeepEqual(got, c.value) {
			t.Errorf("the %s reads as %+v, %v; want %+v", name, got, err, c.value)
		}
		if _, err := c.again(append(bytes.Clone(c.got), 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("the %s with a byte behind it: %v", name, err)
		}
		for n := range c.got {
			if _, err := c.again(c.got[:n]); !errors.Is(err, ErrCorrupt) {
				t.Errorf("the %s cut to %d of %d bytes: %v", name, n, len(c.got), err)
			}
		}
		c.got[0]++
		if _, err := c.again(c.got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("the %s of a newer version: %v", name, err)
		}
	}
}

// encoded puts numbers behind each other as this package does: uint64 unsigned, int64 signed.
func encoded(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			b = binary.AppendUvarint(b, uint64(p)) //nolint:gosec // G115: of the test
		case uint64:
			b = binary.AppendUvarint(b, p)
		case int64:
			b = binary.AppendVarint(b, p)
		case []byte:
			b = append(b, p...)
		}
	}
	return b
}

// TestDecodePageBounds has each bound of a page, kept and broken.
func TestDecodePageBounds(t *testing.T) {
	const span = 128
	z := int64(0)
	begin := encoded(pageVersion, span/64, z, z, 0, z)
	record := func(offset, status int) []byte {
		return encoded(offset<<4|status<<2, make([]byte, 24), 0, z, z, z, z, z)
	}
	recent := func(offset int) []byte { return encoded(offset<<1, make([]byte, 16)) }
	page := func(runs, records, recents, excused, steps []byte) []byte {
		return encoded(begin, runs, records, recents, excused, steps)
	}
	none := encoded(0)
	huge := uint64(1)<<63 + 1
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"empty":                       {page(none, none, none, none, none), true},
		"a run to the end":            {page(encoded(1, 1, span-1), none, none, none, none), true},
		"a run past the end":          {page(encoded(1, 1, span), none, none, none, none), false},
		"a run from 0":                {page(encoded(1, 0, 1), none, none, none, none), false},
		"two runs":                    {page(encoded(2, 1, 1, 2, 1), none, none, none, none), true},
		"two runs that touch":         {page(encoded(2, 1, 1, 1, 1), none, none, none, none), false},
		"two runs that overlap":       {page(encoded(2, 1, 1, 0, 1), none, none, none, none), false},
		"a run whose end overflows":   {page(encoded(1, 5, ^uint64(0)), none, none, none, none), false},
		"a run beyond all sequences":  {page(none, none, none, encoded(1, 1, maxSequence), none), false},
		"a run of all sequences":      {page(none, none, none, encoded(1, 1, maxSequence-1), none), true},
		"the first and last record":   {page(none, encoded(2, record(0, 1), record(span-1, 3)), none, none, none), true},
		"a record past the end":       {page(none, encoded(1, record(span, 1)), none, none, none), false},
		"a record far past the end":   {page(none, encoded(1, record(1<<16, 1)), none, none, none), false},
		"a record twice":              {page(none, encoded(2, record(5, 1), record(5, 1)), none, none, none), false},
		"records that descend":        {page(none, encoded(2, record(5, 1), record(4, 1)), none, none, none), false},
		"a record without status":     {page(none, encoded(1, record(5, 0)), none, none, none), false},
		"only that of such a record":  {page(none, encoded(1, 5<<4), none, none, none), false},
		"the last recent entry":       {page(none, none, encoded(1, recent(span-1)), none, none), true},
		"a recent entry past the end": {page(none, none, encoded(1, recent(span)), none, none), false},
		"a recent entry far past it":  {page(none, none, encoded(1, recent(1<<16)), none, none), false},
		"more runs than bytes":        {encoded(begin, 5, 1, 1), false},
		"huge counts":                 {encoded(begin, huge), false},
		"another span":                {encoded(pageVersion, span/64+1, z, z, 0, z, none, none, none, none, none), false},
	} {
		p, err := DecodePage(c.b, 0, span)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want that it is accepted: %v", name, err, c.ok)
		}
		if err == nil && !bytes.Equal(AppendPage(nil, p), c.b) {
			t.Errorf("%s: it is stored otherwise again", name)
		}
	}
	// A record that would fit a larger span only.
	wide := encoded(pageVersion, MaxSpan/64, z, z, 0, z, none, encoded(1, record(MaxSpan-1, 1)), none, none, none)
	if _, err := DecodePage(wide, 0, MaxSpan); err != nil {
		t.Errorf("the last record of the largest span: %v", err)
	}
}

// TestDecodeHeadBounds has each bound of the intervals, kept and broken.
func TestDecodeHeadBounds(t *testing.T) {
	z := int64(0)
	head := func(intervals ...any) []byte {
		return encoded(headVersion, z, z, 1, 1, 0, encoded(intervals...), 0, 0, 0, 0, 0)
	}
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"none":             {head(0), true},
		"from 1":           {head(1, 1, 0, z), true},
		"from 0":           {head(1, 0, 5, z), false},
		"all sequences":    {head(1, 1, maxSequence-1, z), true},
		"beyond all":       {head(1, 1, maxSequence, z), false},
		"an overflow":      {head(1, 5, ^uint64(0), z), false},
		"two":              {head(2, 1, 0, z, 2, 0, z), true},
		"two that overlap": {head(2, 1, 3, z, 0, 9, z), false},
	} {
		if _, err := DecodeHead(c.b); (err == nil) != c.ok {
			t.Errorf("%s: %v, want that it is accepted: %v", name, err, c.ok)
		}
	}
}

// TestLossesStay is TestEncodingStays for the losses of a store. Nothing stored is none.
func TestLossesStay(t *testing.T) {
	losses := []Loss{
		{At: 9, Lost: Stamp{ID: [16]byte{1}, Change: 300}, From: Stamp{ID: [16]byte{2}, Birth: -5, Change: 6}, To: [16]byte{3}},
		{At: 10, Lost: Stamp{ID: [16]byte{3}}, From: Stamp{ID: [16]byte{3}, Birth: 9, Change: 7}, To: [16]byte{15: 4}},
	}
	id := func(s string) string { return s + strings.Repeat("0", 30) }
	want := "0102" + "12" + id("01") + "ac02" + id("02") + "0906" + id("03") + "14" + id("03") + "00" + id("03") + "1207" + strings.Repeat("0", 30) + "04"
	b := AppendLosses(nil, losses)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("losses are stored as %s, want %s", got, want)
	}
	if got, err := DecodeLosses(b); err != nil || !reflect.DeepEqual(got, losses) {
		t.Errorf("losses read as %+v, %v", got, err)
	}
	if got, err := DecodeLosses(nil); err != nil || got != nil {
		t.Errorf("nothing reads as %+v, %v", got, err)
	}
	for n := 1; n < len(b); n++ {
		if _, err := DecodeLosses(b[:n]); !errors.Is(err, ErrCorrupt) {
			t.Errorf("losses cut to %d of %d bytes: %v", n, len(b), err)
		}
	}
	for name, bad := range map[string][]byte{
		"with a byte behind them": append(bytes.Clone(b), 0),
		"of a newer version":      append([]byte{2}, b[1:]...),
		"too many":                AppendLosses(nil, make([]Loss, MaxLosses+1)),
	} {
		if _, err := DecodeLosses(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("losses %s: %v", name, err)
		}
	}
}

// TestLastPage: a head that holds the last page of a stream can be read again. A sender chooses its
// sequences, and one head that cannot be read keeps a store from its sweeps.
func TestLastPage(t *testing.T) {
	for _, span := range []int{64, MaxSpan} {
		p := NewPage(&Group{}, nil, IndexOf(maxSequence, span), span)
		h := &Head{Start: 1}
		h.Hold(p)
		p.setConsumed(Range{maxSequence, maxSequence})
		h.Fold(p)
		h.Hold(p)
		got, err := DecodeHead(AppendHead(nil, h))
		if err != nil || got.Apart.Count() != uint64(span)-1 || !got.Apart.Has(maxSequence) || !got.has(maxSequence) {
			t.Errorf("pages of %d: %+v, %v", span, got, err)
		}
	}
}
