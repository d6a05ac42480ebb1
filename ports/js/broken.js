// Lockers that are wrong in one way each, as they go wrong in JavaScript. Each writes a method of `Sound` again.

import { LockTimeoutError, UnheldKeyError } from "./kmutex.js";

// What the mistakes are made in: the usual shape, with a count beside an array of waiters. It has none itself, and
// conforms: else one could be found for what is wrong with the locker that it is made in.
export class Sound {
  entries = new Map(); // key -> { refs, holder, waiters }

  async hold(key, { signal, timeout } = {}) {
    signal?.throwIfAborted();
    if (timeout === 0 && this.entries.get(key)?.holder !== undefined) throw new LockTimeoutError();
    const ticket = { signal, timeout };
    if (!this.request(key, ticket)) await this.turn(key, ticket);
    return { release: () => this.release(key, ticket) };
  }

  unlock(key) {
    this.release(key, this.entries.get(key)?.holder);
  }

  snapshot() {
    return new Map(
      Array.from(this.entries, ([key, { refs, waiters }]) => [key, { refs, waiters: waiters.length }]),
    );
  }

  // True: the ticket holds. False: it is queued.
  request(key, ticket) {
    if (!this.entries.has(key)) this.entries.set(key, { refs: 0, holder: undefined, waiters: [] });
    const entry = this.entries.get(key);
    entry.refs += 1;
    if (entry.holder === undefined) entry.holder = ticket;
    else entry.waiters.push(ticket);
    return entry.holder === ticket;
  }

  // Resolves at the grant, rejects at an abort or the end of the time limit before it.
  turn(key, ticket) {
    return new Promise((resolve, reject) => {
      const giveUp = (reason) => {
        if (this.leave(key, ticket)) reject(reason);
      };
      ticket.grant = resolve;
      ticket.signal?.addEventListener("abort", () => giveUp(ticket.signal.reason));
      if (ticket.timeout !== undefined) setTimeout(() => giveUp(new LockTimeoutError()), ticket.timeout);
    });
  }

  // False: it does not wait (any more).
  leave(key, ticket) {
    const entry = this.entries.get(key);
    const place = entry?.waiters.indexOf(ticket) ?? -1;
    if (place < 0) return false;
    entry.waiters.splice(place, 1);
    this.drop(key, entry);
    return true;
  }

  release(key, ticket) {
    const entry = this.entries.get(key);
    if (entry === undefined || ticket === undefined || entry.holder !== ticket) throw new UnheldKeyError();
    this.pass(key, entry);
  }

  pass(key, entry) {
    entry.holder = this.next(entry);
    entry.holder?.grant();
    this.drop(key, entry);
  }

  next(entry) {
    return entry.waiters.shift();
  }

  drop(key, entry) {
    entry.refs -= 1;
    if (entry.refs === 0) this.entries.delete(key);
  }
}

// Takes the entry out of the Map at each unlock, although others wait in it.
class DeletesOnUnlock extends Sound {
  release(key, ticket) {
    super.release(key, ticket);
    this.entries.delete(key);
  }
}

// Rejects the promise of an aborted call and leaves its resolver in the array; it is granted later, to nobody.
class AbortedStaysQueued extends Sound {
  turn(key, ticket) {
    return new Promise((resolve, reject) => {
      ticket.grant = resolve;
      ticket.signal?.addEventListener("abort", () => reject(ticket.signal.reason));
    });
  }
}

// Counts down after the await, which an aborted call never gets to: there is no finally.
class AbortKeepsRef extends Sound {
  leave(key, ticket) {
    const left = super.leave(key, ticket);
    if (left) this.entries.get(key).refs += 1;
    return left;
  }
}

// Looks at the signal once more after the await, and throws with the grant in hand: nobody else is woken.
class ThrowsWithTheGrant extends Sound {
  async turn(key, ticket) {
    await super.turn(key, ticket);
    ticket.signal?.throwIfAborted();
  }
}

// Takes the next waiter with pop(), which is shorter than shift() and faster.
class PopsTheNewest extends Sound {
  next(entry) {
    return entry.waiters.pop();
  }
}

