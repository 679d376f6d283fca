package dynamoreplay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay/cas"
)

// The attributes of an item. None is a number: see the package comment.
const (
	partitionAttribute = "p" // the partition of the key (cas.SplitKey)
	sortAttribute      = "s" // the rest of the key, noRest if there is none
	versionAttribute   = "v"
	bodyAttribute      = "b"
)

// noRest stands for an empty sort key, which DynamoDB refuses.
const noRest = "-"

// maxValue keeps an item below 400 KB with its names and its key of at most 1,000
// bytes (Developer Guide, item size).
const maxValue = 390 << 10

// callTime bounds a request with its retries. One that hangs must not keep a receiver
// waiting until its locks are over.
const callTime = 10 * time.Second

// inspectInterval is how often a table is looked at while it is used.
const inspectInterval = 15 * time.Minute

// api is what is used of DynamoDB.
type api interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
	Scan(context.Context, *dynamodb.ScanInput, ...func(*dynamodb.Options)) (*dynamodb.ScanOutput, error)
	DescribeTable(context.Context, *dynamodb.DescribeTableInput, ...func(*dynamodb.Options)) (*dynamodb.DescribeTableOutput, error)
	CreateTable(context.Context, *dynamodb.CreateTableInput, ...func(*dynamodb.Options)) (*dynamodb.CreateTableOutput, error)
}

// backend implements cas.Backend.
type backend struct {
	api           api
	table, region string

	inspected atomic.Int64 // when, in nanoseconds since start
}

var _ cas.Backend = (*backend)(nil)

func keyOf(key string) map[string]types.AttributeValue {
	partition, rest := cas.SplitKey(key)
	if rest == "" {
		rest = noRest
	}
	return map[string]types.AttributeValue{
		partitionAttribute: &types.AttributeValueMemberS{Value: partition},
		sortAttribute:      &types.AttributeValueMemberS{Value: rest},
	}
}

// itemOf takes an item apart; the zero Item if there is none.
func itemOf(a map[string]types.AttributeValue) (cas.Item, error) {
	if len(a) == 0 {
		return cas.Item{}, nil
	}
	partition, ok1 := a[partitionAttribute].(*types.AttributeValueMemberS)
	rest, ok2 := a[sortAttribute].(*types.AttributeValueMemberS)
	version, ok3 := a[versionAttribute].(*types.AttributeValueMemberS)
	body, ok4 := a[bodyAttribute].(*types.AttributeValueMemberB)
	if !ok1 || !ok2 || !ok3 || !ok4 || version.Value == "" {
		return cas.Item{}, driver.Errorf(driver.Corrupt, "dynamoreplay: an item of the table was not written by this package: use a table of its own")
	}
	item := cas.Item{Key: partition.Value, Version: version.Value, Value: body.Value}
	if rest.Value != noRest {
		item.Key += rest.Value
	}
	return item, nil
}

// Get implements cas.Backend by a consistent read.
func (b *backend) Get(ctx context.Context, key string) (cas.Item, error) {
	if err := b.inspectIfDue(ctx); err != nil {
		return cas.Item{}, err
	}
	return b.get(ctx, key)
}

func (b *backend) get(ctx context.Context, key string) (cas.Item, error) {
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	out, err := b.api.GetItem(within, &dynamodb.GetItemInput{TableName: &b.table, Key: keyOf(key), ConsistentRead: aws.Bool(true)})
	if err != nil {
		return cas.Item{}, b.classify(ctx, "GetItem", err)
	}
	return itemOf(out.Item)
}

// Create implements cas.Backend.
func (b *backend) Create(ctx context.Context, key string, value []byte) (cas.Item, bool, error) {
	return b.write(ctx, key, "attribute_not_exists(#v)", "", value)
}

// Swap implements cas.Backend.
func (b *backend) Swap(ctx context.Context, key, version string, value []byte) (cas.Item, bool, error) {
	if value == nil {
		return b.remove(ctx, key, version)
	}
	return b.write(ctx, key, "#v = :old", version, value)
}

