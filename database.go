package queue

import "log/slog"

// inDatabase is a broker or a replay store that can say in which database it lies. Equal
// names are one database; an empty one is unknown.
type inDatabase interface{ Database() string }

// trustsOperators is a replay store whose owner has decided that the operators of its
// database may replay messages.
type trustsOperators interface{ TrustsDatabaseOperators() bool }

// checkDatabase refuses a replay store in the database of the broker: its operators could
// remove the memory of what was handled, and deliver it again.
func (c *Client) checkDatabase() error {
	broker, ok := c.broker.(inDatabase)
	store, also := c.options.ReplayStore.(inDatabase)
	if !ok || !also || broker.Database() == "" || broker.Database() != store.Database() {
		return nil
	}
	if t, ok := store.(trustsOperators); !ok || !t.TrustsDatabaseOperators() {
		return invalidOption("the replay store lies in the broker's database, whose operators could remove it and replay messages: use another database, or set the store's option TrustDatabaseOperators if they may")
	}
	c.options.Logger.Warn("Replay store lies in the broker's database: operators of the database can replay messages", slog.Bool("trust_database_operators", true))
	return nil
}
