package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/tests/bench/internal/measure"
)

// This file measures the drivers of cloud brokers beside the SDKs that they are built on,
// one message at a time. Both talk to the same emulator, in a process of its own: the time
// of processors is that of the client alone.

const (
	driversSQS       = "queue, SQS"
	driversSQSSealed = "queue, SQS, sealed"
	driversSQSBare   = "aws-sdk-go-v2 alone"
	driversSB        = "queue, Service Bus"
	driversSBSealed  = "queue, Service Bus, sealed"
	driversSBBare    = "azservicebus alone"
)

// driversTurn is how many messages a turn moves.
const driversTurn = 20

// driverFigures are those of one broker, by job: the last way is the SDK alone.
type driverFigures struct {
	broker string
	jobs   [len(jobs)][]measure.Figures
}

// rival is a way to use a broker.
type rival struct {
	name string
	open func(ctx context.Context, c *corpus) (durable, error)
}

// measureDrivers measures each broker.
func measureDrivers(ctx context.Context, c *corpus, rounds int) (all []driverFigures, err error) {
	for _, broker := range []struct {
		name  string
		start func(context.Context) (rivals []rival, stop func() error, err error)
	}{{"SQS", startSQS}, {"Service Bus", startServiceBus}} {
		rivals, stop, err := broker.start(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", broker.name, err)
		}
		f, err := measureRivals(ctx, c, rivals, rounds)
		if err = errors.Join(err, stop()); err != nil {
			return nil, fmt.Errorf("%s: %w", broker.name, err)
		}
		f.broker = broker.name
		all = append(all, f)
	}
	return all, nil
}

// measureRivals measures the ways to use one broker in turns.
func measureRivals(ctx context.Context, c *corpus, rivals []rival, rounds int) (f driverFigures, err error) {
	var ways []measure.Way
	for _, r := range rivals {
		d, err := r.open(ctx, c)
		if err != nil {
			return f, fmt.Errorf("%s: %w", r.name, err)
		}
		defer func() { err = errors.Join(err, d.close(ctx)) }()
		all := durableWays(r.name, d, 1, driversTurn)
		ways = append(ways, all[:]...)
	}
	figures, err := measure.Interleaved(ctx, measure.Options{Rounds: rounds, Collect: true}, ways)
	for i := range figures {
		f.jobs[i%len(jobs)] = append(f.jobs[i%len(jobs)], figures[i])
	}
	return f, err
}

// How a driver is measured.
const (
	inPlaintext    = false
	sealedMessages = true
)

// over opens this library over a broker.
func over(name string, sealed bool, connect func() (driver.Broker, error)) rival {
	return rival{name, func(ctx context.Context, c *corpus) (durable, error) {
		b, err := connect()
		if err != nil {
			return nil, err
		}
		return openOurs(ctx, c, b, protection{sealed: sealed})
	}}
}

// bareQueue is the queue of the SDK alone.
const bareQueue = "bare"

// startSQS starts fauxqs and makes the queues.
func startSQS(ctx context.Context) ([]rival, func() error, error) {
	server, err := fauxqs.Start(nil)
	if err != nil {
		return nil, nil, err
	}
	config := aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(server.URL()),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "bench", SecretAccessKey: "bench"}, nil
		}),
	}
	client := sqs.NewFromConfig(config, func(o *sqs.Options) { o.HTTPClient = httpclient.PlainBodies{Doer: o.HTTPClient} })
	var made *sqs.CreateQueueOutput
	for _, name := range []string{someName, bareQueue} {
		if made, err = client.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String(name)}); err != nil {
			return nil, nil, errors.Join(err, server.Close())
		}
	}
	connect := func() (driver.Broker, error) { return sqsqueue.New(config, nil) }
	return []rival{
		over(driversSQS, inPlaintext, connect),
		over(driversSQSSealed, sealedMessages, connect),
		{driversSQSBare, func(_ context.Context, c *corpus) (durable, error) {
			return &bareSQS{corpus: c, client: client, url: made.QueueUrl}, nil
		}},
	}, server.Close, nil
}

