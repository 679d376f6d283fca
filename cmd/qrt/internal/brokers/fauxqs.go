package brokers

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/fauxqs"
)

// SQSEmulatorURL stands for fauxqs, an emulator of SQS that runs in Node as a child
// of this process.
const SQSEmulatorURL = "emulator://sqs"

// FauxqsFolder is the environment variable that names the folder in whose
// node_modules fauxqs is installed. Without it, it is the clone that qrt was built
// in.
const FauxqsFolder = "QRT_FAUXQS"

// openFauxqs starts fauxqs.
func openFauxqs() (*Broker, error) {
	server, err := fauxqs.Start(&fauxqs.Options{Folder: os.Getenv(FauxqsFolder)})
	if err != nil {
		return nil, fmt.Errorf("%s (%s names the folder): %w", SQSEmulatorURL, FauxqsFolder, err)
	}
	cfg := aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(server.URL()),
		Credentials:  credentials.NewStaticCredentialsProvider("qrt", "an-emulator-looks-at-no-secret", ""),
	}
	b, _ := newSQS(cfg)
	b.Title = "fauxqs, an emulator of AWS SQS"
	b.Connect = func(context.Context) (driver.Broker, error) { return sqsqueue.New(cfg, nil) }
	b.close = server.Close
	return b, nil
}
