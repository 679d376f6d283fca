package sqsattack

import (
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/queue-runtime/queue/driver"
)

// message is a message as SQS stores it. group is the MessageGroupId.
type message struct {
	body       string
	group      string
	attributes map[string]types.MessageAttributeValue
}

// packed is the JSON of the attribute qrt-sqs-packed.
type packed struct {
	ID          string      `json:"id,omitempty"`
	Session     string      `json:"session,omitempty"`
	Correlation string      `json:"correlation,omitempty"`
	ContentType string      `json:"content_type,omitempty"`
	Attributes  [][2]string `json:"attributes,omitempty"`
}

func decodeAll(all []message) ([]driver.Message, error) {
	out := make([]driver.Message, len(all))
	for i := range all {
		var err error
		if out[i], err = all[i].decode(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (m *message) decode() (driver.Message, error) {
	var p packed
	out := driver.Message{Body: []byte(m.body)}
	put := func(name, value string) {
		if out.Attributes == nil {
			out.Attributes = make(map[string]string)
		}
		out.Attributes[name] = value
	}
	encoding := ""
	for name, v := range m.attributes {
		text := aws.ToString(v.StringValue)
		switch name {
		case "qrt-sqs-id":
			out.ID = text
		case "qrt-sqs-encoding":
			encoding = text
		case "qrt-sqs-packed":
			if err := json.Unmarshal([]byte(text), &p); err != nil {
				return out, errors.New("the attribute qrt-sqs-packed is not JSON")
			}
		case "qrt-sqs-dead-letter", "traceparent", "tracestate":
		default:
			put(name, text)
		}
	}
	for _, a := range p.Attributes {
		put(a[0], a[1])
	}
	if p.ID != "" {
		out.ID = p.ID
	}
	out.SessionID, out.CorrelationID, out.ContentType = p.Session, p.Correlation, p.ContentType
	if out.SessionID == "" && m.group != out.ID {
		out.SessionID = m.group
	}
	switch encoding {
	case "qre1-base64", "base64":
		b, err := base64.StdEncoding.DecodeString(m.body)
		if err != nil {
			return out, errors.New("a body is marked as base64 and is not")
		}
		out.Body, out.Sealed = b, encoding == "qre1-base64"
	case "empty":
		out.Body = nil
	}
	return out, nil
}

func encode(m *driver.Message) (message, error) {
	p := packed{Session: m.SessionID, Correlation: m.CorrelationID, ContentType: m.ContentType}
	for name, v := range m.Attributes {
		p.Attributes = append(p.Attributes, [2]string{name, v})
	}
	metadata, err := json.Marshal(p)
	if err != nil {
		return message{}, err
	}
	out := message{body: string(m.Body), group: m.SessionID, attributes: make(map[string]types.MessageAttributeValue)}
	put := func(name, value string) {
		out.attributes[name] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: aws.String(value)}
	}
	put("qrt-sqs-id", m.ID)
	put("qrt-sqs-packed", string(metadata))
	if out.group == "" {
		out.group = m.ID
	}
	text := true
	for _, c := range m.Body {
		text = text && c >= ' ' && c < 0x7F
	}
	switch {
	case len(m.Body) == 0:
		out.body = "-" // SQS takes no empty body
		put("qrt-sqs-encoding", "empty")
	case m.Sealed:
		out.body = base64.StdEncoding.EncodeToString(m.Body)
		put("qrt-sqs-encoding", "qre1-base64")
	case !text:
		out.body = base64.StdEncoding.EncodeToString(m.Body)
		put("qrt-sqs-encoding", "base64")
	}
	return out, nil
}
