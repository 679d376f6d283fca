package wire

import "bytes"

// Header is the part of a message that tells its delivery (messaging 3.2.1).
type Header struct {
	Durable       bool
	Priority      uint8 // 4 is the default
	TTL           *uint32
	FirstAcquirer bool
	DeliveryCount uint32 // earlier deliveries that did not succeed
}

// Message is an AMQP message in its sections (messaging 3.2). The bare message
// (properties, application properties and body) is kept as it was received,
// byte for byte, until one of its parts is set anew.
type Message struct {
	Header              Header
	DeliveryAnnotations Map
	Annotations         Map

	Properties Properties
	// Application holds the application properties. Use SetApplication to
	// change them.
	Application Map

	// The sections as they stand on the wire, descriptors included.
	properties, application, body, footer []byte

	around int // bytes of the sections before the bare message, as they came
}

// section ranks the descriptors: a message has its sections in this order, and
// only body sections may repeat (messaging 3.2).
func section(code uint64) (rank int, ok bool) {
	switch code {
	case descHeader, descDelivery, descMessage, descProperties, descApplication:
		return int(code - descHeader), true
	case descData, descSequence, descValue:
		return 5, true
	case descFooter:
		return 6, true
	}
	return 0, false
}

// ParseMessage decodes a message. It keeps b.
func ParseMessage(b []byte) (*Message, error) {
	m := &Message{Header: Header{Priority: 4}}
	d := decoder{b: b, left: MaxValues}
	last, kindOfBody, bodyStart := -1, uint64(0), 0
	for len(d.b) > 0 {
		from := len(b) - len(d.b)
		v, err := d.value(0)
		if err != nil {
			return nil, err
		}
		to := len(b) - len(d.b)
		raw := b[from:to:to]
		sec, ok := v.(Described)
		if !ok {
			return nil, malformed("message section of type %T", v)
		}
		code, ok := descriptor(sec.Descriptor)
		if !ok {
			return nil, malformed("unknown message section")
		}
		rank, ok := section(code)
		if !ok || rank < last || (rank == last && rank != 5) {
			return nil, malformed("message section %#02x in the wrong place", code)
		}
		if rank == 5 {
			// Several data or sequence sections, or one value (messaging 3.2).
			if last == 5 && (code != kindOfBody || code == descValue) {
				return nil, malformed("body of mixed sections")
			}
			if last != 5 {
				bodyStart = from
			}
			kindOfBody = code
			raw = b[bodyStart:to:to] // all of the body so far
		}
		last = rank
		if err := m.setSection(code, sec.Value, raw); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *Message) setSection(code uint64, v any, raw []byte) (err error) {
	switch code {
	case descHeader, descDelivery, descMessage:
		m.around += len(raw)
	}
	switch code {
	case descHeader:
		m.Header, err = decodeHeader(v)
	case descDelivery:
		m.DeliveryAnnotations, err = sectionMap(v, "delivery annotations")
	case descMessage:
		m.Annotations, err = sectionMap(v, "message annotations")
	case descProperties:
		m.properties = raw
		m.Properties, err = decodeProperties(v)
	case descApplication:
		m.application = raw
		m.Application, err = sectionMap(v, "application properties")
	case descFooter:
		m.footer = raw
		_, err = sectionMap(v, "footer")
	case descData:
		if _, ok := v.([]byte); !ok {
			return malformed("data section of type %T", v)
		}
		m.body = raw
	case descSequence:
		if _, ok := v.(List); !ok {
			return malformed("sequence section of type %T", v)
		}
		m.body = raw
	case descValue:
		m.body = raw
	}
	return err
}

func sectionMap(v any, what string) (Map, error) {
	m, ok := v.(Map)
	if !ok {
		return nil, malformed("%s of type %T", what, v)
	}
	return m, nil
}

func decodeHeader(v any) (Header, error) {
	list, ok := v.(List)
	if !ok {
		return Header{}, malformed("header of type %T", v)
	}
	r := &reader{what: "header", list: list}
	h := Header{
		Durable:  field(r, unset),
		Priority: field[uint8](r, 4),
		TTL:      optional[uint32](r),
	}
	h.FirstAcquirer = field(r, unset)
	h.DeliveryCount = field[uint32](r, 0)
	return h, r.end()
}

func (h Header) fields() List {
	return List{
		h.Durable, orNull(h.Priority, 4), pointed(h.TTL), orNull(h.FirstAcquirer, unset),
		h.DeliveryCount, // also 0: clients show an absent count as undefined
	}
}

// Append encodes m after b.
func (m *Message) Append(b []byte) []byte {
	b = appendComposite(b, descHeader, m.Header.fields())
	if len(m.DeliveryAnnotations) > 0 {
		b = Append(b, Described{uint64(descDelivery), m.DeliveryAnnotations})
	}
	if len(m.Annotations) > 0 {
		b = Append(b, Described{uint64(descMessage), m.Annotations})
	}
	b = append(b, m.properties...)
	b = append(b, m.application...)
	b = append(b, m.body...)
	return append(b, m.footer...)
}

// Size is the number of bytes of the bare message and the footer, and of what came
// before them.
func (m *Message) Size() int {
	return m.around + len(m.properties) + len(m.application) + len(m.body) + len(m.footer)
}

// Clone returns a copy that shares no slice that is ever written to.
func (m *Message) Clone() *Message {
	c := *m
	return &c
}

// SetProperties replaces the properties section.
func (m *Message) SetProperties(p Properties) {
	m.Properties = p
	m.properties = appendComposite(nil, descProperties, p.fields())
}

// SetApplication replaces the application properties. An empty map removes the
// section.
func (m *Message) SetApplication(p Map) {
	m.Application, m.application = p, nil
	if len(p) > 0 {
		m.application = Append(nil, Described{uint64(descApplication), p})
	}
}

// SetData replaces the body by one data section.
func (m *Message) SetData(data []byte) {
	m.body = Append(nil, Described{uint64(descData), data})
}

// SetValue replaces the body by one value section.
func (m *Message) SetValue(v any) {
	m.body = Append(nil, Described{uint64(descValue), v})
}

// Data returns the contents of the data sections; ok is false if the body is
// not of data sections. They refer to the message.
func (m *Message) Data() (sections [][]byte, ok bool) {
	for b := m.body; len(b) > 0; {
		v, rest, err := Decode(b)
		if err != nil { // cannot be: m.body was decoded or encoded here
			return nil, false
		}
		data, isData := v.(Described).Value.([]byte)
		if code, _ := descriptor(v.(Described).Descriptor); code != descData || !isData {
			return nil, false
		}
		sections = append(sections, data)
		b = rest
	}
	return sections, true
}

// Value returns the value of an amqp-value body.
func (m *Message) Value() (any, bool) {
	v, _, err := Decode(m.body)
	if err != nil {
		return nil, false
	}
	d, ok := v.(Described)
	if code, _ := descriptor(d.Descriptor); !ok || code != descValue {
		return nil, false
	}
	return d.Value, true
}

// Body returns the data sections as one, and nil for any other body.
func (m *Message) Body() []byte {
	sections, ok := m.Data()
	if !ok {
		return nil
	}
	return bytes.Join(sections, nil)
}

// Properties are the immutable properties of a message (messaging 3.2.4).
type Properties struct {
	MessageID     any // nil, or uint64, UUID, []byte, string
	UserID        []byte
	To            *string
	Subject       *string
	ReplyTo       *string
	CorrelationID any
	ContentType   *string
	// Rest holds content-encoding, absolute-expiry-time and creation-time.
	Rest           [3]any
	GroupID        *string
	GroupSequence  *uint32
	ReplyToGroupID *string
}

func decodeProperties(v any) (Properties, error) {
	list, ok := v.(List)
	if !ok {
		return Properties{}, malformed("properties of type %T", v)
	}
	r := &reader{what: "properties", list: list}
	p := Properties{
		MessageID:     r.take(),
		UserID:        field[[]byte](r, nil),
		To:            optionalText(r),
		Subject:       optional[string](r),
		ReplyTo:       optionalText(r),
		CorrelationID: r.take(),
		ContentType:   optionalText(r),
		Rest:          [3]any{r.take(), r.take(), r.take()},
		GroupID:       optional[string](r),
	}
	p.GroupSequence = optional[uint32](r)
	p.ReplyToGroupID = optional[string](r)
	if !isID(p.MessageID) || !isID(p.CorrelationID) {
		return Properties{}, malformed("properties: message-id or correlation-id of type %T, %T",
			p.MessageID, p.CorrelationID)
	}
	return p, r.end()
}

func optionalText(r *reader) *string {
	v := r.take()
	if v == nil {
		return nil
	}
	s, ok := Text(v)
	if !ok {
		r.fail("string", v)
	}
	return &s
}

// isID reports whether v may stand as message-id (messaging 3.2.11 to 3.2.14).
func isID(v any) bool {
	switch v.(type) {
	case nil, uint64, UUID, []byte, string:
		return true
	}
	return false
}

func (p Properties) fields() List {
	var contentType any
	if p.ContentType != nil {
		contentType = Symbol(*p.ContentType)
	}
	return List{
		p.MessageID, bytesOrNull(p.UserID), pointed(p.To), pointed(p.Subject), pointed(p.ReplyTo),
		p.CorrelationID, contentType, p.Rest[0], p.Rest[1], p.Rest[2], pointed(p.GroupID),
		pointed(p.GroupSequence), pointed(p.ReplyToGroupID),
	}
}
