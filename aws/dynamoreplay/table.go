package dynamoreplay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/queue-runtime/queue/backoff"

	"github.com/queue-runtime/queue/driver"
)

// Errors of [New], and of calls to a table that was changed.
var (
	// ErrGlobalTable: the table has replicas in other regions. Two regions can
	// grant one claim, and the later write removes the other.
	ErrGlobalTable = errors.New("a global table cannot hold a replay store")
	// ErrForeign: the table has other keys than a replay store.
	ErrForeign = errors.New("the table is no replay store")
)

var started = time.Now()

// inspectIfDue looks at the table if that was not done for inspectInterval.
func (b *backend) inspectIfDue(ctx context.Context) error {
	if time.Since(started)-time.Duration(b.inspected.Load()) < inspectInterval {
		return nil
	}
	return b.inspect(ctx)
}

// inspect refuses a table that cannot hold a replay store.
func (b *backend) inspect(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out, err := b.api.DescribeTable(within, &dynamodb.DescribeTableInput{TableName: &b.table})
	if err != nil {
		return b.classify(ctx, "DescribeTable", err)
	}
	if err := b.judge(out.Table); err != nil {
		return err
	}
	b.inspected.Store(int64(time.Since(started)))
	return nil
}

func (b *backend) judge(t *types.TableDescription) error {
	keys := make(map[string]types.KeyType)
	for _, k := range t.KeySchema {
		keys[aws.ToString(k.AttributeName)] = k.KeyType
	}
	for _, a := range t.AttributeDefinitions {
		if a.AttributeType != types.ScalarAttributeTypeS {
			delete(keys, aws.ToString(a.AttributeName))
		}
	}
	switch {
	case t.TableStatus != types.TableStatusActive && t.TableStatus != types.TableStatusUpdating:
		return driver.Errorf(driver.Unavailable, "dynamoreplay: %s is %s", b.describe(), t.TableStatus)
	case len(t.Replicas) > 0 || aws.ToString(t.GlobalTableVersion) != "":
		return fmt.Errorf("dynamoreplay: %s has replicas in other regions: %w: use a table of one region", b.describe(), ErrGlobalTable)
	case len(keys) != 2 || keys[partitionAttribute] != types.KeyTypeHash || keys[sortAttribute] != types.KeyTypeRange:
		return fmt.Errorf("dynamoreplay: %s: %w: make one with qrt nonces init, with the partition key %s and the sort key %s, both strings",
			b.describe(), ErrForeign, partitionAttribute, sortAttribute)
	}
	return nil
}

// createTime is how long Create waits for the table. DynamoDB takes some seconds.
const createTime = 2 * time.Minute

// Create makes a table for a replay store: on demand, protected against deletion. It
// waits until the table can be used. A table that is there and suits is left as it is.
// It needs dynamodb:CreateTable and DescribeTable. o may be nil.
func Create(ctx context.Context, cfg aws.Config, table string, o *Options) error {
	if o == nil {
		o = &Options{}
	}
	b, err := newBackend(cfg, table, o.Endpoint)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, createTime)
	defer cancel()
	_, err = b.api.CreateTable(ctx, &dynamodb.CreateTableInput{
		TableName:   &b.table,
		BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(partitionAttribute), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(sortAttribute), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(partitionAttribute), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(sortAttribute), KeyType: types.KeyTypeRange},
		},
		DeletionProtectionEnabled: aws.Bool(true),
	})
	var exists *types.ResourceInUseException
	if err != nil && !errors.As(err, &exists) {
		return b.classify(ctx, "CreateTable", err)
	}
	wait := 20 * time.Millisecond
	for {
		err := b.inspect(ctx)
		if driver.KindOf(err) != driver.Unavailable && driver.KindOf(err) != driver.NotFound {
			return err // nil too
		}
		if !backoff.Sleep(ctx, wait) {
			return fmt.Errorf("dynamoreplay: %s is not ready yet: %w", b.describe(), err)
		}
		wait = min(2*wait, 2*time.Second)
	}
}
