import assert from "node:assert/strict";
import { test } from "node:test";

import { KeyedMutex, LockTimeoutError, UnheldKeyError } from "./kmutex.js";

// One turn of the loop: whatever was settled before has been told when it is over.
const turn = () => new Promise((resolve) => setImmediate(resolve));

// How a call ends, in words, in the order in which calls end.
function watched(log) {
  return (name, promise) =>
    promise.then(
      () => log.push(name),
      (error) => log.push(`${name}: ${error.name}`),
    );
}

const counts = (km) => Object.fromEntries(km.snapshot());

test("KM-IDLE, KM-REF: nothing is kept of a key that was unlocked", async () => {
  const km = new KeyedMutex();
  await km.lock("a");
  assert.deepEqual(counts(km), { a: { refs: 1, waiters: 0 } });
  km.unlock("a");
  assert.equal(km.snapshot().size, 0);
});

test("KM-FIFO, KM-HANDOFF: each unlock makes the oldest waiter the holder, before its call returns", async () => {
  const km = new KeyedMutex();
  const log = [];
  const watch = watched(log);
  await km.lock("a");
  for (const name of ["1", "2", "3"]) watch(name, km.lock("a"));
  for (const name of ["1", "2", "3"]) {
    km.unlock("a");
    watch("newcomer", km.lock("a", { timeout: 0 }));
    await turn();
    assert.deepEqual(log.splice(0).sort(), [name, "newcomer: TimeoutError"].sort());
  }
  km.unlock("a");
  assert.equal(km.snapshot().size, 0);
});

test("KM-CANCEL: a waiter leaves from the middle or the end, the others keep their order", async () => {
  const km = new KeyedMutex();
  const log = [];
  const watch = watched(log);
  await km.lock("a");
  const [second, fourth] = [new AbortController(), new AbortController()];
  watch("1", km.lock("a"));
  watch("2", km.lock("a", { signal: second.signal }));
  watch("3", km.lock("a"));
  watch("4", km.lock("a", { signal: fourth.signal }));
  second.abort();
  fourth.abort();
  watch("5", km.lock("a"));
  await turn();
  assert.deepEqual(log, ["2: AbortError", "4: AbortError"]);
  assert.deepEqual(counts(km), { a: { refs: 4, waiters: 3 } });
  for (let n = 0; n < 4; n++) {
    km.unlock("a");
    await turn();
  }
  assert.deepEqual(log.slice(2), ["1", "3", "5"]);
  assert.equal(km.snapshot().size, 0);
});

test("KM-CANCEL: a timeout in the wait", async () => {
  const km = new KeyedMutex();
  await km.lock("a");
  await assert.rejects(km.lock("a", { timeout: 1 }), LockTimeoutError);
  assert.deepEqual(counts(km), { a: { refs: 1, waiters: 0 } });
});

test("KM-RACE, keep: an abort after the grant comes too late, one before it is all there is", async () => {
  const km = new KeyedMutex();
  const log = [];
  const watch = watched(log);
  const controller = new AbortController();
  await km.lock("a");
  watch("1", km.lock("a", { signal: controller.signal }));
  watch("2", km.lock("a"));
  km.unlock("a");
  controller.abort(); // the call of 1 has not returned
  await turn();
  assert.deepEqual(log, ["1"]);
  assert.deepEqual(counts(km), { a: { refs: 2, waiters: 1 } });

  const other = new AbortController();
  watch("3", km.lock("a", { signal: other.signal }));
  km.unlock("a");
  other.abort();
  km.unlock("a");
  await turn();
  assert.deepEqual(log.slice(1).sort(), ["2", "3: AbortError"]);
  assert.equal(km.snapshot().size, 0);
});

test("KM-UNHELD, KM-ATOMIC: a stray unlock throws and leaves the key a mutex", async () => {
  const km = new KeyedMutex();
  assert.throws(() => km.unlock("a"), UnheldKeyError);
  await km.lock("a");
  await assert.rejects(km.lock("a", { timeout: 0 }), LockTimeoutError);
  km.unlock("a");
  assert.throws(() => km.unlock("a"), UnheldKeyError);
});

test("KM-EXPIRED, KM-ATOMIC: no time to wait, and times that are none", async () => {
  const km = new KeyedMutex();
  await km.lock("a", { timeout: 0 });
  await assert.rejects(km.lock("a", { timeout: 0 }), LockTimeoutError);
  for (const key of ["a", "free"]) {
    for (const timeout of [-1, NaN, -Infinity, "1", null]) {
      await assert.rejects(km.lock(key, { timeout }), RangeError);
    }
    await assert.rejects(km.lock(key, { signal: AbortSignal.abort() }), { name: "AbortError" });
  }
  await assert.rejects(km.lock("a", { signal: {}, timeout: 1 }), TypeError);
  await assert.rejects(km.lock("a", { timeout: 2 }), LockTimeoutError);
  assert.deepEqual(counts(km), { a: { refs: 1, waiters: 0 } });
});

test("KM-CANCEL: a timeout that setTimeout can't count does not end the wait at once", async () => {
  const km = new KeyedMutex();
  const log = [];
  await km.lock("a");
  for (const timeout of [2 ** 31, Infinity]) watched(log)("over", km.lock("a", { timeout }));
  await assert.rejects(km.lock("a", { timeout: 5 }), LockTimeoutError);
  assert.deepEqual(log, []);
});

test("KM-TOKEN: a lease ends its own grant, once", async () => {
  const km = new KeyedMutex();
  const old = await km.hold("a");
  km.unlock("a");
  assert.throws(() => old.release(), UnheldKeyError);
  const lease = await km.hold("a");
  assert.throws(() => old.release(), UnheldKeyError);
  assert.deepEqual(counts(km), { a: { refs: 1, waiters: 0 } });
  lease.release();
  assert.throws(() => lease.release(), UnheldKeyError);
  assert.equal(km.snapshot().size, 0);
});

test("KM-INDEP: other keys go on, whatever they are called", async () => {
  const km = new KeyedMutex();
  const log = [];
  await km.lock("a");
  watched(log)("waiter", km.lock("a"));
  const keys = ["", "__proto__", "constructor", 0, NaN, null, undefined, {}];
  for (const key of keys) await km.lock(key, { timeout: 0 });
  for (const key of keys) km.unlock(key);
  assert.deepEqual(log, []);
});

test("KM-EXCL, KM-LIVE: many tasks, a few keys, aborts among them", async () => {
  const km = new KeyedMutex();
  const inside = new Map();
  let entered = 0;
  let aborted = 0;
  const worker = async (w) => {
    for (let r = 0; r < 50; r++) {
      const key = (w + r) % 3;
      const controller = new AbortController();
      if ((w + r) % 2 === 0) setImmediate(() => controller.abort());
      try {
        await km.lock(key, { signal: controller.signal });
      } catch {
        aborted += 1;
        continue;
      }
      assert.equal(inside.get(key) ?? 0, 0);
      inside.set(key, 1);
      await turn();
      inside.set(key, 0);
      entered += 1;
      km.unlock(key);
    }
  };
  await Promise.all(Array.from({ length: 12 }, (_, w) => worker(w)));
  assert.equal(km.snapshot().size, 0);
  assert.equal(entered + aborted, 12 * 50);
  assert.ok(aborted > 0);
});
