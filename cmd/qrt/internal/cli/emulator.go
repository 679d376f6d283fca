package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// emulatorReport is the first output of emulator servicebus --json. What the
// connection string holds is no secret.
type emulatorReport struct {
	Address          string   `json:"address"`
	ConnectionString string   `json:"connection_string"`
	Queues           []string `json:"queues"`
}

func (a *app) emulatorCommand() *cobra.Command {
	return group("emulator", "Run an emulator of a broker, for development",
		`Emulators speak a broker's own protocol, keep everything in memory, and forget it
when they end. That a program works with one shows that it speaks the protocol,
not how the cloud behaves.`, a.serviceBusCommand())
}

func (a *app) serviceBusCommand() *cobra.Command {
	var o sbemulator.Options
	var queues []string
	var lock string
	var deliveries int
	c := &cobra.Command{
		Use:   "servicebus",
		Short: "Run an emulator of Azure Service Bus",
		Long: `Servicebus runs an emulator of Service Bus queues over AMQP 1.0, without TLS, until
it is interrupted. It prints a connection string for Service Bus clients in any
language. Without --queue, it creates a queue when a client asks for it.`,
		Example: example(`
			qrt emulator servicebus --queue orders --queue events:sessions
			qrt emulator servicebus --listen 127.0.0.1:5672 --json`),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := sbemulator.QueueOptions{MaxDeliveryCount: deliveries}
			if lock != "" {
				d, err := parseDuration(lock)
				if err != nil || d <= 0 {
					return usagef("--lock wants a duration such as 30s")
				}
				q.LockDuration = d
			}
			if len(queues) == 0 {
				o.AutoCreate = &q
			}
			return sbemulator.Run(cmd.Context(), &o, func(s *sbemulator.Server) error {
				if err := makeQueues(s, queues, q); err != nil {
					return err
				}
				a.print(emulatorReport{s.Addr().String(), s.ConnectionString(), s.Queues()}, func(d *display.Screen) {
					d.Printf("%s Service Bus is emulated on %s\n", d.Good("✓"), d.Name(s.Addr().String()))
					d.Printf("  %s\n", s.ConnectionString())
					d.Note("For qrt: put it into a variable and use --broker 'sb:///?connection=VARIABLE'. An interrupt ends it.")
				})
				return nil
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.ListenAddr, "listen", "", "`address` to listen on (default: 127.0.0.1 and a free port)")
	f.BoolVar(&o.AllowRemote, "allow-remote", false, "allow an address that others can reach: there is neither TLS nor access control")
	f.StringArrayVar(&queues, "queue", nil, "`name` of a queue to create, followed by :sessions if it requires sessions; may be repeated")
	f.StringVar(&lock, "lock", "", "`duration` for which a message is locked (default: 1m)")
	f.IntVar(&deliveries, "max-deliveries", 0, "deliveries before a message is dead-lettered (default: 10)")
	return c
}

func makeQueues(s *sbemulator.Server, queues []string, o sbemulator.QueueOptions) error {
	for _, text := range queues {
		name, kind, ok := strings.Cut(text, ":")
		if ok && kind != "sessions" {
			return usagef("--queue wants a name, or a name and :sessions")
		}
		o.RequiresSession = ok
		if err := s.CreateQueue(name, &o); err != nil {
			return fmt.Errorf("queue %q: %w", display.Safe(name), err)
		}
	}
	return nil
}
