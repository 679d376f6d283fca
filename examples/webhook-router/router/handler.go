package router

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-github/v89/github"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/sessionkey"
)

// Path is where GitHub's webhooks go.
const Path = "/webhook"

// contentType is what webhooks are.
const contentType = "application/json"

// signaturePrefix names the one algorithm that is taken. The library would take
// SHA-1, too.
const signaturePrefix = "sha256="

// maxHeader bounds the headers that become a message's ID and attribute.
const maxHeader = 64

// unavailable is the outcome of a webhook that the broker, or the keys, failed.
const unavailable = "unavailable"

// retryAfter is when to come again if the broker does not say.
const retryAfter = 5 * time.Second

// Handler serves POST /webhook, within a span of its own.
func (r *Router) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+Path, r.serve)
	return otelhttp.NewHandler(mux, "webhook",
		otelhttp.WithMeterProvider(r.telemetry.Meter),
		otelhttp.WithTracerProvider(r.telemetry.Tracer),
		otelhttp.WithPropagators(propagation.TraceContext{}),
		// In place of the Host header: name and port of it would be labels of metrics.
		otelhttp.WithServerName("webhook-router:80"),
		// A foreign traceparent becomes a link, not the parent.
		otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return !r.config.TrustTrace }),
	)
}

// refusal is why a webhook was not taken.
type refusal struct {
	status  int
	outcome string // the label of the metric
	text    string // for the sender
	after   time.Duration
	cause   error // for the log
}

func (r *Router) serve(w http.ResponseWriter, q *http.Request) {
	var hook *webhook
	var no *refusal
	select {
	case r.slots <- struct{}{}:
		r.inFlight.Add(q.Context(), 1)
		defer func() {
			r.inFlight.Add(q.Context(), -1)
			<-r.slots
		}()
		hook, no = r.take(w, q)
	default:
		no = &refusal{http.StatusServiceUnavailable, "busy", "too many webhooks at once", time.Second, nil}
	}
	var to string
	if no == nil {
		span := trace.SpanFromContext(q.Context())
		span.SetAttributes(attribute.String("github.event", hook.event), attribute.String("github.delivery", hook.delivery))
		var err error
		if to, err = r.send(q.Context(), hook); err != nil {
			no = refuse(q.Context(), err)
		}
		switch {
		case no == nil:
			r.failed.Store(0)
		case no.outcome == unavailable:
			r.failed.Store(time.Now().UnixNano())
		}
	}
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if no == nil {
		r.count(q.Context(), "accepted")
		header.Set("Content-Type", contentType)
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(accepted{Delivery: hook.delivery, Queue: to}) // the sender is gone, and will come again
		return
	}
	r.count(q.Context(), no.outcome)
	attrs := []any{"status", no.status, "outcome", no.outcome}
	if hook != nil {
		attrs = append(attrs, "delivery", hook.delivery, "event", hook.event)
	}
	if no.cause != nil {
		attrs = append(attrs, "error", no.cause.Error())
	}
	r.log.WarnContext(q.Context(), "Webhook not taken", attrs...)
	if no.after > 0 {
		header.Set("Retry-After", strconv.Itoa(int((no.after+time.Second-1)/time.Second)))
	}
	header.Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(no.status)
	_, _ = io.WriteString(w, no.text+"\n") // as above
}

// accepted is the answer to a webhook that the broker holds.
type accepted struct {
	Delivery string `json:"delivery"`
	Queue    string `json:"queue"`
}

// take reads and verifies a webhook. Nothing of it is looked at before its
// signature, but for what bounds the work.
func (r *Router) take(w http.ResponseWriter, q *http.Request) (*webhook, *refusal) {
	tooLarge := &refusal{http.StatusRequestEntityTooLarge, "too_large", "the body is larger than " + strconv.FormatInt(r.config.MaxBody, 10) + " bytes", 0, nil}
	if q.ContentLength > r.config.MaxBody {
		return nil, tooLarge
	}
	signature := q.Header.Get(github.SHA256SignatureHeader)
	if signature == "" {
		return nil, &refusal{http.StatusUnauthorized, "unsigned", "no X-Hub-Signature-256: set a secret for the webhook (X-Hub-Signature, which is SHA-1, is not accepted)", 0, nil}
	}
	if media, _, err := mime.ParseMediaType(q.Header.Get("Content-Type")); err != nil || media != contentType {
		return nil, &refusal{http.StatusUnsupportedMediaType, "malformed", "set the webhook's content type to application/json", 0, nil}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, r.config.MaxBody))
	var tooMany *http.MaxBytesError
	switch {
	case errors.As(err, &tooMany):
		return nil, tooLarge
	case err != nil:
		return nil, &refusal{http.StatusBadRequest, "malformed", "the body did not arrive", 0, err}
	case !r.verify(signature, body):
		return nil, &refusal{http.StatusUnauthorized, "bad_signature", "X-Hub-Signature-256 does not match the body under the webhook's secret", 0, nil}
	case !isObject(body):
		return nil, &refusal{http.StatusBadRequest, "malformed", "the body is no webhook", 0, nil}
	}
	// The signature covers the body alone. Headers are what the sender says.
	hook := &webhook{event: q.Header.Get(github.EventTypeHeader), delivery: q.Header.Get(github.DeliveryIDHeader), body: body}
	if !token(hook.event) || !token(hook.delivery) {
		return nil, &refusal{http.StatusBadRequest, "malformed", "X-GitHub-Event and X-GitHub-Delivery are needed, of letters, digits, - and _", 0, nil}
	}
	return hook, nil
}

// verify reports whether the signature is that of the body under the secret, or
// under the previous one.
func (r *Router) verify(signature string, body []byte) bool {
	if !strings.HasPrefix(signature, signaturePrefix) {
		return false
	}
	for _, s := range [...][]byte{r.config.Secret.Reveal(), r.config.Previous.Reveal()} {
		// An empty secret would let any sender sign.
		if len(s) > 0 && github.ValidateSignature(signature, body, s) == nil {
			return true
		}
	}
	return false
}

// isObject reports whether body is a JSON object. Anything else is refused here,
// because a bot that finds it later cannot answer the sender.
func isObject(body []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) && json.Valid(body)
}

// token reports whether s is what GitHub sends as an event or a GUID, which every
// broker takes.
func token(s string) bool {
	if s == "" || len(s) > maxHeader {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// refuse says what a failure to send means to the sender.
func refuse(ctx context.Context, err error) *refusal {
	switch {
	case errors.Is(err, queue.ErrMessageTooLarge):
		return &refusal{http.StatusRequestEntityTooLarge, "too_large", "the body is larger than the broker takes", 0, err}
	case errors.Is(err, sessionkey.ErrMessage), errors.Is(err, queue.ErrInvalidMessage):
		return &refusal{http.StatusBadRequest, "malformed", "the body is no webhook", 0, err}
	case ctx.Err() != nil:
		return &refusal{http.StatusServiceUnavailable, "abandoned", "the request ended before the broker confirmed", retryAfter, err}
	}
	// The broker, or the keys. It may hold the message all the same: the GUID
	// keeps a repeat from becoming a second one.
	after := retryAfter
	var e *queue.Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		after = e.RetryAfter
	}
	return &refusal{http.StatusServiceUnavailable, unavailable, "the broker did not confirm the webhook: send it again", after, err}
}
