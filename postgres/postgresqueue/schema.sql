-- The first version of the schema. {schema} stands for its quoted name.
--
-- message has what changes in a message's life, in short rows; content has the
-- rest, which is written once. A dead letter is a row of message whose queue is
-- negative. Every time is the server's.
--
-- States of a message:
--   0 ready      the only one that is received from the queue
--   1 scheduled  waits for its not_before, and holds up no other message
--   2 delayed    given back with a delay, and holds up its session
--   3 locked     delivered and not settled
--   4 queued     waits for its turn in its session
-- Of a session without a holder at most one message is ready or locked: the
-- first, unless an earlier one is delayed.
--
-- Locks on rows, so that no two calls wait for each other: what changes messages
-- of sessions locks the rows of these sessions first, ascending. claim and sweep
-- find messages before sessions, and skip every row that they cannot lock at
-- once. One sweep runs at a time in a queue. Every function first locks the table
-- message, so that none of its statements has a snapshot from before a call of maintain that
-- moved rows.
--
-- A content that is not as large as its message says, or larger than any that is sent
-- (64 MiB, and 1 MiB for the rest), was altered: it is not read, and the message comes
-- without one.
--
-- Locks do not wait for the disk (synchronous_commit = off, for that transaction): a
-- crash of the server ends those of its last moments, and then a message is delivered
-- again with a count that misses one. Sends and settlements wait.

-- Bodies name the tables without the schema, which is in their search_path when they run.
SET LOCAL check_function_bodies = off;

CREATE TABLE {schema}.meta (
	version integer NOT NULL
);
INSERT INTO {schema}.meta VALUES (1);

CREATE SEQUENCE {schema}.place;
CREATE SEQUENCE {schema}.turn;

CREATE TABLE {schema}.queue (
	id                    bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name                  text COLLATE "C" NOT NULL UNIQUE,
	lock                  bigint NOT NULL,  -- this and the other durations in microseconds
	max_deliveries        integer NOT NULL, -- 0: never dead-lettered for them
	retention             bigint NOT NULL,
	dead_letter_retention bigint NOT NULL,  -- 0: for ever
	dedup_window          bigint NOT NULL,  -- 0: none
	session_only          boolean NOT NULL,
	max_messages          bigint NOT NULL,  -- 0: no limit
	max_body              integer NOT NULL
);

-- Numbers begin with the time: in a schema that was dropped and made anew no queue has the
-- number of another one, which processes that run still have.
SELECT pg_catalog.setval(pg_catalog.pg_get_serial_sequence('{schema}.queue', 'id'), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);

-- A row to lock for the one sweep that runs in a queue.
CREATE TABLE {schema}.sweeper (
	queue bigint PRIMARY KEY
);

