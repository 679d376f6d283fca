package sbqueue_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus/admin"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// TestLive is the suite against a namespace, or Microsoft's emulator. It makes
// queues by the management API and removes them, so the connection string needs
// the right Manage. For an emulator that has its management API elsewhere,
// SERVICEBUS_ADMIN_CONNECTION_STRING says where.
func TestLive(t *testing.T) {
	connection := os.Getenv("SERVICEBUS_CONNECTION_STRING")
	if connection == "" {
		t.Skip("SERVICEBUS_CONNECTION_STRING is not set: the live run needs a namespace or Microsoft's emulator")
	}
	where := os.Getenv("SERVICEBUS_ADMIN_CONNECTION_STRING")
	if where == "" {
		where = connection
	}
	manager, err := admin.NewClientFromConnectionString(where, nil)
	if err != nil {
		t.Fatal("the connection string is not valid") // the error may repeat it
	}
	h := live(connection, manager, 30*time.Second, 3*time.Second)
	// What the management API counts as active includes what is held, and is
	// worth more than no count.
	t.Run("cases", func(t *testing.T) {
		beside(t, drivertest.Cases(h), func(name string) bool { return name != "stats" && name != goroutines })
	})
	exclusive(t, drivertest.Cases(h))
}

// TestLiveHarness holds the harness of TestLive to account, on the emulator and a
// management API in front of it: with the settings of queues and their counts taken
// from there.
func TestLiveHarness(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	manager, err := admin.NewClientFromConnectionString(n.ConnectionString(), &admin.ClientOptions{
		ClientOptions: azcore.ClientOptions{Transport: &administration{s: n.Server, queues: make(map[string]description)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := live(n.ConnectionString(), manager, 10*time.Second, 600*time.Millisecond)
	kinds := []string{"names", "message_whole", "limits_sane", "session_ids", "lock_expires", "deadletter_max_deliveries", "dedup"} // one of each kind of queue
	t.Run("cases", func(t *testing.T) {
		beside(t, drivertest.Cases(h), func(name string) bool { return slices.Contains(kinds, name) })
	})
	if left := n.Queues(); len(left) != 1 {
		t.Errorf("queues are left: %q", left)
	}
}

// Counts are those of the management API.
func TestStats(t *testing.T) {
	t.Parallel()
	n := start(t, nil, sbemulator.QueueOptions{})
	at := time.Now().UTC().Format(time.RFC3339)
	a := &administration{s: n.Server, queues: map[string]description{
		"q": {CreatedAt: at, UpdatedAt: at, AccessedAt: at, LockDuration: "PT1M", MaxDeliveryCount: 10},
	}}
	manager, err := admin.NewClientFromConnectionString(n.ConnectionString(), &admin.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: a}})
	if err != nil {
		t.Fatal(err)
	}
	b, err := sbqueue.FromConnectionString(n.ConnectionString(), &sbqueue.Options{Admin: manager})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close(context.Background()) }()
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, q, &driver.Message{ID: "a"}, &driver.Message{ID: "b"}, &driver.Message{ID: "c"})
	send(t, q, &driver.Message{ID: "later", NotBefore: time.Now().Add(time.Hour)})
	if _, err := settle(t, q, receive(t, q, 1)[0], driver.MoveToDeadLetter); err != nil {
		t.Fatal(err)
	}
	receive(t, q, 1) // and held
	got, err := q.Stats(t.Context())
	want := driver.Stats{Ready: 2, InFlight: -1, Scheduled: 1, DeadLetters: 1, Approximate: true}
	if err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}

// live describes a namespace to the suite.
func live(connection string, manager *admin.Client, slack, quiet time.Duration) drivertest.Harness {
	return drivertest.Harness{Start: func(t drivertest.T) *drivertest.Instance {
		return &drivertest.Instance{
			Connect: func(context.Context) (driver.Broker, error) {
				return sbqueue.FromConnectionString(connection, &sbqueue.Options{Admin: manager})
			},
			NewQueue: func(ctx context.Context, s drivertest.QueueSpec) (string, error) {
				name := "qrt-test-" + strings.ToLower(rand.Text())
				p := &admin.QueueProperties{RequiresSession: &s.Sessions, RequiresDuplicateDetection: &s.Dedup}
				lock, deliveries, window := "PT1M", int32(100), "PT10M"
				if s.ShortLock {
					lock = "PT5S" // the shortest there is
				}
				if s.MaxDeliveries > 0 {
					deliveries = int32(s.MaxDeliveries) //nolint:gosec // G115: of the suite
				}
				p.LockDuration, p.MaxDeliveryCount = &lock, &deliveries
				if s.Dedup {
					p.DuplicateDetectionHistoryTimeWindow = &window
				}
				if _, err := manager.CreateQueue(ctx, name, &admin.CreateQueueOptions{Properties: p}); err != nil {
					return "", fmt.Errorf("making a queue needs the management API and the right Manage: %w", err)
				}
				t.Cleanup(func() {
					if _, err := manager.DeleteQueue(context.Background(), name, nil); err != nil {
						t.Errorf("DeleteQueue: %v", err)
					}
				})
				return name, nil
			},
			Missing: "qrt-test-missing",
			Slack:   slack,
			Quiet:   quiet,
			Foreign: func(stack string) bool { return strings.Contains(stack, "/sbemulator.") },
		}
	}}
}

