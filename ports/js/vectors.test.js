// The vectors of the release (specs/player.md), played on the lock itself: no kmutex, no adapter.
//
// KMUTEX_VECTORS names the file; without it, it is the one of this repository.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isDeepStrictEqual } from "node:util";

import { Sound, mistakes } from "./broken.js";
import { KeyedMutex, LockTimeoutError, UnheldKeyError } from "./kmutex.js";

const FEATURES = new Set(["fifo", "cancel", "keep", "try", "lease", "unheld", "stat", "done", "refuse", "deadline"]);
const ASKING = new Set(["lock", "try", "done", "limit"]);
const FILE = process.env.KMUTEX_VECTORS ?? new URL("../../specs/vectors.json", import.meta.url);
const TIMEOUT = 2000; // ms without anything new, until a move has failed; a right lock is never waited for so long
const MEETINGS = 10; // cancels behind a grant, before it counts that none was taken
const SLOWER = 25; // times as long as a granted try

const file = JSON.parse(readFileSync(FILE, "utf8"));
const vectors = file.vectors.filter((vector) => vector.needs.every((feature) => FEATURES.has(feature)));

const turn = () => new Promise(setImmediate);

class Player {
  calls = new Map(); // number -> { key, how, abort, lease, asked, took }
  granted = new Map(); // key -> grants that no unlock has ended
  met = [];

  constructor(locker, vector) {
    this.locker = locker;
    this.vector = spread(vector);
  }

  // Resolves to what is wrong, or to nothing.
  async play() {
    let courses = declared(this.vector);
    for (const [number, move] of this.vector.moves.entries()) {
      this.seen = { calls: {}, unlocks: [], table: {} };
      const waiting = [...this.calls].filter(([, call]) => call.how === undefined).map(([name]) => name);
      for (const command of move) this.give(command, move.length === 1);
      const late = this.meeting(move, waiting);
      let shown;
      const [{ ms = 0 }] = move; // a limit of no more than a second is over in its move
      for (let quiet = performance.now() + (ms <= 1000 ? ms : 0), before = ""; ; ) {
        await turn();
        this.seen.table = Object.fromEntries(this.locker.snapshot());
        shown = JSON.stringify(this.seen);
        const fitting = courses.filter((course) => isDeepStrictEqual(course[number], this.seen));
        if (fitting.length > 0) {
          courses = fitting;
          break;
        }
        if (shown !== before) [before, quiet] = [shown, performance.now()];
        if (performance.now() - quiet > TIMEOUT) return `move ${number} of ${this.vector.id} showed ${shown}`;
      }
      if (late) this.met.push(this.calls.get(late.call).how);
    }
  }

  give({ op, call, key, ms }, alone) {
    if (ASKING.has(op)) this.lock(call, key, { op, timeout: op === "try" ? 0 : ms, alone });
    else if (op === "cancel") this.calls.get(call).abort.abort();
    else if (op === "lease") this.release(this.calls.get(call));
    else if (op === "unlock" || this.granted.get(key) > 0) this.unlock(key, () => this.locker.unlock(key));
  }

  async lock(number, key, { op, timeout, alone }) {
    const call = { key, abort: new AbortController(), asked: performance.now() };
    this.calls.set(number, call);
    if (op === "done") call.abort.abort();
    try {
      call.lease = await this.locker.hold(key, { signal: call.abort.signal, timeout });
      call.how = "granted";
      this.granted.set(key, (this.granted.get(key) ?? 0) + 1);
    } catch (error) {
      if (error instanceof LockTimeoutError) call.how = "timeout";
      else call.how = error?.name === "AbortError" ? "cancelled" : String(error);
    }
    const took = performance.now() - call.asked;
    if (op === "try" && alone) call.took = took;
    if (op === "limit" && call.how === "timeout" && took < 0.9 * timeout) call.how = "timeout before its time";
    this.seen.calls[number] = call.how; // of the move in which it ends
  }

  release({ key, lease }) {
    if (lease === undefined) this.seen.unlocks.push("unheld"); // a grant that it never had
    else this.unlock(key, () => lease.release());
  }

