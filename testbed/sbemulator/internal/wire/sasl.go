package wire

// The codes of a SASL outcome (security 5.3.3.6).
const (
	SASLOK   uint8 = 0
	SASLAuth uint8 = 1
)

type (
	// Mechanisms is the server's offer (security 5.3.3.1).
	Mechanisms struct{ Names []Symbol }
	// Init is the client's choice (security 5.3.3.2).
	Init struct {
		Mechanism       Symbol
		InitialResponse []byte // nil = absent
		Hostname        string
	}
	// Challenge and Response are the steps of mechanisms that have any.
	Challenge struct{ Challenge []byte }
	// Response answers a Challenge.
	Response struct{ Response []byte }
	// Outcome ends the exchange.
	Outcome struct{ Code uint8 }
)

func (*Mechanisms) code() uint64 { return descMechanisms }
func (*Init) code() uint64       { return descInit }
func (*Challenge) code() uint64  { return descChallenge }
func (*Response) code() uint64   { return descResponse }
func (*Outcome) code() uint64    { return descOutcome }

func (p *Mechanisms) fields() List {
	a := Array{Code: codeSym8}
	for _, n := range p.Names {
		a.Elems = append(a.Elems, n)
	}
	return List{a}
}

func (p *Init) fields() List {
	return List{p.Mechanism, bytesOrNull(p.InitialResponse), orNull(p.Hostname, "")}
}

func (p *Challenge) fields() List { return List{p.Challenge} }
func (p *Response) fields() List  { return List{p.Response} }
func (p *Outcome) fields() List   { return List{p.Code} }

func decodeSASL(code uint64, r *reader) (Performative, error) {
	r.what = "sasl"
	var p Performative
	switch code {
	case descMechanisms:
		m := &Mechanisms{}
		switch v := r.take().(type) {
		case Symbol: // a single value may stand without its array (types 1.4)
			m.Names = []Symbol{v}
		case Array:
			for _, e := range v.Elems {
				s, ok := e.(Symbol)
				if !ok {
					return nil, malformed("sasl mechanism of type %T", e)
				}
				m.Names = append(m.Names, s)
			}
		default:
			return nil, malformed("sasl mechanisms of type %T", v)
		}
		p = m
	case descInit:
		p = &Init{
			Mechanism:       required[Symbol](r),
			InitialResponse: field[[]byte](r, nil),
			Hostname:        field(r, ""),
		}
	case descChallenge:
		p = &Challenge{required[[]byte](r)}
	case descResponse:
		p = &Response{required[[]byte](r)}
	case descOutcome:
		p = &Outcome{required[uint8](r)}
		field[[]byte](r, nil) // additional-data
	default:
		return nil, malformed("performative %#02x", code)
	}
	return p, r.end()
}
