package demo

// Report is what happened, in the form of qrt demo --json.
type Report struct {
	// OK: nothing was lost, nothing forged was delivered, and everything else
	// came out as the threat model says.
	OK         bool       `json:"ok"`
	Lost       int        `json:"lost"` // over the whole run
	Router     Router     `json:"router"`
	Rotation   Rotation   `json:"rotation"`
	Attacks    []Attack   `json:"attacks"`
	Policies   []Policy   `json:"policies"`
	Throughput Throughput `json:"throughput"`

	// What follows is for people.

	// Faults are what did not come out as it should, in words.
	Faults []string `json:"-"`
	// Sessions is how many sessions the router's messages had, and Overtaken how
	// many messages came before an earlier one of their session.
	Sessions  int `json:"-"`
	Overtaken int `json:"-"`
	// Seen is the beginning of a stored message, as the broker sees it, and of
	// its body as the bot does.
	Seen   []byte `json:"-"`
	Opened []byte `json:"-"`
}

// Router is the traffic from the router to the bots.
type Router struct {
	Messages int     `json:"messages"`
	Bytes    int64   `json:"bytes"` // of the bodies
	Queues   []Queue `json:"queues"`
}

// Queue is one queue of the router.
type Queue struct {
	Name      string `json:"queue"`
	KeyID     string `json:"key_id"`
	Sender    string `json:"sender"` // that the messages name, authentic
	Sent      int    `json:"sent"`
	Received  int    `json:"received"`  // as they were sent
	Encrypted int    `json:"encrypted"` // of those received
}

// Rotation is the traffic during which the key changed.
type Rotation struct {
	Messages int `json:"messages"`
	OldKey   int `json:"old_key"` // received under it
	NewKey   int `json:"new_key"`
	Lost     int `json:"lost"`
}

// Inexpressible is the Reason of an attack that was not made, because the
// broker has nothing that it could be made on: such as sessions. It has no
// attempts, and says nothing of the library.
const Inexpressible = "unsupported"

// Attack is one attack, and what became of the messages that it made. Attempts
// are the sum of the four outcomes.
type Attack struct {
	Name         string `json:"name"`
	Attempts     int    `json:"attempts"`
	Delivered    int    `json:"delivered"`
	DeadLettered int    `json:"dead_lettered"`
	Abandoned    int    `json:"abandoned"` // given back, to be tried again later
	Refused      int    `json:"refused"`   // states of sessions that were not read
	// Reason is the code by which metrics and dead letters name them. Empty
	// for some of those that are let through by design.
	Reason string `json:"error_type"`

	// Allowed: the messages are to be delivered, and marked.
	Allowed bool `json:"-"`
	// Faults is how often something did not come out as it should.
	Faults int `json:"-"`
}

// Policy is what a receiver with one policy made of a mixed fleet's plaintext.
type Policy struct {
	Policy             string `json:"policy"`
	PlaintextDelivered int    `json:"plaintext_delivered"`
	PlaintextRejected  int    `json:"plaintext_rejected"`

	// Encrypted is how many sealed messages of the same queue were delivered.
	Encrypted int `json:"-"`
}

// Throughput is plaintext beside encrypted, on the same broker, in pairs.
type Throughput struct {
	PlaintextPerSecond float64 `json:"plaintext_per_s"` // sent, received and completed
	EncryptedPerSecond float64 `json:"encrypted_per_s"`
	Pairs              int     `json:"pairs"`
	// Overhead is how much longer encrypted messages took, in percent: the median over
	// the pairs, and its bounds with 95 % confidence. Negative values are noise.
	Overhead     float64 `json:"overhead_percent"`
	OverheadLow  float64 `json:"overhead_low_percent"`
	OverheadHigh float64 `json:"overhead_high_percent"`
	SealNS       float64 `json:"seal_ns"` // of one message, on one core
	OpenNS       float64 `json:"open_ns"`
	Bytes        int     `json:"bytes"` // of a body, on average
}

// Share is the part of an encrypted message's time that sealing and opening take.
func (t Throughput) Share() float64 {
	return (t.SealNS + t.OpenNS) * t.EncryptedPerSecond / 1e9
}
