package wire

// Performative is the body of a frame (transport 2.7, security 5.3.3).
type Performative interface {
	code() uint64
	fields() List
}

// ParsePerformative decodes the body of a frame of the given type. The payload
// is what follows a transfer; other performatives must have none.
func ParsePerformative(kind byte, body []byte) (p Performative, payload []byte, err error) {
	v, payload, err := Decode(body)
	if err != nil {
		return nil, nil, err
	}
	d, ok := v.(Described)
	if !ok {
		return nil, nil, malformed("a frame that starts with %T", v)
	}
	code, ok := descriptor(d.Descriptor)
	if !ok || (kind == FrameSASL) != (code >= descMechanisms && code <= descOutcome) {
		return nil, nil, malformed("unknown performative")
	}
	list, ok := d.Value.(List)
	if !ok {
		return nil, nil, malformed("performative %#02x is no list", code)
	}
	if len(payload) > 0 && code != descTransfer {
		return nil, nil, malformed("payload after performative %#02x", code)
	}
	p, err = decodePerformative(code, &reader{list: list})
	if err != nil {
		return nil, nil, err
	}
	return p, payload, nil
}

func decodePerformative(code uint64, r *reader) (Performative, error) {
	switch code {
	case descOpen:
		return decodeOpen(r)
	case descBegin:
		return decodeBegin(r)
	case descAttach:
		return decodeAttach(r)
	case descFlow:
		return decodeFlow(r)
	case descTransfer:
		return decodeTransfer(r)
	case descDisposition:
		return decodeDisposition(r)
	case descDetach:
		return decodeDetach(r)
	case descEnd:
		r.what = "end"
		e, err := decodeError(r.take())
		if err != nil {
			return nil, err
		}
		return &End{e}, r.end()
	case descClose:
		r.what = "close"
		e, err := decodeError(r.take())
		if err != nil {
			return nil, err
		}
		return &Close{e}, r.end()
	}
	return decodeSASL(code, r)
}

// Open starts a connection (transport 2.7.1).
type Open struct {
	ContainerID  string
	Hostname     string
	MaxFrameSize uint32 // bytes
	ChannelMax   uint16
	IdleTimeout  uint32 // milliseconds; 0 = none
	Properties   Map
}

func (*Open) code() uint64 { return descOpen }

func (o *Open) fields() List {
	return List{
		o.ContainerID, orNull(o.Hostname, ""), o.MaxFrameSize, o.ChannelMax, orNull(o.IdleTimeout, 0),
		nil, nil, nil, nil, mapOrNull(o.Properties),
	}
}

func decodeOpen(r *reader) (*Open, error) {
	r.what = "open"
	o := &Open{
		ContainerID:  required[string](r),
		Hostname:     field(r, ""),
		MaxFrameSize: field[uint32](r, noLimit),
		ChannelMax:   field[uint16](r, 0xffff),
		IdleTimeout:  field[uint32](r, 0),
	}
	for range 4 { // locales and capabilities: nothing is negotiated by them
		r.take()
	}
	o.Properties = field[Map](r, nil)
	return o, r.end()
}

// Begin starts a session (transport 2.7.2).
type Begin struct {
	RemoteChannel  *uint16
	NextOutgoingID uint32
	IncomingWindow uint32
	OutgoingWindow uint32
	HandleMax      uint32
	Properties     Map
}

func (*Begin) code() uint64 { return descBegin }

func (p *Begin) fields() List {
	return List{
		pointed(p.RemoteChannel), p.NextOutgoingID, p.IncomingWindow, p.OutgoingWindow, p.HandleMax,
		nil, nil, mapOrNull(p.Properties),
	}
}

func decodeBegin(r *reader) (*Begin, error) {
	r.what = "begin"
	p := &Begin{
		RemoteChannel:  optional[uint16](r),
		NextOutgoingID: required[uint32](r),
		IncomingWindow: required[uint32](r),
		OutgoingWindow: required[uint32](r),
		HandleMax:      field[uint32](r, noLimit),
	}
	r.take()
	r.take()
	p.Properties = field[Map](r, nil)
	return p, r.end()
}

// Flow updates windows and credit (transport 2.7.4).
type Flow struct {
	NextIncomingID *uint32
	IncomingWindow uint32
	NextOutgoingID uint32
	OutgoingWindow uint32
	Handle         *uint32
	DeliveryCount  *uint32
	LinkCredit     *uint32
	Available      *uint32
	Drain          bool
	Echo           bool
}

