// The logs go to the folder that KMUTEX_LOGS names, for `kmutex check-trace`: sound.ndjson, and for some mistakes of
// broken.js one that is called by the clause that it must be convicted by. tests/ports/test_ports_logs.py has them judged.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { test } from "node:test";

import { mistakes } from "./broken.js";
import { KeyedMutex } from "./kmutex.js";
import { StepLog } from "./steplog.js";

const turn = () => new Promise(setImmediate);

function kept(name, said) {
  if (process.env.KMUTEX_LOGS !== undefined) writeFileSync(`${process.env.KMUTEX_LOGS}/${name}.ndjson`, said.join(""));
}

// One of each thing that a clause is about; leases: whether to end an old one.
async function everyClause(km, { leases = true } = {}) {
  const abort = new AbortController();
  const ended = [];
  const ask = (options) => km.hold("a", options).then(() => ended.push("granted"), (error) => ended.push(error.name));
  await km.hold("other");
  const old = await km.hold("a");
  ask({ signal: abort.signal });
  ask();
  ask();
  abort.abort();
  await turn();
  await ask({ timeout: 0 });
  for (let round = 0; round < 3; round += 1) {
    km.unlock("a");
    await turn();
  }
  assert.throws(() => km.unlock("a"), { name: "UnheldKeyError" });
  if (leases) assert.throws(() => old.release(), { name: "UnheldKeyError" });
  km.unlock("other");
  return ended;
}

test("KM-EXCL to KM-LIVE: the steps are recorded, and so is a crowd", async () => {
  const said = [];
  const record = new StepLog((line) => said.push(line));
  const km = new KeyedMutex({ record });
  assert.deepEqual(await everyClause(km), ["AbortError", "TimeoutError", "granted", "granted"]);
  await assert.doesNotReject(km.hold("a").then(async (lease) => {
    await assert.rejects(km.lock("a", { timeout: 1 }), { name: "TimeoutError" });
    lease.release();
  }));
  const keys = ["a", "<string> 1", 1, "1", Symbol("1"), "\ud800"];
  await Promise.all(
    Array.from({ length: 300 }, async (_, client) => {
      const key = keys[client % keys.length];
      const lease = await km.hold(key);
      await turn();
      if (client % 2) lease.release();
      else km.unlock(key);
    }),
  );
  record.close(km.snapshot().size);
  assert.ok(said.length > 900);
  assert.ok(said.at(-1).startsWith('{"event":"end","keys":0'));
  kept("sound", said);
});

test("a line that can't be written harms nobody", async () => {
  const record = new StepLog(() => {
    throw new Error("no space is left");
  });
  const km = new KeyedMutex({ record });
  await km.lock("a");
  km.unlock("a");
  assert.equal(km.snapshot().size, 0);
  assert.throws(() => record.close(0), { message: "no space is left" });
  assert.throws(() => new KeyedMutex({ record }), { message: /another locker/ });
});

// The mistakes that are made in the steps of the table themselves, not in what is said of them.
const CONVICTED = {
  "deletes-on-unlock": "KM-HANDOFF",
  "abort-keeps-ref": "KM-ATOMIC",
  "pops-the-newest": "KM-FIFO",
  "never-deletes": "KM-IDLE",
};
for (const [name, clause] of Object.entries(CONVICTED)) {
  test(`the steps of ${name} are recorded as they are`, async () => {
    const said = [];
    const log = new StepLog((line) => said.push(line));
    const km = mistakes[name].build();
    log.attach((key) => km.entries.get(key));
    const { request, leave, release } = Object.getPrototypeOf(km);
    km.request = (key, ticket) => {
      const took = request.call(km, key, ticket);
      log.asks(key, ticket);
      return took;
    };
    km.leave = (key, ticket) => {
      const left = leave.call(km, key, ticket);
      if (left) log.leaves("fail", key, ticket, false, { why: "cancelled" });
      return left;
    };
    km.release = (key, ticket) => {
      release.call(km, key, ticket);
      log.leaves("release", key, ticket, true);
    };
    await everyClause(km, { leases: false }).catch(() => {});
    log.close(km.entries.size);
    kept(clause, said);
  });
}
