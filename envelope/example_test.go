package envelope_test

import (
	"crypto/rand"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
)

// A router seals with its own sender key. The bot that receives holds the master
// key.
func Example() {
	master, err := keys.Generate("orders-2026-01", nil)
	if err != nil {
		panic(err)
	}
	router, err := master.Sender("router")
	if err != nil {
		panic(err)
	}

	message := &envelope.Context{MessageID: "m-1", Attributes: map[string]string{"event": "push"}}
	bound, err := envelope.BoundNames(message.Attributes)
	if err != nil {
		panic(err)
	}
	context, err := envelope.AppendContext(nil, message, bound)
	if err != nil {
		panic(err)
	}
	header := envelope.Header{EncryptedAt: time.Now().UnixMilli(), Sequence: 1, Origin: "orders", Bound: bound}
	_, _ = rand.Read(header.Stream[:]) // never fails
	sealer, err := envelope.NewSealer(router, string(router.ID()), router.SenderID())
	if err != nil {
		panic(err)
	}
	plain, err := sealer.Seal(nil, &header, []byte("hello"), context)
	if err != nil {
		panic(err)
	}
	header.Sequence = 2
	padded, err := sealer.SealPadded(nil, &header, []byte("hello"), context, envelope.PadTo(256))
	if err != nil {
		panic(err)
	}

	opener := envelope.NewOpener(nil)
	for _, body := range [][]byte{plain, padded} {
		m, err := envelope.Parse(body)
		if err != nil {
			panic(err)
		}
		arrived, err := envelope.AppendContext(nil, message, m.Bound)
		if err != nil {
			panic(err) // to a receiver, it did not authenticate
		}
		text, err := opener.Open(nil, &m, master, arrived)
		fmt.Println(m.Sender, m.Sequence, len(m.Ciphertext), string(text), err)
	}
	// Output:
	// router 1 5 hello <nil>
	// router 2 256 hello <nil>
}
