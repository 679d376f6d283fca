package sessionkey

// Message is what a strategy looks at. It is not changed and not retained.
type Message struct {
	Body        []byte // in plaintext
	ContentType string
	Attributes  map[string]string
}

// Strategy derives the session ID of a message. Implementations are safe for
// concurrent use.
type Strategy interface {
	// SessionKey returns the session ID of m, "" for none. An error says that m
	// must not be sent: it names what is wrong, never a value of the message.
	SessionKey(m Message) (string, error)
}
