#!/usr/bin/env node
// Drives one locker by the adapter protocol, version 1 (specs/protocol.md).
//
//   adapter.js                 the module kmutex.js
//   adapter.js --broken NAME   a locker with one mistake (broken.js), or with none: the one that they are made in
//   adapter.js --list-broken   NAME KM-XXX[,KM-YYY], a line for each

import { writeSync } from "node:fs";

import { Sound, mistakes } from "./broken.js";
import { KeyedMutex, LockTimeoutError, UnheldKeyError } from "./kmutex.js";

const MAX_LINE = 65536;
const FEATURES = ["fifo", "cancel", "keep", "try", "lease", "unheld", "stat", "done", "refuse", "deadline"];

// The adapter can't answer a line whose id it does not know, so it says what is wrong and ends.
function fail(message) {
  console.error(`adapter: ${message}`);
  process.exit(2);
}

function say(reply) {
  // Synchronous, so that nothing is left in a buffer at the exit. A pipe that is full for the moment says EAGAIN.
  let line = Buffer.from(JSON.stringify(reply) + "\n");
  while (line.length > 0) {
    try {
      line = line.subarray(writeSync(1, line));
    } catch (error) {
      if (error.code !== "EAGAIN") fail(error.message);
    }
  }
}

// What one reset begins. A call of an older session keeps its own locker, and can disturb no later one.
class Session {
  #calls = new Map(); // id of a lock -> AbortController, until it has ended
  #leases = new Map(); // id of a lock -> Lease, from its grant on

  constructor(locker) {
    this.locker = locker;
  }

  obey({ op, id, key, timeout, done, call, lease }) {
    const hasKey = typeof key === "string";
    if (op === "lock" && hasKey && (timeout === undefined || (Number.isInteger(timeout) && timeout >= 0))) {
      this.#lock(id, key, timeout, done);
    } else if (op === "unlock" && hasKey) {
      say(this.#unlock(id, key, lease));
    } else if (op === "cancel" && typeof call === "number") {
      this.#calls.get(call)?.abort();
      say({ id, result: "ok" });
    } else if (op === "stat") {
      // fromEntries makes an own property of every key; an assignment to keys["__proto__"] would not.
      say({ id, keys: Object.fromEntries(this.locker.snapshot()) });
    } else {
      say(failed(id, `no such command, or a field of it is missing or wrong: ${JSON.stringify(op)}`));
    }
  }

  // hold() asks before its first await, so the calls stand in the queue in the order of their commands.
  async #lock(id, key, timeout, done) {
    const controller = new AbortController();
    if (done) controller.abort();
    this.#calls.set(id, controller);
    let reply = { id, result: "granted" };
    try {
      this.#leases.set(id, await this.locker.hold(key, { signal: controller.signal, timeout }));
    } catch (error) {
      if (error instanceof LockTimeoutError) reply = { id, result: "timeout" };
      else if (error?.name === "AbortError") reply = { id, result: "cancelled" };
      else reply = failed(id, String(error));
    }
    this.#calls.delete(id);
    say(reply);
  }

  #unlock(id, key, lease) {
    try {
      if (lease === undefined) this.locker.unlock(key);
      else if (this.#leases.has(lease)) this.#leases.get(lease).release();
      else return { id, result: "unheld" };
      return { id, result: "released" };
    } catch (error) {
      return error instanceof UnheldKeyError ? { id, result: "unheld" } : failed(id, String(error));
    }
  }
}

function failed(id, message) {
  return { id, result: "error", message };
}

function parse(line) {
  let command;
  try {
    command = JSON.parse(line);
  } catch (error) {
    fail(`not a command: ${error.message}`);
  }
  if (typeof command?.id !== "number") fail("a command without an id");
  return command;
}

function serve(name, build) {
  let session = null;
  let rest = Buffer.alloc(0);

  const obey = (command) => {
    const { op, id, protocol } = command;
    if (op === "hello" && protocol === 1) {
      say({ id, protocol: 1, name, features: FEATURES });
    } else if (op === "reset") {
      session = new Session(build());
      say({ id, result: "ok" });
    } else if (op === "bye") {
      // A call that has ended by now is answered first: its reply waits for the end of this turn.
      setImmediate(() => {
        say({ id, result: "ok" });
        process.exit(0);
      });
    } else if (session === null) {
      say(failed(id, "the first commands are hello, with protocol 1, and reset"));
    } else {
      session.obey(command);
    }
  };

  process.stdin.on("data", (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf("\n"); end >= 0; end = rest.indexOf("\n")) {
      if (end >= MAX_LINE) break;
      const line = rest.subarray(0, end).toString("utf8");
      rest = rest.subarray(end + 1);
      obey(parse(line));
    }
    if (rest.length >= MAX_LINE) fail(`a line of more than ${MAX_LINE} bytes`);
  });
  // Calls that still wait are nobody's any more.
  process.stdin.on("end", () => process.exit(0));
}

const [option, name] = process.argv.slice(2);
if (option === undefined) {
  serve("kmutex-js", () => new KeyedMutex());
} else if (option === "--list-broken") {
  for (const [name, { clauses }] of Object.entries(mistakes)) console.log(name, clauses);
} else if (option === "--broken" && name === "none") {
  serve("kmutex-js (broken: none)", () => new Sound());
} else if (option === "--broken" && Object.hasOwn(mistakes, name ?? "")) {
  serve(`kmutex-js (broken: ${name})`, mistakes[name].build);
} else {
  fail("usage: adapter.js [--list-broken | --broken NAME]");
}
