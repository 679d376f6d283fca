package dynamoreplay

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/queue-runtime/queue/aws/internal/profile"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// pageSpan is the number of sequences of a page. DynamoDB charges a write by what the
// item weighs: a page of 256 recent messages has 7 KB, one of 1,024 has 27 KB.
const pageSpan = 256

// Options configure a [Store]. Nil and the zero value are the defaults; negative
// values are refused.
type Options struct {
	// Bounds says how much the store holds, and for how long.
	Bounds replay.Bounds
	// Endpoint is the base URL of the service. Empty means the region's own.
	Endpoint string
	// Prefix stands before every key, so that several stores can share a table.
	// At most 100 letters, digits, '-' and '_'.
	Prefix string
	// SweepInterval is how often this Store reads all of a group that it works
	// for, to fold pages, drop old streams and count. 0 means 5 minutes.
	SweepInterval time.Duration
	// ChangeInterval is how often the change number grows at most. What a
	// restored backup or a failover lost is noticed if it is more than what was
	// written in two of them. 0 means 10 seconds.
	ChangeInterval time.Duration
}

// Store is a replay.Store in a table. It is safe for concurrent use and owns a
// goroutine for each sweep, which ends with Close.
type Store struct {
	*cas.Store
	b *backend
}

// tableName is what DynamoDB takes (API Reference, CreateTable). An ARN, which would
// name a table of another region, is none.
var tableName = regexp.MustCompile(`^[A-Za-z0-9_.-]{3,255}$`)

// New opens the replay store in a table. cfg brings region, credentials and HTTP client;
// its retries are replaced. o may be nil. It fails with [ErrGlobalTable] or
// [ErrForeign], or with an error of package driver: NotFound if there is no such table,
// which [Create] makes.
func New(ctx context.Context, cfg aws.Config, table string, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	b, err := newBackend(cfg, table, o.Endpoint)
	if err != nil {
		return nil, err
	}
	if err := b.inspect(ctx); err != nil {
		return nil, err
	}
	s, err := cas.Open(ctx, b, &cas.Options{
		Bounds: o.Bounds, Prefix: o.Prefix, PageSpan: pageSpan, SweepInterval: o.SweepInterval, ChangeInterval: o.ChangeInterval,
	})
	if err != nil {
		return nil, fmt.Errorf("dynamoreplay: %w", err)
	}
	return &Store{s, b}, nil
}

// Probe implements replay.Store. It also looks at the table once more.
func (s *Store) Probe(ctx context.Context, group string) error {
	if err := s.b.inspect(ctx); err != nil {
		return err
	}
	return s.Store.Probe(ctx, group)
}

// The retries of one request. A receiver waits for them with messages locked.
const (
	maxAttempts = 4
	maxBackoff  = 500 * time.Millisecond
)

func newBackend(cfg aws.Config, table, endpoint string) (*backend, error) {
	if cfg.Region == "" {
		return nil, errors.New("dynamoreplay: no region: set it in the configuration, AWS_REGION or the URL")
	}
	if !tableName.MatchString(table) {
		return nil, errors.New("dynamoreplay: the table's name has other characters, or another length: use 3 to 255 letters, digits, '-', '_' and '.'")
	}
	client := dynamodb.NewFromConfig(cfg, func(so *dynamodb.Options) {
		if endpoint != "" {
			so.BaseEndpoint = aws.String(endpoint)
		}
		so.HTTPClient = httpclient.New(so.HTTPClient, httpclient.AttemptTime)
		so.APIOptions = append(so.APIOptions, profile.DropRefused(so.Credentials))
		so.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts, r.MaxBackoff = maxAttempts, maxBackoff
		})
	})
	return &backend{api: client, table: table, region: cfg.Region}, nil
}
