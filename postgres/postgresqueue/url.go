package postgresqueue

import (
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/postgres/internal/database"
)

// Schemes are the schemes of the URLs that [Open] takes.
func Schemes() []string { return []string{"postgres", "postgresql"} }

// parseURL reads a URL into o, and returns the configuration of the pool. Errors
// quote nothing of the URL but names of parameters that are known.
func parseURL(rawURL string, o *Options) (*pgxpool.Config, error) {
	c, err := database.ParseURL(rawURL, func(p *database.Parameters) {
		p.Text("schema", &o.Schema)
		p.Flag("pooled", &o.Pooled)
		p.Flag("must_exist", &o.MustExist)
		p.Duration("poll", &o.Poll)
		p.Duration("timeout", &o.Timeout)
		p.Number("max_conns", &o.MaxConns)
		p.Duration("lock", &o.Default.Lock)
		p.Duration("retention", &o.Default.Retention)
		p.Duration("dead_letter_retention", &o.Default.DeadLetterRetention)
		p.Duration("dedup_window", &o.Default.DedupWindow)
		p.Signed("max_deliveries", &o.Default.MaxDeliveries)
	})
	if err != nil {
		return nil, fmt.Errorf("postgresqueue: %w", err)
	}
	return c, nil
}
