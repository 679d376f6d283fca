package sqlitequeue

import "fmt"

// The states of a message. Only a ready message can be received from the queue.
// Of a session that no receiver holds, at most one message is ready or locked: the
// first, unless an earlier one waits out a delay.
const (
	stateReady     = 0
	stateScheduled = 1 // waits for its NotBefore, and delays no other message
	stateDelayed   = 2 // abandoned with a delay, and blocks its session
	stateLocked    = 3 // delivered and not settled
	stateQueued    = 4 // waits for its turn in its session
)

// schema is the first version of the file.
//
// Times are Unix nanoseconds. messages has what changes in a message's life, in
// short rows; contents has the rest, which is written once: so a claim does not
// rewrite a body. A dead letter is a row of messages whose queue is negative;
// moving one does not touch its contents either.
//
// What depends on several rows, the turns in a session and the counts, is kept
// by triggers and not by the program: it holds for every hand that changes a
// row, an operator's in the sqlite3 shell too, and an altered session column
// makes a message of another session, not one that is never delivered.
//
// Values of queues.id begin at 2: SQLite plans some statements anew when a
// parameter changes to or from 0 or 1.
var schema = `
CREATE TABLE queues (
	id                    INTEGER PRIMARY KEY CHECK (id > 1),
	name                  TEXT NOT NULL UNIQUE,
	lock                  INTEGER NOT NULL,
	max_deliveries        INTEGER NOT NULL, -- 0: never dead-lettered for them
	retention             INTEGER NOT NULL,
	dead_letter_retention INTEGER NOT NULL, -- 0: for ever
	dedup_window          INTEGER NOT NULL, -- 0: none
	session_only          INTEGER NOT NULL,
	max_messages          INTEGER NOT NULL, -- 0: no limit
	max_body              INTEGER NOT NULL
) STRICT;

CREATE TABLE contents (
	id             INTEGER PRIMARY KEY,
	message_id     TEXT NOT NULL,
	correlation_id TEXT,
	content_type   TEXT,
	attributes     BLOB, -- name, value, each after its length as a varint, ascending by name
	trace          BLOB, -- likewise
	sealed         INTEGER NOT NULL,
	not_before     INTEGER,
	ttl            INTEGER,
	dedup_id       TEXT,
	body           BLOB NOT NULL -- last, so that the rest lies on the first page
) STRICT;

CREATE TABLE messages (
	queue          INTEGER NOT NULL CHECK (queue <> 0), -- negative: its dead letters
	seq            INTEGER NOT NULL, -- the order of storage, and the broker's ID
	state          INTEGER NOT NULL CHECK (state BETWEEN 0 AND 4),
	due            INTEGER, -- when a scheduled, delayed or locked one changes by itself
	token          BLOB,    -- of the delivery that holds the lock
	deliveries     INTEGER NOT NULL,
	max_deliveries INTEGER NOT NULL, -- by the queue's setting of who received it last
	enqueued       INTEGER NOT NULL,
	expires        INTEGER,
	content        INTEGER NOT NULL,
	session        TEXT,
	turn           INTEGER, -- of a ready one in a session: the order of coming free
	reason         TEXT,    -- this and the rest: of dead letters
	description    TEXT,
	source         TEXT,
	died           INTEGER,
	PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX messages_ready      ON messages (queue, seq) WHERE state = 0;
CREATE INDEX messages_due        ON messages (queue, due) WHERE due IS NOT NULL;
CREATE INDEX messages_expiring   ON messages (queue, expires) WHERE expires IS NOT NULL AND state <> 3;
CREATE INDEX messages_session    ON messages (queue, session, state, seq) WHERE session IS NOT NULL;
CREATE INDEX messages_turn       ON messages (queue, turn) WHERE turn IS NOT NULL;

CREATE TABLE counts (
	queue INTEGER NOT NULL, -- 0: n is the last seq given to a message, here because it shares a page
	state INTEGER NOT NULL,
	n     INTEGER NOT NULL,
	PRIMARY KEY (queue, state)
) STRICT, WITHOUT ROWID;
INSERT INTO counts VALUES (0, 0, 1);

CREATE TABLE sessions ( -- those that are held or have a state
	queue   INTEGER NOT NULL,
	session TEXT NOT NULL,
	token   BLOB,    -- of the holder
	until   INTEGER, -- when the lock ends
	state   BLOB,
	touched INTEGER NOT NULL,
	PRIMARY KEY (queue, session)
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_held ON sessions (queue, until) WHERE until IS NOT NULL;
CREATE INDEX sessions_idle ON sessions (queue, touched) WHERE token IS NULL;

CREATE TABLE dedup (
	queue INTEGER NOT NULL,
	id    TEXT NOT NULL,
	seq   INTEGER NOT NULL,
	until INTEGER NOT NULL,
	PRIMARY KEY (queue, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX dedup_until ON dedup (until);

-- Triggers run in no certain order: adding and subtracting commute.
CREATE TRIGGER messages_insert_count AFTER INSERT ON messages BEGIN
	INSERT INTO counts VALUES (NEW.queue, NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER messages_update_count AFTER UPDATE OF queue, state ON messages
WHEN NEW.state <> OLD.state OR NEW.queue <> OLD.queue BEGIN
	INSERT INTO counts VALUES (OLD.queue, OLD.state, -1) ON CONFLICT DO UPDATE SET n = n - 1;
	INSERT INTO counts VALUES (NEW.queue, NEW.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;

CREATE TRIGGER messages_delete_count AFTER DELETE ON messages BEGIN
	INSERT INTO counts VALUES (OLD.queue, OLD.state, -1) ON CONFLICT DO UPDATE SET n = n - 1;
	DELETE FROM contents WHERE id = OLD.content;
END;

CREATE TRIGGER messages_insert_session AFTER INSERT ON messages
WHEN NEW.session IS NOT NULL AND NEW.queue > 0 AND NEW.state IN (0, 4) BEGIN
	UPDATE messages SET state = 4, turn = NULL WHERE queue = NEW.queue AND seq = NEW.seq AND state = 0;
	` + nextInSession("NEW", "NULL") + `;
END;

CREATE TRIGGER messages_delete_session AFTER DELETE ON messages
WHEN OLD.session IS NOT NULL AND OLD.queue > 0 BEGIN
	` + nextInSession("OLD", "OLD.turn") + `;
END;

CREATE TRIGGER messages_move_session AFTER UPDATE OF queue, session ON messages
WHEN NEW.queue <> OLD.queue OR NEW.session IS NOT OLD.session BEGIN
	UPDATE messages SET state = 4, turn = NULL
	WHERE queue = NEW.queue AND seq = NEW.seq AND queue > 0 AND session IS NOT NULL AND state = 0;
	UPDATE messages SET state = 0, turn = NULL
	WHERE queue = NEW.queue AND seq = NEW.seq AND (queue < 0 OR session IS NULL) AND state IN (0, 4);
	` + nextInSession("OLD", "OLD.turn") + `;
	` + nextInSession("NEW", "NULL") + `;
END;

CREATE TRIGGER messages_release_session AFTER UPDATE OF state ON messages
WHEN NEW.state = 4 AND NEW.session IS NOT NULL AND NEW.queue > 0 BEGIN
	-- One that was scheduled takes its place before a later one, and its turn.
	UPDATE messages SET state = 0, turn = (SELECT turn FROM messages INDEXED BY messages_session
		WHERE queue = NEW.queue AND session = NEW.session AND state = 0)
	WHERE queue = NEW.queue AND seq = NEW.seq AND EXISTS (SELECT 1 FROM messages INDEXED BY messages_session
		WHERE queue = NEW.queue AND session = NEW.session AND state = 0 AND seq > NEW.seq);
	UPDATE messages SET state = 4, turn = NULL
	WHERE queue = NEW.queue AND seq IN (SELECT seq FROM messages INDEXED BY messages_session
		WHERE queue = NEW.queue AND session = NEW.session AND state = 0 AND seq > NEW.seq);
	` + nextInSession("NEW", "NULL") + `;
END;

CREATE TRIGGER sessions_delete AFTER DELETE ON sessions WHEN OLD.token IS NOT NULL BEGIN
	UPDATE messages SET state = 4, token = NULL, due = NULL
	WHERE queue = OLD.queue AND seq IN (SELECT seq FROM messages INDEXED BY messages_session
		WHERE queue = OLD.queue AND session = OLD.session AND state = 3);
	` + nextInSession("OLD", "NULL") + `;
END;

CREATE TRIGGER sessions_release AFTER UPDATE OF token ON sessions
WHEN NEW.token IS NULL AND OLD.token IS NOT NULL BEGIN
	UPDATE messages SET state = 4, token = NULL, due = NULL
	WHERE queue = OLD.queue AND seq IN (SELECT seq FROM messages INDEXED BY messages_session
		WHERE queue = OLD.queue AND session = OLD.session AND state = 3);
	` + nextInSession("OLD", "NULL") + `;
END;
`

