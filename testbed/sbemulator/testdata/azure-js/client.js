'use strict';

// Drives the emulator with Microsoft's JavaScript client. The queues "plain",
// "sessions" and "twice" (two deliveries) exist. Prints the name of each step that
// passed; the first failure ends it with status 1. The line "advance N" asks for
// the emulator's clock to be moved by N seconds; any line on standard input says
// that it was.
//
//   node client.js CONNECTION-STRING

const assert = require('node:assert/strict');
const readline = require('node:readline');
const { ServiceBusClient } = require('@azure/service-bus');

const retryOptions = { maxRetries: 0, timeoutInMs: 30000 };
const connect = () => new ServiceBusClient(process.argv[2], { retryOptions });
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const lockSeconds = 60;

async function advance(seconds) {
  console.log(`advance ${seconds}`);
  assert.equal((await lines.next()).done, false, 'the clock was not moved');
}

// take receives exactly n messages.
async function take(receiver, n) {
  const got = await receiver.receiveMessages(n, { maxWaitTimeInMs: 30000 });
  assert.equal(got.length, n);
  return n === 1 ? got[0] : got;
}

// empty fails if a message comes.
async function empty(receiver) {
  const got = await receiver.receiveMessages(1, { maxWaitTimeInMs: 20 });
  assert.deepEqual(got.map((m) => m.body), []);
}

async function fails(promise, code, text = /./) {
  await assert.rejects(promise, (e) => {
    assert.equal(e.code, code, e.stack);
    assert.match(e.message, text);
    return true;
  });
}

const bodies = (messages) => messages.map((m) => m.body);
const numbers = (n, from = 0) => Array.from({ length: n }, (_, i) => from + i);
const deadLetters = { subQueueType: 'deadLetter' };
const destructive = () => ({ receiveMode: 'receiveAndDelete' }); // the client changes its options

