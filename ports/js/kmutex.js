// A keyed mutex for the tasks of one event loop: a mutex for each key, made on demand and gone when idle. The ids
// (KM-...) are the clauses of specs/contract.md.
//
// Nothing here awaits between two steps on the table, so the table needs no guard: one turn of the loop runs at a time.

/** Unlocking a key that nobody holds, or a lease that has ended (KM-UNHELD). */
export class UnheldKeyError extends Error {
  name = "UnheldKeyError";
}

/** The time was over before the grant (KM-CANCEL). Its name is that of the platform's own timeouts. */
export class LockTimeoutError extends Error {
  name = "TimeoutError";
}

/**
 * Keys are any values, equal as in a Map. Not re-entrant: who locks a key it holds waits for itself.
 *
 * An entry is a queue of tickets. Its head holds the key, the others wait, and its size is the reference count, so
 * there is no count that could differ from the queue (KM-REF), and to remove the head is to hand over (KM-HANDOFF).
 */
export class KeyedMutex {
  #entries = new Map();
  #log;

  /** record: a StepLog (steplog.js), which gets each step; none is written without. */
  constructor({ record } = {}) {
    this.#log = record;
    record?.attach((key) => {
      const queue = this.#entries.get(key);
      return queue && { refs: queue.size, holder: queue.head };
    });
  }

  /**
   * Resolves once the caller holds `key` (KM-EXCL), first come first served: the call itself queues, before the first
   * await (KM-FIFO).
   *
   * signal: an AbortSignal. Where it is aborted, before the call or in the wait, the promise rejects with its reason
   *   and the caller does not hold the key (KM-CANCEL). An abort after the grant comes too late: a promise settles
   *   once, so the call resolves and holds (KM-RACE, "keep").
   * timeout: milliseconds; 0 takes a free key and otherwise rejects at once (KM-EXPIRED). More than setTimeout can
   *   count, about 24.8 days, is for ever.
   * Rejects with LockTimeoutError, the signal's reason, or RangeError for a negative timeout or NaN. Then nothing has
   * changed (KM-ATOMIC).
   */
  async lock(key, options) {
    await this.#acquire(key, options);
  }

  /** As `lock`, and resolves to a Lease, which ends this grant only (KM-TOKEN). */
  async hold(key, options) {
    return new Lease(this.#release.bind(this, key, await this.#acquire(key, options), true));
  }

  /**
   * Releases `key`, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE).
   * Throws UnheldKeyError where nobody holds it; nothing has changed then (KM-UNHELD, KM-ATOMIC).
   */
  unlock(key) {
    this.#release(key, this.#entries.get(key)?.head);
  }

  /** Every live key with its counts, as a Map; empty when all are idle (KM-IDLE). */
  snapshot() {
    return new Map(
      Array.from(this.#entries, ([key, queue]) => [key, { refs: queue.size, waiters: queue.size - 1 }]),
    );
  }

  // No async function: asking and queueing are one step, so whoever unlocks next sees the ticket.
  #acquire(key, { signal, timeout = Infinity } = {}) {
    if (typeof timeout !== "number" || !(timeout >= 0)) {
      return Promise.reject(new RangeError(`a timeout is a number of ms, not negative: ${String(timeout)}`));
    }
    if (signal?.aborted) {
      return Promise.reject(signal.reason);
    }
    const queue = this.#entries.get(key);
    if (queue === undefined) {
      const ticket = new Ticket();
      this.#entries.set(key, new Queue(ticket));
      this.#log?.asks(key, ticket);
      return Promise.resolve(ticket);
    }
    if (timeout === 0) {
      this.#log?.refused(key);
      return Promise.reject(new LockTimeoutError("the key is held"));
    }
    return new Promise((resolve, reject) => {
      const ticket = new Ticket();
      let timer;
      const ended = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
      };
      const giveUp = (reason, why) => {
        ended();
        queue.remove(ticket);
        this.#log?.leaves("fail", key, ticket, false, { why });
        reject(reason);
      };
      const aborted = () => giveUp(signal.reason, "cancelled");
      // What is no signal throws here, before there is anything to undo.
      signal?.addEventListener("abort", aborted);
      if (timeout <= LONGEST) {
        timer = setTimeout(() => giveUp(new LockTimeoutError(`no grant within ${timeout} ms`), "timeout"), timeout);
      }
      // The grant stops the timer and the listener in its own step. So whoever gives up is still waiting, and the
      // queue he stands in is still the key's.
      ticket.grant = () => {
        ended();
        resolve(ticket);
      };
      queue.append(ticket);
      this.#log?.asks(key, ticket);
    });
  }

  #release(key, ticket, lease = false) {
    const queue = this.#entries.get(key);
    if (queue === undefined || queue.head !== ticket) {
      this.#log?.unheld(key, lease ? ticket : undefined);
      throw new UnheldKeyError(queue === undefined ? "nobody holds the key" : "this grant of the key has ended");
    }
    queue.remove(ticket);
    if (queue.size === 0) {
      this.#entries.delete(key);
    } else {
      queue.head.grant();
    }
    this.#log?.leaves("release", key, ticket, true, lease ? { lease } : {});
  }
}

/** One grant of one key. */
export class Lease {
  #release;

  constructor(release) {
    this.#release = release;
  }

  /** Ends the grant. Throws UnheldKeyError where it has ended; a later holder is not touched (KM-TOKEN). */
  release() {
    this.#release();
  }
}

const LONGEST = 2 ** 31 - 1; // what setTimeout takes; anything longer it would run at once

class Ticket {
  before = null;
  after = null;
  grant = null; // of a waiter
}

// A linked list: a waiter leaves from the middle in constant time. A Set would keep the order as well, but to find its
// head may mean to walk over the gaps of those who have left.
class Queue {
  size = 1;

  constructor(ticket) {
    this.head = this.tail = ticket;
  }

  append(ticket) {
    ticket.before = this.tail;
    this.tail.after = ticket;
    this.tail = ticket;
    this.size += 1;
  }

  remove(ticket) {
    if (ticket.before === null) this.head = ticket.after;
    else ticket.before.after = ticket.after;
    if (ticket.after === null) this.tail = ticket.before;
    else ticket.after.before = ticket.before;
    ticket.before = ticket.after = null; // a lease that is kept must not keep those who came later
    this.size -= 1;
  }
}
