package sqlitereplay

import "github.com/queue-runtime/queue/sqlite/internal/sqlitefile"

// migrations lead from each version of the schema to the next. Released ones are
// never changed.
var migrations = []string{schema}

// schema is the first version of the file. Times are Unix nanoseconds.
const schema = `
CREATE TABLE nonces (
	key            BLOB PRIMARY KEY, -- SHA-256 over the length-prefixed group and the ID
	owner          BLOB,             -- token of the claim
	broker         BLOB,             -- digest of the BrokerID of the last claim
	first_seen     INTEGER NOT NULL, -- by the receiver's clock
	lease          INTEGER NOT NULL, -- end of the claim; 0: released, -1: consumed
	claimed_until  INTEGER NOT NULL,
	consumed_until INTEGER NOT NULL,
	expiry         INTEGER NOT NULL  -- when the record may go
) STRICT, WITHOUT ROWID;

CREATE INDEX nonces_expiry ON nonces (expiry);

CREATE TABLE counts (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL) STRICT;
INSERT INTO counts VALUES (1, 0);

CREATE TRIGGER nonces_insert AFTER INSERT ON nonces BEGIN UPDATE counts SET n = n + 1 WHERE id = 1; END;
CREATE TRIGGER nonces_delete AFTER DELETE ON nonces BEGIN UPDATE counts SET n = n - 1 WHERE id = 1; END;
`

const (
	selectNonce = `SELECT owner, broker, first_seen, lease, claimed_until, consumed_until FROM nonces WHERE key = ?1 AND expiry > ?2`

	// A record past its time is as good as absent.
	upsert = `INSERT INTO nonces (key, owner, broker, first_seen, lease, claimed_until, consumed_until, expiry)
		VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
		ON CONFLICT DO UPDATE SET owner = ?2, broker = ?3, first_seen = ?4, lease = ?5,
			claimed_until = ?6, consumed_until = ?7, expiry = ?8`

	update = `UPDATE nonces SET owner = ?2, lease = ?3, expiry = ?4 WHERE key = ?1`

	prune = `DELETE FROM nonces WHERE key IN
		(SELECT key FROM nonces INDEXED BY nonces_expiry WHERE expiry <= ?1 ORDER BY expiry LIMIT ?2)`

	countNonces = `SELECT n FROM counts WHERE id = 1`
)

// The values of lease that are no time.
const (
	released int64 = 0
	consumed int64 = -1
)

// nonce is what the file knows of one envelope.
type nonce struct {
	owner, broker               []byte
	firstSeen, lease            int64
	claimedUntil, consumedUntil int64
}

// expiry is until when the record is kept.
func (n *nonce) expiry() int64 {
	if n.lease == consumed {
		return n.consumedUntil
	}
	return max(n.claimedUntil, n.lease)
}

// find returns the record of that key unless its time is over.
func find(c *sqlitefile.Conn, key []byte, now int64) (n nonce, found bool, err error) {
	found, err = c.One(selectNonce, func(r sqlitefile.Row) error {
		n = nonce{r.Bytes(0), r.Bytes(1), r.Int(2), r.Int(3), r.Int(4), r.Int(5)}
		return nil
	}, key, now)
	return n, found, err
}

func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}
