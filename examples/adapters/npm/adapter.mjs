#!/usr/bin/env node
// The adapter of keyed locks from npm, as they are.
//
//   adapter.mjs async-lock | async-mutex | async-await-mutex-lock
//
// It is started where they are installed. `stat` reads the packages' own maps, which they do not show.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(join(process.cwd(), "adapter.mjs"));
const name = process.argv[2];
const version = () => JSON.parse(readFileSync(join("node_modules", name, "package.json"), "utf8")).version;
const row = (held, waiters) => ({ refs: Number(held) + waiters, waiters });

// lock(key, granted, limit) says granted() when it holds, and rejects with what isTimeout(error) knows after `limit`
// milliseconds; unlock(key) is false where nobody holds.
const lockers = {
  // A key is held until the promise that the work returns is settled.
  "async-lock": class {
    features = ["fifo", "stat", "deadline"];
    constructor() {
      this.locks = new (require("async-lock"))();
      this.ends = new Map();
    }
    lock(key, granted, limit) {
      const work = () => new Promise((end) => (this.ends.set(key, end), granted()));
      return this.locks.acquire(key, work, { timeout: limit });
    }
    isTimeout(error) {
      return error.message.startsWith("async-lock timed out");
    }
    unlock(key) {
      const end = this.ends.get(key);
      this.ends.delete(key);
      end?.();
      return end !== undefined;
    }
    stat() {
      return Object.entries(this.locks.queues).map(([key, queue]) => [key, row(true, queue.length)]);
    }
  },
  // Not keyed: a Mutex for each key in a Map, as its users have it.
  "async-mutex": class {
    features = ["fifo", "try", "deadline"];
    constructor() {
      this.module = require("async-mutex");
      this.mutexes = new Map();
    }
    mutex(key) {
      if (!this.mutexes.has(key)) this.mutexes.set(key, new this.module.Mutex());
      return this.mutexes.get(key);
    }
    lock(key, granted, limit) {
      const mutex = this.mutex(key);
      return (limit ? this.module.withTimeout(mutex, limit) : mutex).acquire().then(granted);
    }
    isTimeout(error) {
      return error === this.module.E_TIMEOUT;
    }
    async try(key) {
      try {
        await this.module.tryAcquire(this.mutex(key)).acquire();
        return true;
      } catch (error) {
        if (error === this.module.E_ALREADY_LOCKED) return false;
        throw error;
      }
    }
    unlock(key) {
      const held = this.mutex(key).isLocked();
      this.mutex(key).release();
      return held;
    }
  },
  "async-await-mutex-lock": class {
    features = ["fifo", "unheld", "stat"];
    constructor() {
      this.locks = new (require("async-await-mutex-lock").Lock)();
    }
    lock(key, granted) {
      return this.locks.acquire(key).then(granted);
    }
    unlock(key) {
      try {
        this.locks.release(key);
        return true;
      } catch {
        return false;
      }
    }
    stat() {
      const rows = new Map();
      const waiting = (key) => this.locks.waitingMap.get(key)?.length ?? 0;
      for (const [key, held] of this.locks._acquiredMap) rows.set(key, row(held, waiting(key)));
      // The empty text counts as no key, which has a lock of its own.
      if (this.locks._isAcquired) rows.set("", row(true, this.locks.waitingList.length));
      return [...rows];
    }
  },
};

const say = (reply) => process.stdout.write(JSON.stringify(reply) + "\n");

if (!Object.hasOwn(lockers, name)) {
  console.error(`adapter: name one of ${Object.keys(lockers).join(", ")}`);
  process.exit(2);
}
let locker = new lockers[name]();
for await (const line of createInterface({ input: process.stdin })) {
  const { op, id, key, timeout } = JSON.parse(line);
  const result = (word) => say({ id, result: word });
  const failed = (error) => say({ id, result: "error", message: String(error) });
  if (op === "hello") say({ id, protocol: 1, name: `${name} ${version()}`, features: locker.features });
  else if (op === "reset") (locker = new lockers[name]()), result("ok");
  else if (op === "lock" && timeout === 0) locker.try(key).then((got) => result(got ? "granted" : "timeout"), failed);
  else if (op === "lock") {
    const ended = (error) => (locker.isTimeout?.(error) ? result("timeout") : failed(error));
    locker.lock(key, () => result("granted"), timeout).catch(ended);
  } else if (op === "unlock") result(locker.unlock(key) ? "released" : "unheld");
  else if (op === "stat") say({ id, keys: Object.fromEntries(locker.stat()) });
  else if (op === "bye") result("ok"), process.exit(0);
  else failed(`no command is called ${op}`);
}