CREATE TABLE {schema}.content (
	id          bigint PRIMARY KEY,
	message_id  text COLLATE "C" NOT NULL,
	correlation text COLLATE "C" NOT NULL,
	type        text COLLATE "C" NOT NULL,
	attributes  bytea NOT NULL, -- see sqldriver.EncodeAttributes
	trace       bytea NOT NULL, -- likewise
	sealed      boolean NOT NULL,
	not_before  timestamptz,
	ttl         bigint NOT NULL, -- nanoseconds
	dedup       text COLLATE "C" NOT NULL,
	body        bytea NOT NULL
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE {schema}.content ALTER COLUMN body SET STORAGE EXTERNAL; -- what is sealed does not compress

CREATE TABLE {schema}.message (
	queue          bigint NOT NULL, -- negative: its dead letters
	seq            bigint PRIMARY KEY, -- the order of storage, and the broker's ID
	content        bigint NOT NULL,
	state          smallint NOT NULL CHECK (state BETWEEN 0 AND 4),
	due            timestamptz NOT NULL, -- when time alone changes the row; infinity: never
	expires        timestamptz NOT NULL,
	enqueued       timestamptz NOT NULL,
	deliveries     integer NOT NULL,
	max_deliveries integer NOT NULL, -- by the queue's setting of who received it last
	size           integer NOT NULL, -- bytes of the body
	token          bytea,            -- of the delivery that holds the lock
	session        text COLLATE "C",
	turn           bigint,           -- of a ready one in a session: the order of coming free
	reason         text,             -- this and the rest: of dead letters
	description    text,
	died           timestamptz
) WITH (autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- Each index has a first column of its own, so that a query has the choice of one
-- only. Plans are made once, often while the tables are empty, and with no
-- statistics to tell the indexes apart. The order of places is that of seq + 0, which
-- the primary key has not got: in its order a query would look at the messages of all
-- queues and states.
CREATE INDEX message_state ON {schema}.message ((queue + 1), state, (seq + 0));
CREATE INDEX message_due ON {schema}.message ((queue + 2), due);
CREATE INDEX message_session ON {schema}.message ((queue + 3), session, state, (seq + 0)) WHERE session IS NOT NULL;
CREATE INDEX message_turn ON {schema}.message ((queue + 4), turn) WHERE turn IS NOT NULL;

-- Sessions that have messages, a holder or a state.
CREATE TABLE {schema}.session (
	queue   bigint NOT NULL,
	id      text COLLATE "C" NOT NULL,
	token   bytea,            -- of the holder
	until   timestamptz,      -- when the holder's lock ends
	touched timestamptz NOT NULL,
	state   bytea,
	PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX session_until ON {schema}.session ((queue + 1), until) WHERE until IS NOT NULL;
CREATE INDEX session_touched ON {schema}.session ((queue + 2), touched) WHERE state IS NOT NULL;

CREATE TABLE {schema}.dedup (
	queue bigint NOT NULL,
	id    text COLLATE "C" NOT NULL,
	seq   bigint NOT NULL,
	until timestamptz NOT NULL,
	PRIMARY KEY (queue, id)
);
CREATE INDEX dedup_until ON {schema}.dedup ((queue + 1), until);

-- Counts are the sums of these rows. They are only inserted, so that no two calls
-- wait for one counter; maintain adds them up.
CREATE TABLE {schema}.tally (
	queue  bigint NOT NULL,
	ready  bigint NOT NULL, -- ready and queued
	later  bigint NOT NULL, -- scheduled and delayed
	locked bigint NOT NULL
) WITH (autovacuum_enabled = false);

-- Where maintain keeps rows while it empties a table. Empty at all other times.
CREATE UNLOGGED TABLE {schema}.message_spare (LIKE {schema}.message) WITH (autovacuum_enabled = false);
CREATE UNLOGGED TABLE {schema}.content_spare (LIKE {schema}.content) WITH (autovacuum_enabled = false);
ALTER TABLE {schema}.content_spare ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNLOGGED TABLE {schema}.session_spare (LIKE {schema}.session) WITH (autovacuum_enabled = false);

CREATE TYPE {schema}.delivery AS (
	seq bigint, deliveries integer, enqueued timestamptz, session text, reason text, description text, died timestamptz,
	message_id text, correlation text, type text, attributes bytea, trace bytea, sealed boolean, not_before timestamptz,
	ttl bigint, dedup text, body bytea
);

-- span is so many microseconds.
CREATE FUNCTION {schema}.span(us bigint) RETURNS interval LANGUAGE sql IMMUTABLE AS $fn$
	SELECT us * interval '1 microsecond'
$fn$;

-- count notes that n messages came into a state, or left it.
CREATE FUNCTION {schema}.count_state(q bigint, s smallint, n bigint) RETURNS void LANGUAGE plpgsql AS $fn$
BEGIN
	INSERT INTO tally VALUES (q, CASE WHEN s IN (0, 4) THEN n ELSE 0 END, CASE WHEN s IN (1, 2) THEN n ELSE 0 END,
		CASE WHEN s = 3 THEN n ELSE 0 END);
END
$fn$;

-- bury makes a message a dead letter. It is one change of one row: no crash can
-- leave two or none.
CREATE FUNCTION {schema}.bury(m {schema}.message, why text, words text, t timestamptz) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
	p bigint := nextval('place');
	e timestamptz := 'infinity';
	keep bigint;
BEGIN
	SELECT dead_letter_retention INTO keep FROM queue WHERE id = m.queue;
	IF keep > 0 THEN
		e := t + span(keep);
	END IF;
	UPDATE message SET queue = -m.queue, seq = p, state = 0, due = e, expires = e, token = NULL, turn = NULL,
		deliveries = 0, max_deliveries = 0, reason = why, description = words, died = t
		WHERE queue = m.queue AND seq = m.seq;
	PERFORM count_state(m.queue, m.state, -1);
	PERFORM count_state(-m.queue, 0::smallint, 1);
END
$fn$;

-- give_back makes a message available that was locked, or whose time has come: at
-- once, after a delay in microseconds, or as a dead letter if it has had its
-- deliveries or its time. The caller has locked its row, and its session's.
CREATE FUNCTION {schema}.give_back(m {schema}.message, delay bigint, t timestamptz) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
	s smallint := 0;
	d timestamptz := m.expires;
BEGIN
	IF m.queue > 0 AND m.state = 3 AND m.max_deliveries > 0 AND m.deliveries >= m.max_deliveries THEN
		PERFORM bury(m, 'max_deliveries', 'the message reached the queue''s limit of deliveries', t);
		RETURN;
	END IF;
	IF m.expires <= t AND m.queue > 0 THEN
		PERFORM bury(m, 'expired', 'the message was not settled within its time to live', t);
		RETURN;
	END IF;
	IF m.expires <= t THEN
		DELETE FROM message WHERE queue = m.queue AND seq = m.seq;
		DELETE FROM content WHERE id = m.content;
		PERFORM count_state(m.queue, m.state, -1);
		RETURN;
	END IF;
	IF delay > 0 THEN
		s := 2;
		d := least(t + span(delay), m.expires);
	ELSIF m.session IS NOT NULL AND m.queue > 0 THEN
		s := 4;
	END IF;
	UPDATE message SET state = s, due = d, token = NULL, turn = NULL, deliveries = m.deliveries WHERE queue = m.queue AND seq = m.seq;
	PERFORM count_state(m.queue, m.state, -1);
	PERFORM count_state(m.queue, s, 1);
END
$fn$;

-- promote makes the next message of a session ready if it is its turn, and removes
-- the row of a session that has nothing. The caller has locked that row.
CREATE FUNCTION {schema}.promote(q bigint, s text) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
	r record;
	head bigint;
	its bigint;
	next bigint;
	waits bigint;
BEGIN
	SELECT token, state INTO r FROM session WHERE queue = q AND id = s;
	IF NOT FOUND OR r.token IS NOT NULL THEN
		RETURN;
	END IF;
	PERFORM 1 FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 3 ORDER BY seq + 0 LIMIT 1;
	IF FOUND THEN
		RETURN;
	END IF;
	SELECT seq, turn INTO head, its FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 0 ORDER BY seq + 0 LIMIT 1;
	SELECT seq INTO next FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 4 ORDER BY seq + 0 LIMIT 1;
	SELECT seq INTO waits FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 2 ORDER BY seq + 0 LIMIT 1;
	IF next IS NOT NULL AND next < coalesce(head, next + 1) AND next < coalesce(waits, next + 1) THEN
		IF head IS NOT NULL THEN
			UPDATE message SET state = 4, turn = NULL WHERE queue = q AND seq = head; -- a scheduled one comes before it
		END IF;
		UPDATE message SET state = 0, turn = coalesce(its, nextval('turn')) WHERE queue = q AND seq = next;
	ELSIF head IS NULL AND next IS NULL AND waits IS NULL AND r.state IS NULL
		AND NOT EXISTS (SELECT 1 FROM message WHERE queue + 3 = q + 3 AND session = s) THEN
		DELETE FROM session WHERE queue = q AND id = s;
	END IF;
END
$fn$;

-- end_session takes a session from its holder, with all that was received in it.
CREATE FUNCTION {schema}.end_session(q bigint, s text, t timestamptz) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
	m message;
BEGIN
	FOR m IN SELECT * FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 3 ORDER BY seq + 0 FOR UPDATE LOOP
		PERFORM give_back(m, 0, t);
	END LOOP;
	UPDATE session SET token = NULL, until = NULL, touched = t WHERE queue = q AND id = s;
	PERFORM promote(q, s);
END
$fn$;

-- sweep does what is due in a queue: locks that are over, messages whose time has
-- come or is over. Every call that looks for a message begins with it, so that no
-- process has to run for another's locks to end.
CREATE FUNCTION {schema}.sweep(q bigint, t timestamptz) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
	m message;
	s text;
	blocked text[] := '{}'; -- sessions
	seen integer;
	swept integer := 0;
BEGIN
	PERFORM 1 FROM message WHERE queue + 2 = q + 2 AND due <= t ORDER BY due LIMIT 1;
	IF NOT FOUND THEN
		PERFORM 1 FROM session WHERE queue + 1 = q + 1 AND until <= t ORDER BY until LIMIT 1;
		IF NOT FOUND THEN
			RETURN;
		END IF;
	END IF;
	PERFORM 1 FROM sweeper WHERE queue = abs(q) FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	FOR s IN SELECT id FROM session WHERE queue + 1 = q + 1 AND until <= t ORDER BY until LIMIT 256 FOR UPDATE SKIP LOCKED LOOP
		PERFORM end_session(q, s, t);
	END LOOP;
	LOOP
		seen := 0;
		FOR m IN SELECT * FROM message WHERE queue + 2 = q + 2 AND due <= t AND coalesce(session <> ALL (blocked), true)
			ORDER BY due LIMIT 256 FOR UPDATE SKIP LOCKED LOOP
			seen := seen + 1;
			IF m.session IS NULL OR q < 0 THEN
				PERFORM give_back(m, 0, t);
				swept := swept + 1;
				CONTINUE;
			END IF;
			CONTINUE WHEN m.session = ANY (blocked);
			PERFORM 1 FROM session WHERE queue = q AND id = m.session FOR UPDATE SKIP LOCKED;
			IF NOT FOUND THEN
				blocked := blocked || m.session;
				CONTINUE;
			END IF;
			swept := swept + 1;
			-- One of the same session before it may have changed it.
			SELECT * INTO m FROM message WHERE queue = q AND seq = m.seq AND due <= t;
			IF FOUND THEN
				PERFORM give_back(m, 0, t);
				PERFORM promote(q, m.session);
			END IF;
		END LOOP;
		-- Sessions that another transaction has locked must not stand before the others.
		EXIT WHEN seen < 256 OR swept >= 256 OR cardinality(blocked) >= 256;
	END LOOP;
END
$fn$;

-- lock_sessions locks rows of sessions in the order of ids, which is ascending, and makes those that are not there.
CREATE FUNCTION {schema}.lock_sessions(q bigint, ids text[], t timestamptz) RETURNS void LANGUAGE plpgsql AS $fn$
DECLARE
	n bigint;
BEGIN
	LOOP
		INSERT INTO session (queue, id, touched) SELECT q, o, t FROM unnest(ids) o ON CONFLICT DO NOTHING;
		SELECT count(*) INTO n FROM unnest(ids) o, LATERAL (SELECT 1 FROM session WHERE queue = q AND id = o FOR UPDATE) l;
		EXIT WHEN n = cardinality(ids); -- one that its last message left in between is made anew
	END LOOP;
END
$fn$;

CREATE FUNCTION {schema}.schema_version() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
BEGIN
	RETURN (SELECT version FROM meta);
END
$fn$;

CREATE FUNCTION {schema}.find_queue(wanted text) RETURNS SETOF {schema}.queue LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
BEGIN
	RETURN QUERY SELECT * FROM queue WHERE name = wanted;
END
$fn$;

CREATE FUNCTION {schema}.list_queues() RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
BEGIN
	RETURN QUERY SELECT name FROM queue ORDER BY name;
END
$fn$;

-- declare_queue makes a queue, or gives one that exists new settings if change is true.
CREATE FUNCTION {schema}.declare_queue(wanted text, change boolean, lock bigint, max_deliveries integer, retention bigint,
	dead_letter_retention bigint, dedup_window bigint, session_only boolean, max_messages bigint, max_body integer)
	RETURNS void LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
BEGIN
	INSERT INTO queue AS k (name, lock, max_deliveries, retention, dead_letter_retention, dedup_window, session_only, max_messages, max_body)
		VALUES (wanted, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (name) DO NOTHING;
	IF NOT FOUND AND change THEN
		UPDATE queue k SET lock = $3, max_deliveries = $4, retention = $5, dead_letter_retention = $6, dedup_window = $7,
			session_only = $8, max_messages = $9, max_body = $10 WHERE k.name = wanted;
	END IF;
	INSERT INTO sweeper SELECT id FROM queue WHERE name = wanted ON CONFLICT DO NOTHING;
END
$fn$;

-- send stores messages and returns the place of each: that of the first for a
-- repeat, 0 if the queue is full. A repeat stands behind its first in the lists.
CREATE FUNCTION {schema}.send(q bigint, ids text[], sessions text[], correlations text[], types text[], attributes bytea[],
	traces bytea[], sealed boolean[], not_before timestamptz[], ttl bigint[], dedups text[], bodies bytea[])
	RETURNS bigint[] LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	k queue;
	t timestamptz := clock_timestamp();
	n integer := cardinality(ids);
	owners text[];
	places bigint[];
	fresh boolean[];
	refused bigint[] := '{}';
	room bigint;
	i integer;
	first bigint;
	s text;
BEGIN
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	SELECT * INTO k FROM queue WHERE id = q;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'no such queue' USING ERRCODE = 'QR002';
	END IF;
	IF k.session_only AND '' = ANY (sessions) OR EXISTS (SELECT 1 FROM unnest(bodies) b WHERE length(b) > k.max_body) THEN
		RAISE EXCEPTION 'not a message for this queue' USING ERRCODE = 'QR003';
	END IF;
	SELECT array_agg(DISTINCT x COLLATE "C") INTO owners FROM unnest(sessions) x WHERE x <> '';
	IF owners IS NOT NULL THEN
		PERFORM lock_sessions(q, owners, t);
	END IF;
	t := clock_timestamp();
	SELECT array_agg(nextval('place') ORDER BY g), array_agg(true) INTO places, fresh FROM generate_series(1, n) g;
	IF k.dedup_window > 0 THEN
		FOR i IN SELECT u.i FROM unnest(dedups) WITH ORDINALITY u(d, i) ORDER BY u.d COLLATE "C", u.i LOOP
			INSERT INTO dedup VALUES (q, dedups[i], places[i], t + span(k.dedup_window))
				ON CONFLICT (queue, id) DO UPDATE SET seq = excluded.seq, until = excluded.until WHERE dedup.until <= t;
			IF NOT FOUND THEN
				SELECT seq INTO first FROM dedup WHERE queue = q AND id = dedups[i];
				places[i] := first;
				fresh[i] := false;
			END IF;
		END LOOP;
		DELETE FROM dedup d USING (SELECT id FROM dedup WHERE queue + 1 = q + 1 AND until <= t ORDER BY until LIMIT 2 * n + 8 FOR UPDATE SKIP LOCKED) old
			WHERE d.queue = q AND d.id = old.id;
	END IF;
	IF k.max_messages > 0 THEN
		SELECT k.max_messages - coalesce(sum(ready + later + locked), 0) INTO room FROM tally WHERE queue IN (q, -q);
		FOR i IN 1..n LOOP
			IF fresh[i] AND room <= 0 THEN
				DELETE FROM dedup WHERE queue = q AND id = dedups[i] AND seq = places[i];
				refused := refused || places[i];
				places[i] := 0;
				fresh[i] := false;
			ELSIF fresh[i] THEN
				room := room - 1;
			ELSIF places[i] = ANY (refused) THEN
				places[i] := 0; -- a repeat of what is not stored
			END IF;
		END LOOP;
	END IF;
	WITH u AS (
		SELECT u.*, coalesce(u.b > t, false) AS later, CASE WHEN u.b > t THEN u.b ELSE t END
			+ span(CASE WHEN u.l > 0 THEN least((u.l + 999) / 1000, k.retention) ELSE k.retention END) AS ends
		FROM unnest(places, fresh, ids, sessions, correlations, types, attributes, traces, sealed, not_before, ttl, dedups, bodies)
			u(p, f, id, owner, c, ty, a, tr, se, b, l, d, body)
		WHERE u.f
	), c AS (
		INSERT INTO content SELECT p, id, c, ty, a, tr, se, b, l, d, body FROM u
	), m AS (
		INSERT INTO message (queue, seq, content, state, due, expires, enqueued, deliveries, max_deliveries, size, session)
		SELECT q, p, p, CASE WHEN later THEN 1 WHEN owner <> '' THEN 4 ELSE 0 END, CASE WHEN later THEN b ELSE ends END, ends, t, 0, 0,
			length(body), nullif(owner, '') FROM u
	)
	INSERT INTO tally SELECT q, count(*) FILTER (WHERE NOT later), count(*) FILTER (WHERE later), 0 FROM u HAVING count(*) > 0;
	IF owners IS NOT NULL THEN
		FOREACH s IN ARRAY owners LOOP
			PERFORM promote(q, s);
		END LOOP;
	END IF;
	RETURN places;
END
$fn$;

-- claim locks messages that are ready, at most so many and so many bytes of
-- bodies; the first whatever its size.
CREATE FUNCTION {schema}.claim(q bigint, tok bytea, lock bigint, deliveries_limit integer, messages integer, bytes bigint)
	RETURNS SETOF {schema}.delivery LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz;
	picked bigint[];
	owners text[];
	free text[];
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	t := clock_timestamp();
	IF q < 0 THEN
		PERFORM sweep(-q, t);
	END IF;
	PERFORM sweep(q, t);
	SELECT array_agg(l.seq), array_agg(l.session) FILTER (WHERE l.session IS NOT NULL) INTO picked, owners FROM (
		SELECT r.seq, r.session, sum(r.size) OVER (ORDER BY r.place) - r.size AS before FROM (
			SELECT seq, seq + 0 AS place, session, size FROM message
			WHERE queue + 1 = q + 1 AND state = 0 AND due > t ORDER BY place LIMIT messages FOR UPDATE SKIP LOCKED
		) r
	) l WHERE l.before < bytes;
	IF owners IS NOT NULL AND q > 0 THEN
		INSERT INTO session (queue, id, touched) SELECT q, o, t FROM unnest(owners) o
			WHERE NOT EXISTS (SELECT 1 FROM session WHERE queue = q AND id = o) ON CONFLICT DO NOTHING;
		SELECT array_agg(f.id) INTO free FROM unnest(owners) o, LATERAL (
			SELECT id FROM session WHERE queue = q AND id = o AND token IS NULL FOR UPDATE SKIP LOCKED
		) f;
		SELECT array_agg(seq) INTO picked FROM message
			WHERE queue = q AND seq = ANY (picked) AND (session IS NULL OR session = ANY (free));
	END IF;
	IF picked IS NULL THEN
		RETURN;
	END IF;
	INSERT INTO tally VALUES (q, -cardinality(picked), 0, cardinality(picked));
	RETURN QUERY WITH m AS (
		UPDATE message SET state = 3, due = t + span(lock), token = tok, turn = NULL, deliveries = least(deliveries, 2147483646) + 1, max_deliveries = deliveries_limit
		WHERE queue = q AND seq = ANY (picked) RETURNING *
	) SELECT m.seq, m.deliveries, m.enqueued, m.session, m.reason, m.description, m.died, c.message_id, c.correlation, c.type,
		c.attributes, c.trace, c.sealed, c.not_before, c.ttl, c.dedup, c.body
	FROM m LEFT JOIN content c ON c.id = m.content AND octet_length(c.body) = m.size AND m.size <= 67108864
		AND octet_length(c.message_id) + octet_length(c.correlation) + octet_length(c.type) + octet_length(c.attributes)
			+ octet_length(c.trace) + octet_length(c.dedup) <= 1048576;
END
$fn$;

-- settle settles deliveries and says of each whether its lock still was there. kinds
-- are those of driver.SettleKind, owners the sessions of the messages. In a session
-- holder names it, and its token is that of the deliveries.
CREATE FUNCTION {schema}.settle(q bigint, holder text, seqs bigint[], tokens bytea[], kinds smallint[], delays bigint[],
	reasons text[], descriptions text[], owners text[]) RETURNS boolean[] LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz;
	done boolean[] := array_fill(false, ARRAY[cardinality(seqs)]);
	gone bigint[];
	contents bigint[];
	hits integer[];
	m message;
	i integer;
	s text;
BEGIN
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	IF holder <> '' THEN
		owners := ARRAY[holder];
	END IF;
	IF cardinality(owners) > 0 AND q > 0 THEN
		PERFORM 1 FROM unnest(owners) o, LATERAL (SELECT 1 FROM session WHERE queue = q AND id = o FOR UPDATE) l;
	END IF;
	t := clock_timestamp();
	IF holder <> '' THEN
		PERFORM 1 FROM session WHERE queue = q AND id = holder AND token = tokens[1] AND until > t;
		IF NOT FOUND THEN
			RETURN done;
		END IF;
	END IF;
	-- All rows are locked here, in the order of the sequences, which is that of renew, too.
	SELECT array_agg(l.seq) FILTER (WHERE u.kind = 1), array_agg(l.content) FILTER (WHERE u.kind = 1), array_agg(u.i) FILTER (WHERE u.kind = 1)
		INTO gone, contents, hits
		FROM unnest(seqs, tokens, kinds) WITH ORDINALITY u(seq, token, kind, i), LATERAL (
			SELECT x.seq, x.content FROM message x WHERE x.queue = q AND x.seq = u.seq AND x.state = 3 AND x.token = u.token AND x.due > t
			FOR UPDATE
		) l;
	IF gone IS NOT NULL THEN
		DELETE FROM message WHERE queue = q AND seq = ANY (gone);
		DELETE FROM content WHERE id = ANY (contents);
		INSERT INTO tally VALUES (q, 0, 0, -cardinality(gone));
		FOREACH i IN ARRAY hits LOOP
			done[i] := true;
		END LOOP;
	END IF;
	FOR i IN 1..cardinality(seqs) LOOP
		CONTINUE WHEN kinds[i] = 1;
		SELECT * INTO m FROM message WHERE queue = q AND seq = seqs[i] AND state = 3 AND token = tokens[i] AND due > t FOR UPDATE;
		CONTINUE WHEN NOT FOUND;
		done[i] := true;
		IF kinds[i] = 3 THEN
			PERFORM bury(m, reasons[i], descriptions[i], t);
			CONTINUE;
		END IF;
		IF kinds[i] = 4 THEN
			m.deliveries := m.deliveries - 1;
		END IF;
		PERFORM give_back(m, delays[i], t);
	END LOOP;
	IF q > 0 THEN
		FOREACH s IN ARRAY owners LOOP
			PERFORM promote(q, s);
		END LOOP;
	END IF;
	RETURN done;
END
$fn$;

-- renew extends locks and says of each whether it still was there.
CREATE FUNCTION {schema}.renew(q bigint, seqs bigint[], tokens bytea[], lock bigint) RETURNS boolean[]
	LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz;
	done boolean[] := array_fill(false, ARRAY[cardinality(seqs)]);
	kept bigint[];
	hits integer[];
	i integer;
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	t := clock_timestamp();
	SELECT array_agg(l.seq), array_agg(u.i) INTO kept, hits FROM unnest(seqs, tokens) WITH ORDINALITY u(seq, token, i), LATERAL (
		SELECT x.seq FROM message x WHERE x.queue = q AND x.seq = u.seq AND x.state = 3 AND x.token = u.token AND x.due > t
			AND x.due < 'infinity' FOR UPDATE
	) l;
	UPDATE message SET due = t + span(lock) WHERE queue = q AND seq = ANY (kept);
	IF hits IS NOT NULL THEN
		FOREACH i IN ARRAY hits LOOP
			done[i] := true;
		END LOOP;
	END IF;
	RETURN done;
END
$fn$;

-- accept_session takes a session, the next one for '', and returns a row with its name
-- alone. It returns none if no session is free, or another holds the one that is wanted.
-- For '' the first message that is ready is a session of its own if it has none: it is
-- locked and returned as claim does. So neither such messages nor sessions keep the others
-- waiting for long.
CREATE FUNCTION {schema}.accept_session(q bigint, wanted text, tok bytea, lock bigint, deliveries_limit integer)
	RETURNS SETOF {schema}.delivery LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz := clock_timestamp();
	s text := wanted;
	candidate text;
	picked bigint;
	named delivery;
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	IF s <> '' THEN
		PERFORM lock_sessions(q, ARRAY[s], t); -- before sweep, which must not be waited in
	END IF;
	t := clock_timestamp();
	PERFORM sweep(q, t);
	IF s <> '' THEN
		PERFORM lock_sessions(q, ARRAY[s], t); -- again: sweep may have removed it
		IF EXISTS (SELECT 1 FROM session WHERE queue = q AND id = s AND token IS NOT NULL)
			OR EXISTS (SELECT 1 FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 3) THEN
			RETURN;
		END IF;
	ELSE
		PERFORM 1 FROM (
			SELECT session FROM message WHERE queue + 1 = q + 1 AND state = 0 AND due > t ORDER BY seq + 0 LIMIT 1
		) r WHERE r.session IS NULL;
		IF FOUND THEN
			SELECT seq INTO picked FROM message
				WHERE queue + 1 = q + 1 AND state = 0 AND due > t AND session IS NULL ORDER BY seq + 0 LIMIT 1 FOR UPDATE SKIP LOCKED;
		END IF;
		IF picked IS NOT NULL THEN
			INSERT INTO tally VALUES (q, -1, 0, 1);
			RETURN QUERY WITH m AS (
				UPDATE message SET state = 3, due = t + span(lock), token = tok, deliveries = least(deliveries, 2147483646) + 1, max_deliveries = deliveries_limit
				WHERE queue = q AND seq = picked RETURNING *
			) SELECT m.seq, m.deliveries, m.enqueued, m.session, m.reason, m.description, m.died, c.message_id, c.correlation, c.type,
				c.attributes, c.trace, c.sealed, c.not_before, c.ttl, c.dedup, c.body
			FROM m LEFT JOIN content c ON c.id = m.content AND octet_length(c.body) = m.size AND m.size <= 67108864
		AND octet_length(c.message_id) + octet_length(c.correlation) + octet_length(c.type) + octet_length(c.attributes)
			+ octet_length(c.trace) + octet_length(c.dedup) <= 1048576;
			RETURN;
		END IF;
		FOR candidate IN SELECT session FROM message WHERE queue + 4 = q + 4 AND turn IS NOT NULL ORDER BY turn LIMIT 64 LOOP
			PERFORM 1 FROM session WHERE queue = q AND id = candidate AND token IS NULL FOR UPDATE SKIP LOCKED;
			CONTINUE WHEN NOT FOUND;
			-- With the lock: another call may have taken the message.
			PERFORM 1 FROM message WHERE queue + 3 = q + 3 AND session = candidate AND state = 0 ORDER BY seq + 0 LIMIT 1;
			IF FOUND THEN
				s := candidate;
				EXIT;
			END IF;
		END LOOP;
		IF s = '' THEN
			RETURN;
		END IF;
	END IF;
	UPDATE session SET token = tok, until = t + span(lock), touched = t WHERE queue = q AND id = s;
	UPDATE message SET state = 4, turn = NULL WHERE queue + 3 = q + 3 AND session = s AND state = 0;
	named.seq := 0;
	named.deliveries := 0;
	named.enqueued := t;
	named.session := s;
	RETURN NEXT named;
END
$fn$;

-- hold_session locks the row of a session that the caller holds; QR001 if its lock
-- is over.
CREATE FUNCTION {schema}.hold_session(q bigint, s text, tok bytea, sweeping boolean) RETURNS timestamptz LANGUAGE plpgsql AS $fn$
DECLARE
	t timestamptz;
BEGIN
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	PERFORM 1 FROM session WHERE queue = q AND id = s AND token = tok FOR UPDATE;
	t := clock_timestamp();
	IF sweeping THEN
		PERFORM sweep(q, t);
	END IF;
	PERFORM 1 FROM session WHERE queue = q AND id = s AND token = tok AND until > t;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'session lost' USING ERRCODE = 'QR001';
	END IF;
	RETURN t;
END
$fn$;

-- claim_session is claim for the holder of a session. It returns those messages
-- that stand before any that waits out a delay.
CREATE FUNCTION {schema}.claim_session(q bigint, s text, tok bytea, deliveries_limit integer, messages integer, bytes bigint)
	RETURNS SETOF {schema}.delivery LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz := hold_session(q, s, tok, true);
	stop bigint;
	picked bigint[];
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	SELECT seq INTO stop FROM message WHERE queue + 3 = q + 3 AND session = s AND state = 2 ORDER BY seq + 0 LIMIT 1;
	SELECT array_agg(l.seq) INTO picked FROM (
		SELECT r.seq, sum(r.size) OVER (ORDER BY r.place) - r.size AS before FROM (
			SELECT seq, seq + 0 AS place, size FROM message
			WHERE queue + 3 = q + 3 AND session = s AND state = 4 AND seq + 0 < coalesce(stop, 9223372036854775807)
				AND due > t ORDER BY place LIMIT messages
		) r
	) l WHERE l.before < bytes;
	IF picked IS NULL THEN
		RETURN;
	END IF;
	INSERT INTO tally VALUES (q, -cardinality(picked), 0, cardinality(picked));
	RETURN QUERY WITH m AS (
		UPDATE message SET state = 3, due = 'infinity', token = tok, deliveries = least(deliveries, 2147483646) + 1, max_deliveries = deliveries_limit
		WHERE queue = q AND seq = ANY (picked) RETURNING *
	) SELECT m.seq, m.deliveries, m.enqueued, m.session, m.reason, m.description, m.died, c.message_id, c.correlation, c.type,
		c.attributes, c.trace, c.sealed, c.not_before, c.ttl, c.dedup, c.body
	FROM m LEFT JOIN content c ON c.id = m.content AND octet_length(c.body) = m.size AND m.size <= 67108864
		AND octet_length(c.message_id) + octet_length(c.correlation) + octet_length(c.type) + octet_length(c.attributes)
			+ octet_length(c.trace) + octet_length(c.dedup) <= 1048576;
END
$fn$;

CREATE FUNCTION {schema}.renew_session(q bigint, s text, tok bytea, lock bigint) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz := hold_session(q, s, tok, false);
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	UPDATE session SET until = t + span(lock), touched = t WHERE queue = q AND id = s;
END
$fn$;

CREATE FUNCTION {schema}.session_state(q bigint, s text, tok bytea) RETURNS bytea
	LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz := hold_session(q, s, tok, false);
BEGIN
	RETURN (SELECT state FROM session WHERE queue = q AND id = s);
END
$fn$;

CREATE FUNCTION {schema}.set_session_state(q bigint, s text, tok bytea, value bytea) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz := hold_session(q, s, tok, false);
BEGIN
	UPDATE session SET state = value, touched = t WHERE queue = q AND id = s;
END
$fn$;

-- close_session gives up a session, also if its time is over, unless another has it.
CREATE FUNCTION {schema}.close_session(q bigint, s text, tok bytea) RETURNS void
	LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
BEGIN
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	PERFORM 1 FROM session WHERE queue = q AND id = s AND token = tok FOR UPDATE;
	IF FOUND THEN
		PERFORM end_session(q, s, clock_timestamp());
	END IF;
END
$fn$;

-- next_due is in how many microseconds time alone next changes what a call finds;
-- NULL for never.
CREATE FUNCTION {schema}.next_due(q bigint) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz;
	next timestamptz;
BEGIN
	LOCK TABLE message IN ACCESS SHARE MODE;
	-- A call that waits would wait for ever, and not say why.
	IF NOT EXISTS (SELECT 1 FROM queue WHERE id = abs(q)) THEN
		RAISE EXCEPTION 'no such queue' USING ERRCODE = 'QR002';
	END IF;
	t := clock_timestamp();
	next := least(
		(SELECT due FROM message WHERE queue + 2 = q + 2 AND due < 'infinity' ORDER BY due LIMIT 1),
		(SELECT until FROM session WHERE queue + 1 = q + 1 AND until IS NOT NULL ORDER BY until LIMIT 1),
		CASE WHEN q < 0 THEN (SELECT due FROM message WHERE queue + 2 = -q + 2 AND due < 'infinity' ORDER BY due LIMIT 1) END,
		CASE WHEN q < 0 THEN (SELECT until FROM session WHERE queue + 1 = -q + 1 AND until IS NOT NULL ORDER BY until LIMIT 1) END);
	RETURN (extract(epoch FROM next - t) * 1000000)::bigint;
END
$fn$;

-- peek shows messages behind a place without locking or counting them.
CREATE FUNCTION {schema}.peek(q bigint, after bigint, messages integer, bytes bigint) RETURNS SETOF {schema}.delivery
	LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz;
BEGIN
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	t := clock_timestamp();
	PERFORM sweep(abs(q), t);
	PERFORM sweep(-abs(q), t);
	RETURN QUERY SELECT l.seq, l.deliveries, l.enqueued, l.session, l.reason, l.description, l.died, c.message_id, c.correlation, c.type,
		c.attributes, c.trace, c.sealed, c.not_before, c.ttl, c.dedup, c.body
	FROM (
		SELECT r.*, sum(r.size) OVER (ORDER BY r.seq) - r.size AS before FROM (
			SELECT m.* FROM generate_series(0, 4) g, LATERAL (
				SELECT * FROM message WHERE queue + 1 = q + 1 AND state = g::smallint AND seq + 0 > after ORDER BY seq + 0 LIMIT messages
			) m ORDER BY m.seq LIMIT messages
		) r
	) l LEFT JOIN content c ON c.id = l.content AND octet_length(c.body) = l.size AND l.size <= 67108864
		AND octet_length(c.message_id) + octet_length(c.correlation) + octet_length(c.type) + octet_length(c.attributes)
			+ octet_length(c.trace) + octet_length(c.dedup) <= 1048576
	WHERE l.before < bytes ORDER BY l.seq;
END
$fn$;

-- queue_stats counts without looking at messages. age is that of the oldest message in
-- seconds, not its time: the caller's clock may be wrong. behind says that more was due
-- than one sweep does.
CREATE FUNCTION {schema}.queue_stats(q bigint, OUT ready bigint, OUT later bigint, OUT locked bigint, OUT dead bigint,
	OUT age double precision, OUT behind boolean) LANGUAGE plpgsql SECURITY DEFINER {settings} AS $fn$
DECLARE
	t timestamptz;
BEGIN
	LOCK TABLE message IN ROW EXCLUSIVE MODE;
	-- Zeros would be taken for a queue that is empty.
	IF NOT EXISTS (SELECT 1 FROM queue WHERE id = abs(q)) THEN
		RAISE EXCEPTION 'no such queue' USING ERRCODE = 'QR002';
	END IF;
	t := clock_timestamp();
	PERFORM sweep(abs(q), t);
	PERFORM sweep(-abs(q), t);
	SELECT coalesce(sum(x.ready) FILTER (WHERE x.queue = q), 0), coalesce(sum(x.later) FILTER (WHERE x.queue = q), 0),
		coalesce(sum(x.locked) FILTER (WHERE x.queue = q), 0), coalesce(sum(x.ready + x.later + x.locked) FILTER (WHERE x.queue = -q), 0)
		INTO ready, later, locked, dead FROM tally x WHERE x.queue IN (q, -q);
	SELECT CASE WHEN isfinite(coalesce(m.died, m.enqueued)) THEN extract(epoch FROM t - coalesce(m.died, m.enqueued)) END INTO age
		FROM message m WHERE m.queue + 1 = q + 1 AND m.state = 0::smallint ORDER BY m.seq + 0 LIMIT 1;
	behind := EXISTS (SELECT 1 FROM message m WHERE m.queue + 2 = q + 2 AND m.due <= t)
		OR EXISTS (SELECT 1 FROM session s WHERE s.queue + 1 = q + 1 AND s.until <= t);
END
$fn$;

-- maintain does what no other call does: it removes states of sessions that ended, and
-- keeps the tables short. VACUUM cannot remove rows while a transaction anywhere in
-- the database is older than their end, and calls would have to step over more and
-- more of them. So if a table has grown to several times its live rows, and these are few,
-- they move out, the table is truncated, and they move back. TRUNCATE waits for no
-- snapshot, only for transactions that use the table; if one does for long, maintain
-- gives up. It returns whether it moved rows.
CREATE FUNCTION {schema}.maintain(q bigint) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER {settings} SET lock_timeout = '100ms' AS $fn$
DECLARE
	old text[];
	live bigint;
	bytes bigint;
	sums tally[];
	add_up boolean;
	messages boolean;
	sessions boolean;
	contents boolean := false;
BEGIN
	LOCK TABLE message IN ACCESS SHARE MODE;
	SELECT array_agg(o.id) INTO old FROM (
		SELECT x.id FROM session x JOIN queue k ON k.id = x.queue
		WHERE x.queue + 2 = q + 2 AND x.state IS NOT NULL AND x.token IS NULL AND x.touched < clock_timestamp() - span(k.retention)
			AND NOT EXISTS (SELECT 1 FROM message m WHERE m.queue + 3 = q + 3 AND m.session = x.id)
		ORDER BY x.touched LIMIT 256 FOR UPDATE OF x SKIP LOCKED
	) o;
	-- With the locks: a send may have committed since that statement's snapshot.
	DELETE FROM session s WHERE s.queue = q AND s.id = ANY (old)
		AND NOT EXISTS (SELECT 1 FROM message m WHERE m.queue + 3 = q + 3 AND m.session = s.id);
	PERFORM 1 FROM meta FOR UPDATE SKIP LOCKED;
	IF NOT FOUND THEN
		RETURN false; -- another call runs
	END IF;
	SELECT coalesce(sum(ready + later + locked), 0) INTO live FROM tally;
	-- In pages of 8 KiB; one holds some 70 rows of message or session, and 180 of tally.
	-- Calls wait while rows move: 100,000 took 3.6 s on two busy cores.
	add_up := pg_relation_size('tally') >= 128 * 8192;
	messages := live <= 100000 AND pg_relation_size('message') >= greatest(128 * 8192, live * 3 * 8192 / 70);
	sessions := pg_relation_size('session') >= 64 * 8192 AND live <= 100000;
	IF live <= 20000 AND pg_total_relation_size('content') >= 64 * 1048576 THEN
		SELECT coalesce(sum(size), 0) INTO bytes FROM message;
		contents := bytes <= 16 * 1048576;
	END IF;
	IF NOT (add_up OR messages OR sessions OR contents) THEN
		RETURN false;
	END IF;
	LOCK TABLE message IN ACCESS EXCLUSIVE MODE;
	LOCK TABLE session, content, tally IN ACCESS EXCLUSIVE MODE;
	IF add_up THEN
		SELECT array_agg(ROW(x.queue, x.ready, x.later, x.locked)::tally) INTO sums FROM (
			SELECT queue, sum(ready)::bigint AS ready, sum(later)::bigint AS later, sum(locked)::bigint AS locked FROM tally GROUP BY queue
		) x;
		TRUNCATE tally;
		INSERT INTO tally SELECT * FROM unnest(sums);
	END IF;
	IF messages THEN
		INSERT INTO message_spare SELECT * FROM message;
		TRUNCATE message;
		INSERT INTO message SELECT * FROM message_spare ORDER BY seq;
		TRUNCATE message_spare;
	END IF;
	IF sessions THEN
		SELECT count(*) INTO live FROM session;
		IF pg_relation_size('session') >= live * 3 * 8192 / 70 THEN
			INSERT INTO session_spare SELECT * FROM session;
			TRUNCATE session;
			INSERT INTO session SELECT * FROM session_spare ORDER BY queue, id;
			TRUNCATE session_spare;
		END IF;
	END IF;
	IF contents THEN
		INSERT INTO content_spare SELECT * FROM content;
		TRUNCATE content;
		INSERT INTO content SELECT * FROM content_spare ORDER BY id;
		TRUNCATE content_spare;
	END IF;
	RETURN true;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	RETURN false;
END
$fn$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC;
GRANT EXECUTE ON FUNCTION {schema}.schema_version() TO PUBLIC;