// nextInSession returns the statement that makes the first queued message of a row's session
// ready, unless another message has the turn or a receiver holds the session. row is OLD or
// NEW. turn is the turn that the message gets; if it is NULL, the message gets the next one.
// What is removed leaves its turn: if it was ready, the session has been free all along.
func nextInSession(row, turn string) string {
	return fmt.Sprintf(`UPDATE messages
	SET state = 0, turn = coalesce(%[2]s,
		(SELECT max(turn) + 1 FROM messages INDEXED BY messages_turn WHERE queue = %[1]s.queue AND turn IS NOT NULL), 1)
	WHERE queue = %[1]s.queue AND queue > 0 AND seq = (SELECT min(seq)
		FROM messages INDEXED BY messages_session WHERE queue = %[1]s.queue AND session = %[1]s.session AND state = 4)
	AND NOT EXISTS (SELECT 1
		FROM messages INDEXED BY messages_session WHERE queue = %[1]s.queue AND session = %[1]s.session AND state IN (0, 3))
	AND NOT EXISTS (SELECT 1
		FROM messages AS d INDEXED BY messages_session WHERE d.queue = %[1]s.queue AND d.session = %[1]s.session AND d.state = 2 AND d.seq < messages.seq)
	AND NOT EXISTS (SELECT 1 FROM sessions WHERE queue = %[1]s.queue AND session = %[1]s.session AND token IS NOT NULL)`, row, turn)
}
