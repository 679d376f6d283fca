package tablereplay

import (
	"encoding/base64"
	"encoding/json"
	"strconv"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay/cas"
)

// The properties of an entity beside its keys.
const (
	writeProperty = "w" // drawn for each write, so that a writer knows its own again
	valueProperty = "v" // followed by a number: parts of the value
)

// maxPart bounds a binary property, and maxParts with it the value: 640 KiB of the 1 MiB
// of an entity (Understanding the Table service data model, property types).
const (
	maxPart  = 64 << 10
	maxParts = 10
)

// noRest stands for an empty row key.
const noRest = "-"

// keysOf returns the partition key and the row key.
func keysOf(key string) (partition, row string) {
	partition, row = cas.SplitKey(key)
	if row == "" {
		row = noRest
	}
	return partition, row
}

// entity is an item as it is stored.
type entity struct {
	item  cas.Item
	write string
}

// encode returns the JSON of an entity (Payload format for Table service operations).
func encode(key, write string, value []byte) ([]byte, error) {
	partition, row := keysOf(key)
	properties := map[string]any{"PartitionKey": partition, "RowKey": row, writeProperty: write}
	if len(value) > maxParts*maxPart {
		return nil, driver.Errorf(driver.TooLarge, "tablereplay: a value of %d bytes: at most %d fit into an entity", len(value), maxParts*maxPart)
	}
	for n := 0; n == 0 || len(value) > 0; n++ {
		part := value[:min(len(value), maxPart)]
		value = value[len(part):]
		name := valueProperty + strconv.Itoa(n)
		properties[name] = base64.StdEncoding.EncodeToString(part)
		properties[name+"@odata.type"] = "Edm.Binary"
	}
	return json.Marshal(properties)
}

// decode takes the JSON of an entity apart. etag is that of the header; empty means
// that the JSON has it.
func decode(data []byte, etag string) (entity, error) {
	corrupt := driver.Errorf(driver.Corrupt, "tablereplay: an entity of the table was not written by this package: use a table of its own")
	var properties map[string]json.RawMessage
	if err := json.Unmarshal(data, &properties); err != nil {
		return entity{}, corrupt
	}
	var failed bool
	text := func(name string) (s string) {
		failed = failed || json.Unmarshal(properties[name], &s) != nil
		return s
	}
	e := entity{item: cas.Item{Key: text("PartitionKey"), Version: etag}, write: text(writeProperty)}
	if row := text("RowKey"); row != noRest {
		e.item.Key += row
	}
	if etag == "" {
		e.item.Version = text("odata.etag")
	}
	for n := 0; n == 0 || properties[valueProperty+strconv.Itoa(n)] != nil; n++ {
		part, err := base64.StdEncoding.DecodeString(text(valueProperty + strconv.Itoa(n)))
		failed = failed || err != nil
		e.item.Value = append(e.item.Value, part...)
	}
	if failed || e.item.Version == "" {
		return entity{}, corrupt
	}
	return e, nil
}