// bareSQS is a queue by the SDK alone.
type bareSQS struct {
	corpus *corpus
	client *sqs.Client
	url    *string
	serial atomic.Int64
}

func (b *bareSQS) send(ctx context.Context) error {
	text := func(s string) types.MessageAttributeValue {
		return types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(s)}
	}
	_, err := b.client.SendMessage(ctx, &sqs.SendMessageInput{
		QueueUrl: b.url, MessageBody: aws.String(string(b.corpus.body(int(b.serial.Add(1))))),
		MessageAttributes: map[string]types.MessageAttributeValue{"event": text("pull_request"), "action": text("opened")},
	})
	return err
}

func (b *bareSQS) handle(ctx context.Context) error {
	got, err := b.client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
		QueueUrl: b.url, MaxNumberOfMessages: 1, WaitTimeSeconds: 5, MessageAttributeNames: []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{types.MessageSystemAttributeNameAll},
	})
	if err != nil {
		return err
	}
	if err := wrong(len(got.Messages), 1); err != nil {
		return err
	}
	_, err = b.client.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: b.url, ReceiptHandle: got.Messages[0].ReceiptHandle})
	return err
}

func (*bareSQS) close(context.Context) error { return nil }

// emulatorVariable makes this program an emulator of Service Bus that prints its connection
// string, and ends with its input.
const emulatorVariable = "QUEUE_BENCH_EMULATOR"

func serveEmulator(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return sbemulator.Run(ctx, nil, func(s *sbemulator.Server) error {
		for _, name := range []string{someName, bareQueue} {
			if err := s.CreateQueue(name, nil); err != nil {
				return err
			}
		}
		go func() {
			_, _ = io.Copy(io.Discard, in)
			cancel()
		}()
		_, err := fmt.Fprintln(out, s.ConnectionString())
		return err
	})
}

// startServiceBus starts this program as an emulator.
func startServiceBus(ctx context.Context) ([]rival, func() error, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program) //nolint:gosec // G204: this program
	cmd.Env = append(os.Environ(), emulatorVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, nil, err
	}
	stop := func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the emulator: %w", err), stop())
	}
	connection := strings.TrimSpace(line)
	connect := func() (driver.Broker, error) { return sbqueue.FromConnectionString(connection, nil) }
	return []rival{
		over(driversSB, inPlaintext, connect),
		over(driversSBSealed, sealedMessages, connect),
		{driversSBBare, func(_ context.Context, c *corpus) (durable, error) { return openBareServiceBus(c, connection) }},
	}, stop, nil
}

// bareServiceBus is a queue by the SDK alone.
type bareServiceBus struct {
	corpus   *corpus
	client   *azservicebus.Client
	sender   *azservicebus.Sender
	receiver *azservicebus.Receiver
	serial   atomic.Int64
}

func openBareServiceBus(c *corpus, connection string) (durable, error) {
	client, err := azservicebus.NewClientFromConnectionString(connection, nil)
	if err != nil {
		return nil, err
	}
	b := &bareServiceBus{corpus: c, client: client}
	if b.sender, err = client.NewSender(bareQueue, nil); err == nil {
		b.receiver, err = client.NewReceiverForQueue(bareQueue, nil)
	}
	if err != nil {
		return nil, errors.Join(err, client.Close(context.Background()))
	}
	return b, nil
}

func (b *bareServiceBus) send(ctx context.Context) error {
	n := b.serial.Add(1)
	id, kind := fmt.Sprint(n), "application/json"
	return b.sender.SendMessage(ctx, &azservicebus.Message{
		MessageID: &id, ContentType: &kind, Body: b.corpus.body(int(n)),
		ApplicationProperties: map[string]any{"event": "pull_request", "action": "opened"},
	}, nil)
}

func (b *bareServiceBus) handle(ctx context.Context) error {
	list, err := b.receiver.ReceiveMessages(ctx, 1, nil)
	if err != nil {
		return err
	}
	if err := wrong(len(list), 1); err != nil {
		return err
	}
	return b.receiver.CompleteMessage(ctx, list[0], nil)
}

func (b *bareServiceBus) close(ctx context.Context) error { return b.client.Close(ctx) }