const steps = {
  async send_and_complete(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    const sent = {
      messageId: 'id', correlationId: 'corr', subject: 'subject', contentType: 'application/json', to: 'to',
      replyTo: 'reply', replyToSessionId: 'rs', sessionId: 's', partitionKey: 's', timeToLive: 60000,
      applicationProperties: { text: 't', number: 7, yes: true, none: null },
      body: { list: [1, 'two', null] },
    };
    await sender.sendMessages(sent);
    const got = await take(receiver, 1);
    for (const [name, value] of Object.entries(sent)) assert.deepEqual(got[name], value, name);
    assert.equal(got.deliveryCount, 0);
    assert.equal(got.state, 'active');
    assert.ok(got.sequenceNumber.gt(0));
    const locked = got.lockedUntilUtc - got.enqueuedTimeUtc;
    assert.ok(locked >= lockSeconds * 1000 && locked < (lockSeconds + 5) * 1000, `locked for ${locked} ms`);
    assert.equal(got.expiresAtUtc - got.enqueuedTimeUtc, 60000);
    await receiver.completeMessage(got);
    await empty(receiver);
  },

  async message_without_id(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    const batch = await sender.createMessageBatch();
    assert.ok(batch.tryAddMessage({ body: 'batch' }));
    await sender.sendMessages({ body: 'single' });
    await sender.sendMessages(batch);
    const got = await take(receiver, 2);
    assert.deepEqual(bodies(got), ['single', 'batch']);
    assert.notEqual(got[0].messageId, got[1].messageId);
    for (const m of got) {
      assert.match(m.messageId, /^[0-9a-f]{32}$/);
      await receiver.completeMessage(m); // the client throws without an ID
    }
  },

  async bodies_of_every_kind(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain', destructive());
    const binary = Buffer.from([0, 1, 254, 255]);
    for (const body of ['text', 12.5, true, null, [1, 2], binary]) {
      await sender.sendMessages({ body });
      assert.deepEqual((await take(receiver, 1)).body, body);
    }
    for (const bodyType of ['data', 'value', 'sequence']) {
      const body = bodyType === 'data' ? binary : ['a', 'b'];
      await sender.sendMessages({ bodyType, body });
      const got = await take(receiver, 1);
      assert.deepEqual(got.body, body, bodyType);
      assert.equal(got._rawAmqpMessage.bodyType, bodyType);
    }
  },

  async batches(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain', destructive());
    const batch = await sender.createMessageBatch();
    assert.equal(batch.maxSizeInBytes, 262144);
    let n = 0;
    while (batch.tryAddMessage({ body: n, applicationProperties: { fill: 'x'.repeat(10000) } })) n++;
    assert.ok(n >= 20 && n <= 26, `${n} messages in a batch`);
    await sender.sendMessages(batch);
    assert.deepEqual(bodies(await take(receiver, n)), numbers(n));
    await sender.sendMessages(numbers(5).map((body) => ({ body })));
    assert.deepEqual(bodies(await take(receiver, 5)), numbers(5));
  },

  async abandon(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    await sender.sendMessages({ body: 'a', applicationProperties: { kept: 1 } });
    await receiver.abandonMessage(await take(receiver, 1), { tried: 'once' });
    const again = await take(receiver, 1);
    assert.equal(again.deliveryCount, 1);
    assert.deepEqual(again.applicationProperties, { kept: 1, tried: 'once' });
    await receiver.completeMessage(again);
  },

  async defer(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    await sender.sendMessages([{ body: 'a' }, { body: 'b' }]);
    const got = await take(receiver, 2);
    for (const m of got) await receiver.deferMessage(m, { why: 'later' });
    await empty(receiver);
    const peeked = await receiver.peekMessages(10);
    assert.deepEqual(peeked.map((m) => m.state), ['deferred', 'deferred']);
    const [a, b] = await receiver.receiveDeferredMessages(got.map((m) => m.sequenceNumber));
    assert.equal(a.body, 'a');
    assert.equal(a.state, 'deferred');
    assert.equal(a.applicationProperties.why, 'later');
    await receiver.renewMessageLock(a);
    await receiver.completeMessage(a); // over $management
    await receiver.abandonMessage(b); // it stays deferred
    const [again] = await receiver.receiveDeferredMessages(b.sequenceNumber);
    assert.equal(again.deliveryCount, 1);
    await receiver.deadLetterMessage(again, { deadLetterReason: 'deferred' });
    await fails(receiver.receiveDeferredMessages(b.sequenceNumber), 'MessageNotFound');
    const dead = client.createReceiver('plain', { ...deadLetters, ...destructive() });
    assert.equal((await take(dead, 1)).deadLetterReason, 'deferred');
  },

  async dead_letters(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    await sender.sendMessages({ body: 'a', messageId: 'dead' });
    const why = { deadLetterReason: 'why', deadLetterErrorDescription: 'because', extra: 'e' };
    await receiver.deadLetterMessage(await take(receiver, 1), why);
    await empty(receiver);
    const dead = client.createReceiver('plain', deadLetters);
    const [peeked] = await dead.peekMessages(1);
    assert.equal(peeked.messageId, 'dead');
    const got = await take(dead, 1);
    assert.equal(got.messageId, 'dead');
    assert.equal(got.deadLetterReason, 'why');
    assert.equal(got.deadLetterErrorDescription, 'because');
    assert.equal(got.applicationProperties.extra, 'e');
    await dead.completeMessage(got);
    await empty(dead);
  },

  async too_many_deliveries(client) {
    const sender = client.createSender('twice');
    const receiver = client.createReceiver('twice');
    await sender.sendMessages({ body: 'poison' });
    for (const count of [0, 1]) {
      const got = await take(receiver, 1);
      assert.equal(got.deliveryCount, count);
      await receiver.abandonMessage(got);
    }
    await empty(receiver);
    const dead = client.createReceiver('twice', { ...deadLetters, ...destructive() });
    assert.equal((await take(dead, 1)).deadLetterReason, 'MaxDeliveryCountExceeded');
  },

  async receive_and_delete(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain', destructive());
    await sender.sendMessages({ body: 'gone' });
    const got = await take(receiver, 1);
    assert.equal(got.body, 'gone');
    assert.equal(got.lockToken, undefined);
    await assert.rejects(receiver.completeMessage(got));
    assert.equal((await receiver.peekMessages(1)).length, 0);
  },

  async schedule_and_cancel(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    const [peekable] = await sender.scheduleMessages({ body: 'at its time' }, new Date(Date.now() + 3600000));
    const more = await sender.scheduleMessages([{ body: 'x' }, { body: 'y' }], new Date(Date.now() + 3600000));
    assert.equal(more.length, 2);
    await empty(receiver);
    const peeked = await receiver.peekMessages(10);
    assert.deepEqual(peeked.map((m) => m.state), ['scheduled', 'scheduled', 'scheduled']);
    assert.ok(peeked[0].sequenceNumber.eq(peekable));
    assert.ok(peeked[0].scheduledEnqueueTimeUtc > new Date());
    await sender.cancelScheduledMessages(more);
    await fails(sender.cancelScheduledMessages(more[0]), 'MessageNotFound');
    await advance(3600);
    const got = await take(receiver, 1);
    assert.equal(got.body, 'at its time');
    assert.equal(got.state, 'active');
    await receiver.completeMessage(got);
    await empty(receiver);
  },

  async peek(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    await sender.sendMessages(numbers(6).map((body) => ({ body })));
    const first = await take(receiver, 1); // a locked one is peeked too
    const got = await receiver.peekMessages(4); // the receiver remembers how far it came
    got.push(...(await receiver.peekMessages(4)));
    assert.deepEqual(bodies(got), numbers(6));
    assert.equal(got[0].deliveryCount, 0);
    assert.equal(got[1].lockToken, undefined);
    const from = await receiver.peekMessages(2, { fromSequenceNumber: got[3].sequenceNumber });
    assert.deepEqual(bodies(from), [3, 4]);
    await receiver.completeMessage(first);
    for (const m of await take(receiver, 5)) await receiver.completeMessage(m);
  },

  async lock_renewal_and_loss(client) {
    const sender = client.createSender('plain');
    const receiver = client.createReceiver('plain');
    await sender.sendMessages({ body: 'a' });
    const got = await take(receiver, 1);
    const until = got.lockedUntilUtc;
    await advance(lockSeconds - 10);
    const renewed = await receiver.renewMessageLock(got);
    assert.ok(renewed - until >= (lockSeconds - 11) * 1000, `${until} renewed until ${renewed}`);
    await advance(lockSeconds - 10); // beyond the first lock
    await empty(receiver);
    await advance(11);
    await fails(receiver.renewMessageLock(got), 'MessageLockLost');
    await fails(receiver.completeMessage(got), 'MessageLockLost');
    const again = await take(receiver, 1);
    assert.equal(again.deliveryCount, 1);
    assert.equal(again.messageId, got.messageId);
    await receiver.completeMessage(again);
  },

  async sessions(client) {
    const sender = client.createSender('sessions');
    await fails(sender.sendMessages({ body: 'no session' }), 'GeneralError', /InvalidOperationError/);
    for (const [sessionId, body] of [['b', 1], ['a', 2], ['b', 3], ['c', 4]]) await sender.sendMessages({ sessionId, body });
    const a = await client.acceptSession('sessions', 'a');
    assert.equal(a.sessionId, 'a');
    assert.ok(a.sessionLockedUntilUtc > new Date());
    await fails(client.acceptSession('sessions', 'a'), 'SessionCannotBeLocked');
    const next = await client.acceptNextSession('sessions');
    assert.equal(next.sessionId, 'b');
    const held = await take(next, 2);
    assert.deepEqual(bodies(held), [1, 3]); // the order of the session
    assert.deepEqual(bodies(await next.peekMessages(10)), [1, 3]);
    for (const m of held) await next.completeMessage(m);
    await empty(next);
    const last = await client.acceptNextSession('sessions');
    assert.equal(last.sessionId, 'c');
    await last.completeMessage(await take(last, 1));
    await last.close();

    assert.equal(await a.getSessionState(), null);
    await a.setSessionState(Buffer.from('state'));
    assert.equal((await a.getSessionState()).toString(), 'state');
    const m = await take(a, 1);
    await a.deferMessage(m);
    await a.close();
    await next.close();
    const again = await client.acceptSession('sessions', 'a'); // state lasts
    assert.equal((await again.getSessionState()).toString(), 'state');
    const [deferred] = await again.receiveDeferredMessages(m.sequenceNumber);
    await again.completeMessage(deferred);
    await again.setSessionState(null);
    assert.equal(await again.getSessionState(), null);
    await again.close();
  },

  async no_next_session() {
    const client = new ServiceBusClient(process.argv[2], { retryOptions: { maxRetries: 0, timeoutInMs: 300 } });
    await fails(client.acceptNextSession('sessions'), 'ServiceTimeout');
    await client.close();
  },

  async session_lock_renewal_and_loss(client) {
    const sender = client.createSender('sessions');
    await sender.sendMessages({ sessionId: 's', body: 'x' });
    const session = await client.acceptSession('sessions', 's');
    const got = await take(session, 1);
    const until = session.sessionLockedUntilUtc;
    await advance(lockSeconds - 10);
    const renewed = await session.renewSessionLock();
    assert.ok(renewed - until >= (lockSeconds - 11) * 1000, `${until} renewed until ${renewed}`);
    assert.equal(+session.sessionLockedUntilUtc, +renewed);
    await advance(lockSeconds + 1);
    await fails(session.renewSessionLock(), 'SessionLockLost');
    await fails(session.completeMessage(got), 'SessionLockLost');
    await session.close();
    const again = await client.acceptNextSession('sessions');
    assert.equal(again.sessionId, 's');
    const m = await take(again, 1);
    assert.equal(m.deliveryCount, 1);
    await again.completeMessage(m);
    await again.close();
  },

  async refusals(client) {
    const text = /The messaging entity '.*\/none' could not be found/;
    await fails(client.createSender('none').sendMessages({ body: 'x' }), 'MessagingEntityNotFound', text);
    await fails(client.createReceiver('none').receiveMessages(1, { maxWaitTimeInMs: 30000 }), 'MessagingEntityNotFound', text);
    await fails(client.createReceiver('none').peekMessages(1), 'MessagingEntityNotFound', text);
    await fails(client.acceptSession('none', 's'), 'MessagingEntityNotFound', text);
    await fails(client.createReceiver('sessions').receiveMessages(1, { maxWaitTimeInMs: 30000 }), 'GeneralError', /InvalidOperationError/);
    // The code depends on whether the client sees the link's error or its detach first.
    await assert.rejects(client.acceptSession('plain', 's'), (e) => ['SessionCannotBeLocked', 'GeneralError'].includes(e.code));
    const sender = client.createSender('plain');
    const limit = /exceeds the limit \(262144 bytes\)/;
    await fails(sender.sendMessages({ body: Buffer.alloc(300000) }), 'MessageSizeExceeded', limit);
    await sender.sendMessages({ body: 'small' }); // the link lives on
    assert.equal((await take(client.createReceiver('plain', destructive()), 1)).body, 'small');
  },

  async thousand_messages(client) {
    const total = 1000;
    const sender = client.createSender('plain');
    let batch = await sender.createMessageBatch();
    for (const body of numbers(total)) {
      if (batch.tryAddMessage({ body, messageId: `m${body}` })) continue;
      await sender.sendMessages(batch);
      batch = await sender.createMessageBatch();
      assert.ok(batch.tryAddMessage({ body, messageId: `m${body}` }));
    }
    await sender.sendMessages(batch);
    const receiver = client.createReceiver('plain');
    const seen = [];
    await new Promise((resolve, reject) => {
      receiver.subscribe({
        processMessage: async (m) => {
          await receiver.completeMessage(m);
          if (seen.push(m.body) === total) resolve();
        },
        processError: async ({ error }) => reject(error),
      }, { maxConcurrentCalls: 50, autoCompleteMessages: false });
    });
    assert.deepEqual(seen.sort((a, b) => a - b), numbers(total));
    await receiver.close();
  },
};

async function main() {
  for (const [name, step] of Object.entries(steps)) {
    const client = connect();
    const from = performance.now();
    await step(client).catch((e) => {
      throw new Error(`${name}: ${e.message}`, { cause: e });
    });
    await client.close();
    if (process.env.STEP_TIMES) console.error(name, Math.round(performance.now() - from), 'ms');
    console.log(name);
  }
}

main().then(() => process.exit(0), (e) => {
  console.error(e);
  process.exit(1);
});