// `while (held) await change`: an unlock frees the key and wakes all, and whoever runs first has it.
class ChecksThenAwaits extends Sound {
  async hold(key, { signal, timeout } = {}) {
    const ticket = { signal };
    if (!this.entries.has(key)) this.entries.set(key, { refs: 0, holder: undefined, waiters: [] });
    const entry = this.entries.get(key);
    entry.refs += 1;
    while (entry.holder !== undefined) {
      if (timeout === 0) {
        this.drop(key, entry);
        throw new LockTimeoutError();
      }
      if (signal?.aborted) {
        this.drop(key, entry);
        throw signal.reason;
      }
      entry.waiters.push(ticket);
      await this.turn(key, ticket);
    }
    entry.holder = ticket;
    return { release: () => this.release(key, ticket) };
  }

  pass(key, entry) {
    entry.holder = undefined;
    for (const ticket of entry.waiters.splice(0)) ticket.grant();
    this.drop(key, entry);
  }
}

// `this.entries.get(key)?.release()`: the question mark makes nothing of a key that nobody holds.
class OptionalChaining extends Sound {
  unlock(key) {
    if (this.entries.has(key)) super.unlock(key);
  }
}

// Keeps every entry: a Map that only grows, or a WeakMap that can't take strings.
class NeverDeletes extends Sound {
  drop(key, entry) {
    entry.refs -= 1;
  }
}

// A try that is refused has been counted already.
class RefusedTryKeepsRef extends Sound {
  async hold(key, { signal, timeout } = {}) {
    const entry = this.entries.get(key);
    if (timeout === 0 && entry?.holder !== undefined) {
      entry.refs += 1;
      throw new LockTimeoutError();
    }
    return super.hold(key, { signal, timeout });
  }
}

// The lease remembers the key and not the grant.
class LeaseUnlocksByKey extends Sound {
  async hold(key, options) {
    await super.hold(key, options);
    return { release: () => this.unlock(key) };
  }
}

// One chain of promises for all keys.
class OneChain extends Sound {
  chain = new Sound();

  async hold(key, options) {
    const entry = this.entries.get(key) ?? { refs: 0, waiters: [] };
    this.entries.set(key, entry);
    entry.refs += 1;
    entry.waiters.push(options);
    try {
      const lease = await this.chain.hold("all", options);
      entry.lease = lease;
      return { release: () => this.releaseOf(key, lease) };
    } catch (error) {
      this.drop(key, entry);
      throw error;
    } finally {
      entry.waiters.splice(entry.waiters.indexOf(options), 1);
    }
  }

  unlock(key) {
    this.releaseOf(key, this.entries.get(key)?.lease);
  }

  releaseOf(key, lease) {
    const entry = this.entries.get(key);
    if (lease === undefined || entry?.lease !== lease) throw new UnheldKeyError();
    lease.release();
    entry.lease = undefined;
    this.drop(key, entry);
  }
}

const of = (Locker, clauses) => ({ clauses, build: () => new Locker() });

// clauses: any of them is a right name for the mistake, the first is the best.
export const mistakes = {
  "deletes-on-unlock": of(DeletesOnUnlock, "KM-REF,KM-EXCL,KM-UNHELD"),
  "aborted-stays-queued": of(AbortedStaysQueued, "KM-CANCEL,KM-REF,KM-LIVE,KM-RACE"),
  "abort-keeps-ref": of(AbortKeepsRef, "KM-REF,KM-CANCEL,KM-IDLE"),
  "throws-with-the-grant": of(ThrowsWithTheGrant, "KM-RACE,KM-LIVE"),
  "pops-the-newest": of(PopsTheNewest, "KM-FIFO,KM-HANDOFF"),
  "checks-then-awaits": of(ChecksThenAwaits, "KM-HANDOFF,KM-FIFO"),
  "optional-chaining": of(OptionalChaining, "KM-UNHELD"),
  "never-deletes": of(NeverDeletes, "KM-IDLE"),
  "refused-try-keeps-ref": of(RefusedTryKeepsRef, "KM-EXPIRED,KM-REF,KM-ATOMIC,KM-IDLE"),
  "lease-unlocks-by-key": of(LeaseUnlocksByKey, "KM-TOKEN"),
  "one-chain": of(OneChain, "KM-INDEP,KM-EXPIRED"),
};