// description is what the management API tells of a queue (ATOM, and the schema
// of Service Bus).
type description struct {
	XMLName                    xml.Name `xml:"http://schemas.microsoft.com/netservices/2010/10/servicebus/connect QueueDescription"`
	LockDuration               string   `xml:"LockDuration"`
	RequiresDuplicateDetection bool     `xml:"RequiresDuplicateDetection"`
	RequiresSession            bool     `xml:"RequiresSession"`
	MaxDeliveryCount           int      `xml:"MaxDeliveryCount"`
	CreatedAt                  string   `xml:"CreatedAt"`
	UpdatedAt                  string   `xml:"UpdatedAt"`
	AccessedAt                 string   `xml:"AccessedAt"`
	CountDetails               counts   `xml:"CountDetails"`
}

type counts struct {
	Active    int `xml:"http://schemas.microsoft.com/netservices/2011/06/servicebus ActiveMessageCount"`
	Dead      int `xml:"http://schemas.microsoft.com/netservices/2011/06/servicebus DeadLetterMessageCount"`
	Scheduled int `xml:"http://schemas.microsoft.com/netservices/2011/06/servicebus ScheduledMessageCount"`
}

type atomEntry struct {
	XMLName xml.Name `xml:"http://www.w3.org/2005/Atom entry"`
	Title   string   `xml:"title"`
	Content struct {
		Type  string `xml:"type,attr"`
		Queue description
	} `xml:"content"`
}

// administration is the part of the management API that the harness needs, in front of
// the emulator, where HTTP would be.
type administration struct {
	s *sbemulator.Server

	mu     sync.Mutex // guards what follows
	queues map[string]description
}

func (m *administration) Do(r *http.Request) (*http.Response, error) {
	name := strings.Trim(r.URL.Path, "/")
	m.mu.Lock()
	defer m.mu.Unlock()
	d, known := m.queues[name]
	switch r.Method {
	case http.MethodPut:
		var in atomEntry
		if err := xml.NewDecoder(r.Body).Decode(&in); err != nil {
			return nil, err
		}
		d = in.Content.Queue
		lock, err := time.ParseDuration(strings.ToLower(strings.TrimPrefix(d.LockDuration, "PT")))
		if err != nil {
			return nil, err
		}
		o := &sbemulator.QueueOptions{RequiresSession: d.RequiresSession, LockDuration: lock, MaxDeliveryCount: d.MaxDeliveryCount}
		if d.RequiresDuplicateDetection {
			o.DuplicateDetectionWindow = 10 * time.Minute
		}
		if err := m.s.CreateQueue(name, o); err != nil {
			return nil, err
		}
		now := time.Now().UTC().Format(time.RFC3339)
		d.CreatedAt, d.UpdatedAt, d.AccessedAt = now, now, now
		m.queues[name] = d
		return answer(r, http.StatusCreated, name, d)
	case http.MethodGet:
		if !known {
			return answer(r, http.StatusNotFound, name, d)
		}
		st, err := m.s.Stats(name)
		if err != nil {
			return nil, err
		}
		d.CountDetails = counts{Active: st.Active + st.Locked, Dead: st.DeadLetters, Scheduled: st.Scheduled}
		return answer(r, http.StatusOK, name, d)
	case http.MethodDelete:
		delete(m.queues, name)
		if err := m.s.DeleteQueue(name); err != nil {
			return nil, err
		}
		return answer(r, http.StatusOK, name, d)
	}
	return nil, errors.New("the management API has no " + r.Method)
}

func answer(r *http.Request, status int, name string, d description) (*http.Response, error) {
	e := atomEntry{Title: name}
	e.Content.Type, e.Content.Queue = "application/xml", d
	body, err := xml.Marshal(e)
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Request: r, Header: http.Header{"Content-Type": {"application/atom+xml"}},
		Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, err
}