  unlock(key, release) {
    try {
      release();
      this.granted.set(key, (this.granted.get(key) ?? 0) - 1);
      this.seen.unlocks.push("released");
    } catch (error) {
      this.seen.unlocks.push(error instanceof UnheldKeyError ? "unheld" : String(error));
    }
  }

  // The cancel of a move that is an unlock and a cancel of the one call that waits for its key.
  meeting(move, waiting) {
    const [first, second] = move;
    const meets = move.length === 2 && first.op === "unlock" && second.op === "cancel" && waiting.length === 1;
    return meets && waiting[0] === second.call && this.calls.get(second.call).key === first.key ? second : undefined;
  }
}

// The courses that a lock with these features may take: an early cancel of a free key is refused.
function declared({ moves, courses }) {
  const early = [...moves.entries()].filter(([, [{ op }]]) => op === "done");
  return courses.filter((course) => early.every(([number, [{ call }]]) => course[number].calls[call] !== "granted"));
}

// The same case on `keys` keys at once (specs/vectors.md).
function spread(vector) {
  if (vector.keys === undefined) return vector;
  const made = vector.moves.flat().filter(({ op }) => ASKING.has(op)).length;
  const names = keyNames(vector.keys);
  const name = (key, copy) => (key === "a" ? names[copy] : `${key}:${names[copy]}`);
  const copies = [...names.keys()];
  const moves = vector.moves.map((move) =>
    copies.flatMap((copy) =>
      move.map((command) => ({
        ...command,
        call: copy * made + command.call,
        key: command.key === undefined ? undefined : name(command.key, copy),
      })),
    ),
  );
  const course = vector.courses[0].map(({ calls, unlocks, table }) => ({
    calls: Object.fromEntries(
      copies.flatMap((copy) => Object.entries(calls).map(([call, how]) => [copy * made + Number(call), how])),
    ),
    unlocks: copies.flatMap(() => unlocks),
    table: Object.fromEntries(
      copies.flatMap((copy) => Object.entries(table).map(([key, counts]) => [name(key, copy), counts])),
    ),
  }));
  return { ...vector, moves, courses: [course] };
}

// Keys that are easily taken for each other.
function keyNames(count) {
  const odd = ["a", "A", "a ", "", " ", "aa", "\u00e9", "e\u0301", "__proto__", "constructor", "0", "00"];
  const more = Array.from({ length: Math.max(0, count - odd.length) }, (_, number) => `${number}`.padEnd(64, "x"));
  return [...odd, ...more].slice(0, count);
}

const median = (numbers) => numbers.sort((one, other) => one - other)[Math.floor(numbers.length / 2)];

async function play(vector, build) {
  const met = [];
  const took = { granted: [], timeout: [] };
  for (let round = 0; round < (vector.rounds ?? 1); round += 1) {
    const player = new Player(build(), vector);
    const wrong = await player.play();
    if (wrong !== undefined) return wrong;
    met.push(...player.met);
    for (const call of player.calls.values()) if (call.took !== undefined) took[call.how].push(call.took);
  }
  if (FEATURES.has("keep") && met.includes("cancelled")) return `${vector.id}: a grant was given up, and "keep" declared`;
  if (FEATURES.has("pass") && met.length >= MEETINGS && !met.includes("cancelled")) return `${vector.id}: "pass" is declared`;
  const tries = Math.min(took.granted.length, took.timeout.length);
  if (tries >= 5 && Math.min(...took.timeout) > SLOWER * Math.max(1, median(took.granted))) return `${vector.id}: slow tries`;
}

test("the vectors are these", () => {
  assert.equal(file.format, "kmutex-vectors/2");
  assert.ok(vectors.length > 500);
});

for (const Locker of [KeyedMutex, Sound]) {
  test(`${Locker.name} takes a course of each vector`, async () => {
    for (const vector of vectors) assert.equal(await play(vector, () => new Locker()), undefined);
  });
}

for (const [name, { clauses, build }] of Object.entries(mistakes)) {
  test(`${name} fails in a vector of ${clauses}`, async () => {
    const right = clauses.split(",");
    for (const vector of vectors) {
      if (!vector.clauses.some((clause) => right.includes(clause))) continue;
      if ((await play(vector, build)) !== undefined) return;
    }
    assert.fail("it takes a course of each");
  });
}