func (*Flow) code() uint64 { return descFlow }

func (p *Flow) fields() List {
	return List{
		pointed(p.NextIncomingID), p.IncomingWindow, p.NextOutgoingID, p.OutgoingWindow,
		pointed(p.Handle), pointed(p.DeliveryCount), pointed(p.LinkCredit), pointed(p.Available),
		orNull(p.Drain, unset), orNull(p.Echo, unset),
	}
}

func decodeFlow(r *reader) (*Flow, error) {
	r.what = "flow"
	p := &Flow{
		NextIncomingID: optional[uint32](r),
		IncomingWindow: required[uint32](r),
		NextOutgoingID: required[uint32](r),
		OutgoingWindow: required[uint32](r),
		Handle:         optional[uint32](r),
		DeliveryCount:  optional[uint32](r),
		LinkCredit:     optional[uint32](r),
		Available:      optional[uint32](r),
		Drain:          field(r, unset),
		Echo:           field(r, unset),
	}
	r.take() // properties
	return p, r.end()
}

// Transfer carries a message or a part of one (transport 2.7.5).
type Transfer struct {
	Handle        uint32
	DeliveryID    *uint32
	DeliveryTag   []byte // nil = absent
	MessageFormat *uint32
	Settled       *bool
	More          bool
	State         State
	Resume        bool
	Aborted       bool
}

func (*Transfer) code() uint64 { return descTransfer }

func (p *Transfer) fields() List {
	return List{
		p.Handle, pointed(p.DeliveryID), bytesOrNull(p.DeliveryTag), pointed(p.MessageFormat),
		pointed(p.Settled), orNull(p.More, unset), nil, stateValue(p.State), orNull(p.Resume, unset),
		orNull(p.Aborted, unset),
	}
}

func decodeTransfer(r *reader) (*Transfer, error) {
	r.what = "transfer"
	p := &Transfer{
		Handle:        required[uint32](r),
		DeliveryID:    optional[uint32](r),
		DeliveryTag:   field[[]byte](r, nil),
		MessageFormat: optional[uint32](r),
		Settled:       optional[bool](r),
		More:          field(r, unset),
	}
	field[uint8](r, 0) // rcv-settle-mode: the link's is used
	state, err := decodeState(r.take())
	if err != nil {
		return nil, err
	}
	p.State = state
	p.Resume = field(r, unset)
	p.Aborted = field(r, unset)
	field(r, unset) // batchable: a hint
	if len(p.DeliveryTag) > 32 {
		return nil, malformed("transfer: delivery tag of %d bytes", len(p.DeliveryTag))
	}
	return p, r.end()
}

// Disposition tells the state of deliveries (transport 2.7.6).
type Disposition struct {
	Receiver bool // the role of the sender of this frame
	First    uint32
	Last     *uint32
	Settled  bool
	State    State
}

func (*Disposition) code() uint64 { return descDisposition }

func (p *Disposition) fields() List {
	return List{p.Receiver, p.First, pointed(p.Last), orNull(p.Settled, unset), stateValue(p.State)}
}

func decodeDisposition(r *reader) (*Disposition, error) {
	r.what = "disposition"
	p := &Disposition{
		Receiver: required[bool](r),
		First:    required[uint32](r),
		Last:     optional[uint32](r),
		Settled:  field(r, unset),
	}
	state, err := decodeState(r.take())
	if err != nil {
		return nil, err
	}
	p.State = state
	field(r, unset) // batchable
	return p, r.end()
}

// Detach ends a link (transport 2.7.7).
type Detach struct {
	Handle uint32
	Closed bool
	Error  *Error
}

func (*Detach) code() uint64 { return descDetach }

func (p *Detach) fields() List {
	return List{p.Handle, orNull(p.Closed, unset), p.Error.value()}
}

func decodeDetach(r *reader) (*Detach, error) {
	r.what = "detach"
	p := &Detach{Handle: required[uint32](r), Closed: field(r, unset)}
	e, err := decodeError(r.take())
	if err != nil {
		return nil, err
	}
	p.Error = e
	return p, r.end()
}

// End ends a session (transport 2.7.8).
type End struct{ Error *Error }

func (*End) code() uint64   { return descEnd }
func (p *End) fields() List { return List{p.Error.value()} }

// Close ends a connection (transport 2.7.9).
type Close struct{ Error *Error }

func (*Close) code() uint64   { return descClose }
func (p *Close) fields() List { return List{p.Error.value()} }