// write writes an item if the condition holds.
func (b *backend) write(ctx context.Context, key, condition, old string, value []byte) (cas.Item, bool, error) {
	if len(value) > maxValue {
		return cas.Item{}, false, driver.Errorf(driver.TooLarge, "dynamoreplay: an item of %d bytes: DynamoDB takes 400 KB", len(value))
	}
	if err := b.inspectIfDue(ctx); err != nil {
		return cas.Item{}, false, err
	}
	next := rand.Text()
	values := map[string]types.AttributeValue{
		":new": &types.AttributeValueMemberS{Value: next}, ":body": &types.AttributeValueMemberB{Value: value},
	}
	if old != "" {
		values[":old"] = &types.AttributeValueMemberS{Value: old}
	}
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := b.api.UpdateItem(within, &dynamodb.UpdateItemInput{
		TableName: &b.table, Key: keyOf(key),
		UpdateExpression:                    aws.String("SET #v = :new, #b = :body"),
		ConditionExpression:                 &condition,
		ExpressionAttributeNames:            map[string]string{"#v": versionAttribute, "#b": bodyAttribute},
		ExpressionAttributeValues:           values,
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	if err == nil {
		return cas.Item{Key: key, Version: next, Value: value}, true, nil
	}
	current, err := b.refused(ctx, "UpdateItem", key, err)
	// The SDK repeats a request whose answer was lost. Then the condition fails
	// because of the first one.
	return current, err == nil && current.Version == next, err
}

func (b *backend) remove(ctx context.Context, key, version string) (cas.Item, bool, error) {
	if err := b.inspectIfDue(ctx); err != nil {
		return cas.Item{}, false, err
	}
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := b.api.DeleteItem(within, &dynamodb.DeleteItemInput{
		TableName: &b.table, Key: keyOf(key),
		ConditionExpression:                 aws.String("#v = :old"),
		ExpressionAttributeNames:            map[string]string{"#v": versionAttribute},
		ExpressionAttributeValues:           map[string]types.AttributeValue{":old": &types.AttributeValueMemberS{Value: version}},
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	if err == nil {
		return cas.Item{}, true, nil
	}
	current, err := b.refused(ctx, "DeleteItem", key, err)
	return current, false, err
}

// refused returns the item whose condition failed, or the error if it is another one.
// A service that leaves the item out, as it does if there is none, is asked once more.
func (b *backend) refused(ctx context.Context, operation, key string, err error) (cas.Item, error) {
	var failed *types.ConditionalCheckFailedException
	if !errors.As(err, &failed) {
		return cas.Item{}, b.classify(ctx, operation, err)
	}
	if len(failed.Item) > 0 {
		return itemOf(failed.Item)
	}
	return b.get(ctx, key)
}

// Scan implements cas.Backend: a Query if the prefix lies in one partition, else a Scan
// of the whole table.
func (b *backend) Scan(ctx context.Context, prefix string) iter.Seq2[cas.Item, error] {
	partition, rest := cas.SplitKey(prefix)
	names := map[string]string{"#p": partitionAttribute}
	values := map[string]types.AttributeValue{":p": &types.AttributeValueMemberS{Value: partition}}
	page := func(ctx context.Context, from map[string]types.AttributeValue) ([]map[string]types.AttributeValue, map[string]types.AttributeValue, error) {
		out, err := b.api.Scan(ctx, &dynamodb.ScanInput{
			TableName: &b.table, ConsistentRead: aws.Bool(true), ExclusiveStartKey: from,
			FilterExpression: aws.String("begins_with(#p, :p)"), ExpressionAttributeNames: names, ExpressionAttributeValues: values,
		})
		if err != nil {
			return nil, nil, b.classify(ctx, "Scan", err)
		}
		return out.Items, out.LastEvaluatedKey, nil
	}
	if isPartition(partition) {
		condition := "#p = :p"
		if rest != "" {
			condition += " AND begins_with(#s, :s)"
			names["#s"], values[":s"] = sortAttribute, &types.AttributeValueMemberS{Value: rest}
		}
		page = func(ctx context.Context, from map[string]types.AttributeValue) ([]map[string]types.AttributeValue, map[string]types.AttributeValue, error) {
			out, err := b.api.Query(ctx, &dynamodb.QueryInput{
				TableName: &b.table, ConsistentRead: aws.Bool(true), ExclusiveStartKey: from,
				KeyConditionExpression: &condition, ExpressionAttributeNames: names, ExpressionAttributeValues: values,
			})
			if err != nil {
				return nil, nil, b.classify(ctx, "Query", err)
			}
			return out.Items, out.LastEvaluatedKey, nil
		}
	}
	return func(yield func(cas.Item, error) bool) {
		if err := b.inspectIfDue(ctx); err != nil {
			yield(cas.Item{}, err)
			return
		}
		var from map[string]types.AttributeValue
		for {
			within, cancel := context.WithTimeout(ctx, callTime)
			items, next, err := page(within, from)
			cancel()
			if err != nil {
				if cerr := ctx.Err(); cerr != nil {
					err = cerr
				}
				yield(cas.Item{}, err)
				return
			}
			for _, a := range items {
				item, err := itemOf(a)
				if !yield(item, err) || err != nil {
					return
				}
			}
			if from = next; len(from) == 0 {
				return
			}
		}
	}
}

// isPartition reports whether a prefix names one partition: it has three dots.
func isPartition(partition string) bool {
	dots := 0
	for i := range len(partition) {
		if partition[i] == '.' {
			dots++
		}
	}
	return dots == 3
}

// describe names the table in errors.
func (b *backend) describe() string { return fmt.Sprintf("table %s in %s", b.table, b.region) }
