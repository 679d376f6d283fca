package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream is a NATS server in this process with a stream in files, each message synced,
// and a client that is connected without a network.
type jetStream struct {
	corpus   *corpus
	server   *server.Server
	conn     *nats.Conn
	js       jetstream.JetStream
	consumer jetstream.Consumer
	serial   atomic.Int64
}

// natsTimeout is how long the server may take for anything: it waits for a disk that others
// use, too.
const natsTimeout = time.Minute

func openJetStream(ctx context.Context, c *corpus, dir string) (durable, error) {
	s, err := server.NewServer(&server.Options{
		JetStream: true, StoreDir: dir, SyncAlways: true, DontListen: true, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	j := &jetStream{corpus: c, server: s}
	if err := j.connect(ctx); err != nil {
		return nil, errors.Join(err, j.close(ctx))
	}
	return j, nil
}

func (j *jetStream) connect(ctx context.Context) (err error) {
	if !j.server.ReadyForConnections(natsTimeout) {
		return errors.New("jetstream: the server did not start")
	}
	if j.conn, err = nats.Connect("", nats.InProcessServer(j.server), nats.Timeout(natsTimeout)); err != nil {
		return err
	}
	if j.js, err = jetstream.New(j.conn, jetstream.WithDefaultTimeout(natsTimeout)); err != nil {
		return err
	}
	stream, err := j.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: someName, Subjects: []string{someName}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
	})
	if err != nil {
		return err
	}
	j.consumer, err = stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: someName, AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 10})
	return err
}

func (j *jetStream) send(ctx context.Context) error {
	_, err := j.js.Publish(ctx, someName, j.corpus.body(int(j.serial.Add(1))))
	return err
}

// handle acknowledges with an answer: otherwise it would not know that the server has
// completed the message.
func (j *jetStream) handle(ctx context.Context) error {
	batch, err := j.consumer.Fetch(1, jetstream.FetchMaxWait(natsTimeout))
	if err != nil {
		return err
	}
	for m := range batch.Messages() {
		return m.DoubleAck(ctx)
	}
	return errors.Join(batch.Error(), errors.New("jetstream: nothing to receive"))
}

func (j *jetStream) close(context.Context) error {
	if j.conn != nil {
		j.conn.Close()
	}
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}
