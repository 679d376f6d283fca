package wire

// The settle modes of a link (transport 2.8.2, 2.8.3).
const (
	SenderUnsettled uint8 = 0
	SenderSettled   uint8 = 1
	SenderMixed     uint8 = 2
	ReceiverFirst   uint8 = 0
	ReceiverSecond  uint8 = 1
)

// Attach starts a link (transport 2.7.3). A nil Source and Target in an answer
// refuse it: a detach follows.
type Attach struct {
	Name                 string
	Handle               uint32
	Receiver             bool // the role of the sender of this frame
	SenderSettle         uint8
	ReceiverSettle       uint8
	Source               *Source
	Target               *Target
	InitialDeliveryCount *uint32
	MaxMessageSize       uint64 // bytes; 0 = no limit
	Properties           Map
}

// Source is where a link's messages come from (messaging 3.5.3).
type Source struct {
	Address string
	Dynamic bool
	Filter  Map
}

// Target is where a link's messages go (messaging 3.5.4).
type Target struct {
	Address string
	Dynamic bool
}

func (*Attach) code() uint64 { return descAttach }

func (p *Attach) fields() List {
	var source, target any
	if p.Source != nil {
		source = p.Source.value()
	}
	if p.Target != nil {
		target = p.Target.value()
	}
	return List{
		p.Name, p.Handle, p.Receiver, p.SenderSettle, p.ReceiverSettle, source, target, nil, nil,
		pointed(p.InitialDeliveryCount), orNull(p.MaxMessageSize, 0), nil, nil, mapOrNull(p.Properties),
	}
}

func decodeAttach(r *reader) (*Attach, error) {
	r.what = "attach"
	p := &Attach{
		Name:           required[string](r),
		Handle:         required[uint32](r),
		Receiver:       required[bool](r),
		SenderSettle:   field(r, SenderMixed),
		ReceiverSettle: field(r, ReceiverFirst),
	}
	if p.SenderSettle > SenderMixed || p.ReceiverSettle > ReceiverSecond {
		return nil, malformed("attach: settle modes %d and %d", p.SenderSettle, p.ReceiverSettle)
	}
	var err error
	if p.Source, err = decodeSource(r.take()); err != nil {
		return nil, err
	}
	if p.Target, err = decodeTarget(r.take()); err != nil {
		return nil, err
	}
	r.take() // unsettled, incomplete-unsettled: links are never resumed
	r.take()
	p.InitialDeliveryCount = optional[uint32](r)
	p.MaxMessageSize = field[uint64](r, 0)
	r.take() // capabilities
	r.take()
	p.Properties = field[Map](r, nil)
	return p, r.end()
}

func (s *Source) value() any {
	return Described{uint64(descSource), List{
		orNull(s.Address, ""), nil, nil, nil, orNull(s.Dynamic, unset), nil, nil, mapOrNull(s.Filter),
	}}
}

func decodeSource(v any) (*Source, error) {
	if v == nil {
		return nil, nil
	}
	r, err := composite(v, descSource, "source")
	if err != nil {
		return nil, err
	}
	s := &Source{Address: r.text()}
	for range 3 { // durable, expiry-policy, timeout: no terminus outlives its link
		r.take()
	}
	s.Dynamic = field(r, unset)
	r.take()
	r.take()
	s.Filter = field[Map](r, nil)
	for range 3 { // default-outcome, outcomes, capabilities
		r.take()
	}
	return s, r.end()
}

func (t *Target) value() any {
	return Described{uint64(descTarget), List{
		orNull(t.Address, ""), nil, nil, nil, orNull(t.Dynamic, unset),
	}}
}

func decodeTarget(v any) (*Target, error) {
	if v == nil {
		return nil, nil
	}
	r, err := composite(v, descTarget, "target")
	if err != nil {
		return nil, err
	}
	t := &Target{Address: r.text()}
	for range 3 {
		r.take()
	}
	t.Dynamic = field(r, unset)
	r.take()
	r.take()
	return t, r.end()
}
