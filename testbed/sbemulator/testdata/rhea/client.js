'use strict';

// Drives the emulator with rhea through send, receive, settle and sessions. The
// queues "plain" and "sessions" exist. Prints the name of each step that
// passed; the first failure ends it with status 1.
//
//   node client.js HOST PORT

const assert = require('node:assert/strict');
const rhea = require('rhea');

const [host, port] = process.argv.slice(2);
const container = rhea.create_container({ id: 'rhea' });
const { data_section, data_sections, decode, encode } = rhea.message;
const types = rhea.types;

const dotnetEpoch = 621355968000000000n;

// next resolves with the context of the first of the events on an emitter, and
// rejects when none comes.
function next(emitter, ...events) {
  return new Promise((resolve, reject) => {
    const handlers = {};
    const done = (f, v) => {
      clearTimeout(timer);
      for (const e of events) emitter.removeListener(e, handlers[e]);
      f(v);
    };
    const timer = setTimeout(() => done(reject, new Error(`no ${events.join(' or ')}`)), 30000);
    for (const e of events) {
      handlers[e] = (context) => done(resolve, Object.assign(context, { event: e }));
      emitter.on(e, handlers[e]);
    }
  });
}

function connect() {
  const connection = container.connect({ host, port, username: 'anonymous', reconnect: false });
  connection.on('disconnected', () => {});
  return connection;
}

async function sender(connection, address) {
  const s = connection.open_sender({ target: { address } });
  await next(s, 'sendable');
  return s;
}

// receiver opens a peek-lock receiver (rcv-settle-mode second) without credit.
async function receiver(connection, source, more) {
  const r = connection.open_receiver(Object.assign({
    source, credit_window: 0, autoaccept: false, autosettle: false, rcv_settle_mode: 1, snd_settle_mode: 0,
  }, more));
  let refused;
  r.on('receiver_error', () => { refused = r.error; }); // comes right behind the attach
  await next(r, 'receiver_open');
  if (r.remote.attach.source.address) return r; // rhea shows a null as an object
  if (!refused) await next(r, 'receiver_error');
  return { refused };
}

async function send(s, msg, format) {
  const wait = next(s, 'accepted', 'rejected', 'released', 'modified');
  s.send(msg, undefined, format);
  return wait;
}

// receive asks for one message.
async function receive(r) {
  const wait = next(r, 'message');
  r.add_credit(1);
  return wait;
}

// settle has the delivery settled by both sides and returns the emulator's state.
async function settle(context, how) {
  const { receiver: r, delivery } = context;
  const wait = next(r, 'settled');
  how(delivery);
  await wait;
  assert.ok(delivery.remote_settled);
  delivery.update(true); // this side too: it is over
  return delivery.remote_state.constructor.composite_type;
}

// requests returns a function that makes requests to a node.
async function requests(connection, node) {
  const reply = 'answers-' + node;
  const s = await sender(connection, node);
  const r = connection.open_receiver({ source: { address: node }, target: { address: reply }, credit_window: 10 });
  await next(r, 'receiver_open');
  let id = 0;
  return async (application_properties, body) => {
    const message_id = `${node}-${++id}`;
    const answer = next(r, 'message');
    const taken = await send(s, { message_id, reply_to: reply, application_properties, body });
    assert.equal(taken.event, 'accepted');
    const { message } = await answer;
    assert.equal(message.correlation_id, message_id);
    return message;
  };
}

const sessionFilter = (id) => ({
  'com.microsoft:session-filter': types.wrap_described(id === null ? types.Null() : id, 0x137000000C),
});

function grantedSession(r) {
  const filter = r.remote.attach.source.filter['com.microsoft:session-filter'];
  return filter.value !== undefined ? filter.value : filter;
}

