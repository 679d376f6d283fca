package wire

// State is the state of a delivery (messaging 3.4): Accepted, Rejected,
// Released, Modified or Received.
type State interface{ stateFields() (uint64, List) }

type (
	// Accepted: the receiver has taken the message.
	Accepted struct{}
	// Released: the receiver did not and will not process the message.
	Released struct{}
	// Rejected: the message is invalid or cannot be processed.
	Rejected struct{ Error *Error }
	// Modified: like Released, with changes to the message.
	Modified struct {
		DeliveryFailed    bool
		UndeliverableHere bool
		Annotations       Map
	}
	// Received: a part of the message has arrived; no outcome.
	Received struct {
		SectionNumber uint32
		SectionOffset uint64
	}
)

func (Accepted) stateFields() (uint64, List)   { return descAccepted, nil }
func (Released) stateFields() (uint64, List)   { return descReleased, nil }
func (s Rejected) stateFields() (uint64, List) { return descRejected, List{s.Error.value()} }

func (s Modified) stateFields() (uint64, List) {
	return descModified, List{
		orNull(s.DeliveryFailed, unset), orNull(s.UndeliverableHere, unset), mapOrNull(s.Annotations),
	}
}

func (s Received) stateFields() (uint64, List) {
	return descReceived, List{s.SectionNumber, s.SectionOffset}
}

func stateValue(s State) any {
	if s == nil {
		return nil
	}
	desc, fields := s.stateFields()
	for len(fields) > 0 && fields[len(fields)-1] == nil {
		fields = fields[:len(fields)-1]
	}
	return Described{desc, fields}
}

func decodeState(v any) (State, error) {
	if v == nil {
		return nil, nil
	}
	d, ok := v.(Described)
	if !ok {
		return nil, malformed("delivery state: %T", v)
	}
	code, _ := descriptor(d.Descriptor)
	list, ok := d.Value.(List)
	if !ok {
		return nil, malformed("delivery state %#02x is no list", code)
	}
	r := &reader{what: "delivery state", list: list}
	var s State
	switch code {
	case descAccepted:
		s = Accepted{}
	case descReleased:
		s = Released{}
	case descRejected:
		e, err := decodeError(r.take())
		if err != nil {
			return nil, err
		}
		s = Rejected{e}
	case descModified:
		s = Modified{
			DeliveryFailed:    field(r, unset),
			UndeliverableHere: field(r, unset),
			Annotations:       field[Map](r, nil),
		}
	case descReceived:
		s = Received{required[uint32](r), required[uint64](r)}
	default:
		return nil, malformed("unknown delivery state")
	}
	return s, r.end()
}
