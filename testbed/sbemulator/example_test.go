package sbemulator_test

import (
	"context"
	"fmt"
	"log"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// A test starts an emulator, makes its queues and connects the official client.
func Example() {
	s, err := sbemulator.Start(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.CreateQueue("orders", nil); err != nil {
		log.Fatal(err)
	}
	client, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	defer func() { _ = client.Close(ctx) }()
	sender, err := client.NewSender("orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := sender.SendMessage(ctx, &azservicebus.Message{Body: []byte("one pizza")}, nil); err != nil {
		log.Fatal(err)
	}

	// What the broker stores, and could change.
	stored, err := s.Messages("orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("stored: %s\n", stored[0].Body)
	err = s.Alter("orders", stored[0].SequenceNumber, func(m *sbemulator.Message) {
		m.Body = []byte("ten pizzas")
	})
	if err != nil {
		log.Fatal(err)
	}
	receiver, err := client.NewReceiverForQueue("orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	messages, err := receiver.ReceiveMessages(ctx, 1, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("received: %s\n", messages[0].Body)
	// Output:
	// stored: one pizza
	// received: ten pizzas
}

// A program serves an emulator until it is told to end.
func ExampleRun() {
	ctx, stop := context.WithCancel(context.Background())
	options := &sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{RequiresSession: true}}
	err := sbemulator.Run(ctx, options, func(s *sbemulator.Server) error {
		fmt.Println("ready on", s.Addr().Network())
		stop() // by a signal, say
		return nil
	})
	fmt.Println("ended:", err)
	// Output:
	// ready on tcp
	// ended: <nil>
}

// A fault befalls the operations that match it: here a send whose answer is
// lost. The client sends again, so the message is there twice.
func ExampleServer_Inject() {
	s, err := sbemulator.Start(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	if err := s.CreateQueue("orders", nil); err != nil {
		log.Fatal(err)
	}
	fault, err := s.Inject(sbemulator.Fault{On: sbemulator.OnSend, Action: sbemulator.DropAfter, Times: 1})
	if err != nil {
		log.Fatal(err)
	}
	client, err := azservicebus.NewClientFromConnectionString(s.ConnectionString(), &azservicebus.ClientOptions{RetryOptions: quick})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	defer func() { _ = client.Close(ctx) }()
	sender, err := client.NewSender("orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := sender.SendMessage(ctx, &azservicebus.Message{}, nil); err != nil {
		log.Fatal(err)
	}
	stored, err := s.Messages("orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(fault.Hits(), "fault,", len(stored), "messages")
	// Output:
	// 1 fault, 2 messages
}
