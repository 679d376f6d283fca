package sqsqueue

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/queue-runtime/queue/aws/internal/profile"
	"github.com/queue-runtime/queue/driver"
)

// Scheme is the scheme of the URLs that [Open] takes.
const Scheme = "sqs"

// Open returns a Broker for sqs://REGION/?parameters. Credentials come from
// the SDK's default chain (environment, profiles, container and instance roles),
// never from the URL. A shared credentials file is read again every minute, and after a
// refusal; for a role that is assumed with its keys, when the role's credentials are renewed. An empty REGION means the chain's.
//
// Parameters, each at most once: endpoint, account, max_batch_bytes,
// session_batch and poll (a duration) set the Options of those names;
// dead_letter_suffix=S means that a queue without a redrive policy has the
// dead-letter queue of its logical name followed by S.
func Open(ctx context.Context, rawURL string) (*Broker, error) {
	region, o, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	cfg, err := profile.Load(ctx, region)
	if err != nil {
		if cerr := ctx.Err(); cerr != nil {
			return nil, cerr
		}
		return nil, driver.Errorf(driver.Permission, "AWS configuration: %w", err)
	}
	return New(cfg, o)
}

// parseURL's errors name a part of the URL, never its value.
func parseURL(rawURL string) (region string, o *Options, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", nil, errors.New("sqsqueue: the URL does not parse: use sqs://REGION/")
	}
	switch {
	case u.Scheme != Scheme:
		return "", nil, fmt.Errorf("sqsqueue: scheme %q: use sqs://REGION/", u.Scheme)
	case u.User != nil:
		return "", nil, errors.New("sqsqueue: credentials in the URL: leave them to the SDK's chain")
	case u.Port() != "" || u.Opaque != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return "", nil, errors.New("sqsqueue: more than a region in the URL: use sqs://REGION/?endpoint=URL")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", nil, errors.New("sqsqueue: the URL's query does not parse")
	}
	o = &Options{}
	for name, values := range q {
		if len(values) != 1 {
			return "", nil, fmt.Errorf("sqsqueue: URL parameter %q is given %d times", name, len(values))
		}
		v := values[0]
		switch name {
		case "endpoint":
			e, err := url.Parse(v)
			if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
				return "", nil, errors.New("sqsqueue: URL parameter endpoint is not an http or https URL")
			}
			o.Endpoint = v
		case "account":
			o.AccountID = v
		case "max_batch_bytes":
			if o.MaxBatchBytes, err = strconv.Atoi(v); err != nil || o.MaxBatchBytes == 0 {
				return "", nil, errors.New("sqsqueue: URL parameter max_batch_bytes is not a number of bytes")
			}
		case "session_batch":
			if o.SessionBatch, err = strconv.Atoi(v); err != nil || o.SessionBatch == 0 {
				return "", nil, errors.New("sqsqueue: URL parameter session_batch is not a number of messages")
			}
		case "poll":
			if o.Poll, err = time.ParseDuration(v); err != nil || o.Poll == 0 {
				return "", nil, errors.New("sqsqueue: URL parameter poll is not a duration such as 5s")
			}
		case "dead_letter_suffix":
			if v == "" {
				return "", nil, errors.New("sqsqueue: URL parameter dead_letter_suffix is empty")
			}
			o.DeadLetterQueue = func(queue string) string { return queue + v }
		default:
			return "", nil, fmt.Errorf("sqsqueue: unknown URL parameter %q", name)
		}
	}
	return u.Hostname(), o, o.validate()
}