const steps = {
  async claim(connection) {
    const ask = await requests(connection, '$cbs');
    const put = (name) => ask({ operation: 'put-token', type: 'servicebus.windows.net:sastoken', name }, 'token');
    assert.equal((await put(`amqp://${host}/plain`)).application_properties['status-code'], 200);
    assert.equal((await put(`amqp://${host}/none`)).application_properties['status-code'], 404);
  },

  async send_and_accept(connection) {
    const s = await sender(connection, 'plain');
    assert.equal(s.max_message_size, 262144);
    const body = Buffer.alloc(200000, 7); // four frames
    const sent = {
      header: undefined, durable: true, ttl: 60000, message_id: 'id', correlation_id: 'corr', subject: 'subject',
      content_type: 'application/json', group_id: 'g', reply_to: 'reply',
      application_properties: { s: 'text', n: types.wrap_long(1099511627776), b: true },
      message_annotations: { 'x-opt-partition-key': 'k' },
      body: data_section(body),
    };
    assert.equal((await send(s, sent)).event, 'accepted');
    const r = await receiver(connection, { address: 'plain' });
    const got = await receive(r);
    const m = got.message;
    for (const f of ['durable', 'ttl', 'message_id', 'correlation_id', 'subject', 'content_type', 'group_id', 'reply_to']) {
      assert.equal(m[f], sent[f], f);
    }
    assert.deepEqual(m.application_properties, { s: 'text', n: 1099511627776, b: true });
    assert.ok(m.body.content.equals(body));
    assert.equal(m.message_annotations['x-opt-partition-key'], 'k');
    assert.equal(m.message_annotations['x-opt-sequence-number'], 1);
    assert.equal(m.message_annotations['x-opt-message-state'], 0);
    const locked = m.message_annotations['x-opt-locked-until'] - m.message_annotations['x-opt-enqueued-time'];
    assert.ok(locked > 50000 && locked < 70000, `locked for ${locked} ms`);
    assert.ok(!m.delivery_count);
    assert.equal(m.first_acquirer, true);
    assert.equal(got.delivery.tag.length, 16);
    assert.equal(await settle(got, (d) => d.accept()), 'accepted');
  },

  async every_settlement(connection) {
    const s = await sender(connection, 'plain');
    const r = await receiver(connection, { address: 'plain' });
    for (const body of ['released', 'modified', 'deferred', 'rejected']) {
      assert.equal((await send(s, { message_id: body, body })).event, 'accepted');
    }
    let got = await receive(r);
    assert.equal(got.message.body, 'released');
    assert.equal(await settle(got, (d) => d.release()), 'released');
    got = await receive(r);
    assert.equal(got.message.body, 'released');
    assert.ok(!got.message.delivery_count); // a release is not counted
    await settle(got, (d) => d.accept());

    got = await receive(r);
    assert.equal(got.message.body, 'modified');
    assert.equal(await settle(got, (d) => d.modified({ delivery_failed: true, message_annotations: { tried: 'once' } })), 'modified');
    got = await receive(r);
    assert.equal(got.message.body, 'modified');
    assert.equal(got.message.delivery_count, 1);
    assert.equal(got.message.application_properties.tried, 'once');
    await settle(got, (d) => d.accept());

    got = await receive(r);
    assert.equal(got.message.body, 'deferred');
    assert.equal(await settle(got, (d) => d.modified({ undeliverable_here: true })), 'modified');

    got = await receive(r);
    assert.equal(got.message.body, 'rejected');
    const error = {
      condition: 'com.microsoft:dead-letter', description: 'ignored',
      info: { DeadLetterReason: 'why', DeadLetterErrorDescription: 'because', extra: 'e' },
    };
    assert.equal(await settle(got, (d) => d.reject(error)), 'rejected');
    const dead = await receiver(connection, { address: 'plain/$DeadLetterQueue' });
    got = await receive(dead);
    assert.equal(got.message.body, 'rejected');
    assert.deepEqual(got.message.application_properties, { extra: 'e', DeadLetterReason: 'why', DeadLetterErrorDescription: 'because' });
    assert.equal(got.message.message_annotations['x-opt-deadletter-source'], undefined);
    await settle(got, (d) => d.accept());
  },

  async management(connection) {
    const ask = await requests(connection, 'plain/$management');
    const op = (operation, body) => ask({ operation: 'com.microsoft:' + operation }, body);
    const peek = (from) => op('peek-message', { 'from-sequence-number': types.wrap_long(from), 'message-count': types.wrap_int(10) });
    let a = await peek(1);
    assert.equal(a.application_properties.statusCode, 200);
    assert.equal(a.body.messages.length, 1);
    const deferred = decode(a.body.messages[0].message);
    assert.equal(deferred.body, 'deferred');
    assert.equal(deferred.message_annotations['x-opt-message-state'], 1);
    const number = deferred.message_annotations['x-opt-sequence-number'];
    assert.equal((await peek(number + 1)).application_properties.statusCode, 204);

    // Clients send lists where others send arrays: both are taken.
    a = await op('receive-by-sequence-number', { 'sequence-numbers': [types.wrap_long(number)], 'receiver-settle-mode': types.wrap_uint(1) });
    assert.equal(a.application_properties.statusCode, 200);
    const token = a.body.messages[0]['lock-token'];
    assert.equal(token.length, 16);
    const tokens = types.wrap_array([token], 0x98);
    a = await op('renew-lock', { 'lock-tokens': tokens });
    assert.equal(a.application_properties.statusCode, 200);
    assert.ok(a.body.expirations[0] > Date.now() + 50000);
    const done = { 'lock-tokens': tokens, 'disposition-status': 'completed' };
    assert.equal((await op('update-disposition', done)).application_properties.statusCode, 200);
    a = await op('update-disposition', done);
    assert.equal(a.application_properties.statusCode, 410);
    assert.equal(a.application_properties.errorCondition, 'com.microsoft:message-lock-lost');

    const raw = encode({ message_id: 'later', body: 'later', message_annotations: { 'x-opt-scheduled-enqueue-time': types.wrap_timestamp(Date.now() + 3600000) } });
    a = await op('schedule-message', { messages: [{ 'message-id': 'later', message: raw }] });
    assert.equal(a.application_properties.statusCode, 200);
    const scheduled = a.body['sequence-numbers'].map((n) => types.wrap_long(n));
    assert.equal(scheduled.length, 1);
    assert.equal((await op('cancel-scheduled-message', { 'sequence-numbers': scheduled })).application_properties.statusCode, 200);
    assert.equal((await op('no-such-thing', {})).application_properties.statusCode, 501);
  },

  async batch(connection) {
    const s = await sender(connection, 'plain');
    const raw = [1, 2, 3].map((n) => encode({ message_id: 'b' + n, body: n }));
    assert.equal((await send(s, encode({ body: data_sections(raw) }), 0x80013700)).event, 'accepted');
    // Settled by the sender, first: the message is gone when it is delivered.
    const r = await receiver(connection, { address: 'plain' }, { rcv_settle_mode: 0, snd_settle_mode: 1 });
    for (const n of [1, 2, 3]) {
      const got = await receive(r);
      assert.equal(got.message.body, n);
      assert.equal(got.delivery.remote_settled, true);
    }
  },

  async many_messages(connection) {
    const s = await sender(connection, 'plain');
    const total = 1100; // more than the first credit
    let sent = 0, accepted = 0;
    await new Promise((resolve, reject) => {
      const more = () => { while (s.sendable() && sent < total) s.send({ message_id: String(sent++), body: sent }); };
      s.on('sendable', more);
      s.on('rejected', reject);
      s.on('accepted', () => { if (++accepted === total) resolve(); });
      more();
    });
    const r = connection.open_receiver({ source: { address: 'plain' }, credit_window: 100, snd_settle_mode: 0, rcv_settle_mode: 0 });
    let got = 0;
    await new Promise((resolve, reject) => {
      r.on('message', ({ message }) => { // accepted and settled by rhea
        if (message.body !== ++got) reject(new Error(`message ${message.body} is number ${got}`));
        if (got === total) resolve();
      });
    });
  },

  async drain(connection) {
    const r = await receiver(connection, { address: 'plain' });
    const wait = next(r, 'receiver_drained');
    r.add_credit(5);
    r.drain_credit();
    await wait;
    assert.equal(r.credit, 0);
  },

  async refusals(connection) {
    const want = async (source, condition) => {
      const { refused } = await receiver(connection, source);
      assert.equal(refused && refused.condition, condition);
    };
    await want({ address: 'none' }, 'amqp:not-found');
    await want({ address: 'sessions' }, 'amqp:not-allowed');
    await want({ address: 'plain', filter: sessionFilter('s') }, 'amqp:not-allowed');
    const s = await sender(connection, 'sessions');
    const got = await send(s, { body: 'no session' });
    assert.equal(got.event, 'rejected');
    assert.equal(got.delivery.remote_state.error.condition, 'amqp:not-allowed');
    const large = await send(await sender(connection, 'plain'), { body: data_section(Buffer.alloc(300000)) });
    assert.equal(large.event, 'rejected');
    assert.equal(large.delivery.remote_state.error.condition, 'amqp:link:message-size-exceeded');
  },

  async sessions(connection) {
    const s = await sender(connection, 'sessions');
    for (const [group_id, body] of [['b', 'b1'], ['a', 'a1'], ['b', 'b2']]) {
      assert.equal((await send(s, { group_id, body })).event, 'accepted');
    }
    const named = await receiver(connection, { address: 'sessions', filter: sessionFilter('a') });
    assert.equal(grantedSession(named), 'a');
    const ticks = named.remote.attach.properties['com.microsoft:locked-until-utc'];
    const value = Buffer.isBuffer(ticks) ? ticks.readBigInt64BE() : BigInt(ticks);
    const left = Number((value - dotnetEpoch) / 10000n) - Date.now();
    assert.ok(left > 50000 && left < 70000, `locked for ${left} ms`);
    const { refused } = await receiver(connection, { address: 'sessions', filter: sessionFilter('a') });
    assert.equal(refused.condition, 'com.microsoft:session-cannot-be-locked');
    const free = await receiver(connection, { address: 'sessions', filter: sessionFilter(null) });
    assert.equal(grantedSession(free), 'b');
    for (const [r, bodies] of [[named, ['a1']], [free, ['b1', 'b2']]]) {
      for (const body of bodies) {
        const got = await receive(r);
        assert.equal(got.message.body, body);
        await settle(got, (d) => d.accept());
      }
    }

    const ask = await requests(connection, 'sessions/$management');
    const op = (operation, body) => ask({ operation: 'com.microsoft:' + operation, 'associated-link-name': named.name }, body);
    let a = await op('set-session-state', { 'session-id': 'a', 'session-state': Buffer.from('state') });
    assert.equal(a.application_properties.statusCode, 200);
    a = await op('get-session-state', { 'session-id': 'a' });
    assert.equal(a.body['session-state'].toString(), 'state');
    a = await op('renew-session-lock', { 'session-id': 'a' });
    assert.ok(a.body.expiration > Date.now() + 50000);
    a = await op('get-message-sessions', {
      'last-updated-time': types.wrap_timestamp(253402300800000), skip: types.wrap_int(0), top: types.wrap_int(10),
    });
    assert.deepEqual(Array.from(a.body['sessions-ids']), ['a']);
    a = await op('renew-session-lock', { 'session-id': 'b' }); // another link's
    assert.equal(a.application_properties.statusCode, 410);

    // What a closed receiver held is free for the next, who may wait for it.
    assert.equal((await send(s, { group_id: 'a', body: 'a2' })).event, 'accepted');
    const held = await receive(named);
    assert.equal(held.message.body, 'a2');
    const waiting = receiver(connection, { address: 'sessions', filter: sessionFilter(null) });
    named.close();
    const again = await waiting;
    assert.equal(grantedSession(again), 'a');
    const got = await receive(again);
    assert.equal(got.message.body, 'a2');
    assert.ok(!got.message.delivery_count);
    await settle(got, (d) => d.accept());
    const closed = next(free, 'receiver_close');
    free.close();
    await closed;
  },
};

async function main() {
  for (const [name, step] of Object.entries(steps)) {
    const connection = connect();
    await next(connection, 'connection_open');
    await step(connection);
    const closed = next(connection, 'connection_close');
    connection.close();
    await closed;
    console.log(name);
  }
}

main().then(() => process.exit(0), (e) => {
  console.error(e);
  process.exit(1);
});
