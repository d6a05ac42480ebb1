// Plays specs/vectors.json in this process, by the words of specs/vectors.md: the library takes a right course through
// each, and each mistake of broken.js through not all. What many rounds say of times is not judged here.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { mistakes } from "./broken.js";
import { KeyedMutex, LockTimeoutError, UnheldKeyError } from "./kmutex.js";

const { format, vectors } = JSON.parse(readFileSync(new URL("../../specs/vectors.json", import.meta.url)));
const turn = () => new Promise((resolve) => setImmediate(resolve));

// One vector on one locker, with as many copies of it side by side as it says.
class Play {
  ended = new Map(); // call -> how, since the move began
  leases = new Map(); // call -> its key and lease
  open = new Map(); // key -> grants that were seen to return, less releases
  calls = new Map(); // call -> AbortController

  constructor(vector, locker) {
    this.locker = locker;
    this.moves = vector.moves;
    this.courses = Array.from({ length: vector.keys ?? 1 }, () => vector.courses);
  }

  // Undefined: it took a right course.
  async wrong(patience) {
    for (let move = 0; move < this.moves.length; move++) {
      const kept = [];
      const unlocks = this.courses.map((_, copy) => this.give(this.moves[move], copy, kept));
      const limit = Date.now() + patience;
      while (!this.settled(move, unlocks)) {
        if (Date.now() > limit) return `move ${move}: calls ${JSON.stringify([...this.ended])}, unlocks ${unlocks}`;
        await turn();
      }
      if (kept.some((call) => this.ended.get(call) === "cancelled")) return "a grant that was first is not kept";
      this.ended.clear();
    }
  }

  // Gives the commands of a move to one copy; what its unlocks said.
  give(commands, copy, kept) {
    const unlocks = [];
    let before;
    for (const { op, call: number, key: name } of commands) {
      const key = `${name}:${copy}:the-same-end-of-all-keys`;
      const call = `${copy}:${number}`;
      if (op === "lock") this.start(call, key, undefined);
      else if (op === "try") this.start(call, key, 0);
      else if (op === "cancel") {
        const counts = [...this.locker.snapshot().values()];
        // The lone waiter is the one that the unlock has granted the key.
        if (before === "unlock" && counts.length === 1 && counts[0].waiters === 0) kept.push(call);
        this.calls.get(call).abort();
      } else if (op === "unlock") unlocks.push(this.unlock(key, () => this.locker.unlock(key)));
      else if (op === "lease") {
        const held = this.leases.get(call);
        unlocks.push(held === undefined ? "unheld" : this.unlock(held.key, () => held.lease.release()));
      } else if (op === "free") {
        if (this.open.get(key) > 0) unlocks.push(this.unlock(key, () => this.locker.unlock(key)));
      } else assert.fail(`no command is called ${op}`);
      before = op;
    }
    return unlocks;
  }

  async start(call, key, timeout) {
    const controller = new AbortController();
    this.calls.set(call, controller);
    try {
      const lease = await this.locker.hold(key, { signal: controller.signal, timeout });
      this.leases.set(call, { key, lease });
      this.open.set(key, (this.open.get(key) ?? 0) + 1);
      this.ended.set(call, "granted");
    } catch (error) {
      this.ended.set(call, error instanceof LockTimeoutError ? "timeout" : "cancelled");
    }
  }

  unlock(key, call) {
    try {
      call();
    } catch (error) {
      if (error instanceof UnheldKeyError) return "unheld";
      throw error;
    }
    this.open.set(key, (this.open.get(key) ?? 0) - 1);
    return "released";
  }

  // Whether each copy shows what one of its courses has here; then the others are out of the question.
  settled(move, unlocks) {
    const seen = unlocks.map((unlocks) => ({ calls: {}, unlocks, table: {} }));
    for (const [call, how] of this.ended) {
      const [copy, number] = call.split(":");
      seen[copy].calls[number] = how;
    }
    for (const [key, counts] of this.locker.snapshot()) {
      const [name, copy] = key.split(":");
      seen[copy].table[name] = { ...counts };
    }
    const left = this.courses.map((courses, copy) =>
      courses.filter((course) => isDeepStrictEqual(course[move], seen[copy])),
    );
    if (left.some((courses) => courses.length === 0)) return false;
    this.courses = left;
    return true;
  }
}

// Undefined: each vector takes one of its courses. All features are there, so none is left out.
async function firstFailure(build, patience) {
  for (const vector of vectors) {
    for (let round = 0; round < (vector.rounds ?? 1); round++) {
      const wrong = await new Play(vector, build()).wrong(patience);
      if (wrong !== undefined) return `${vector.id}, round ${round}: ${wrong}`;
    }
  }
}

test("the library takes a right course through every vector", async () => {
  assert.equal(format, "kmutex-vectors/2");
  assert.equal(await firstFailure(() => new KeyedMutex(), 60_000), undefined);
});

for (const [name, { build }] of Object.entries(mistakes)) {
  test(`${name} does not`, async () => {
    assert.notEqual(await firstFailure(build, 1_000), undefined);
  });
}
