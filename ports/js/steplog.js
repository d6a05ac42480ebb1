// The steps of one locker, in the form that `kmutex check-trace` judges (specs/trace.md, "inside").
//
// A line is written in its step, and what it says of the key is looked up in the table after the step. A line that can't be
// written harms no lock: the recording stops for good, and `close` throws what has stopped it.

export class StepLog {
  #write;
  #look;
  #texts = new Map(); // live key -> its text
  #calls = 0;
  #strays = 0; // unlocks that were refused; their names are negative
  #lines = 0;
  #error;
  #closed = false;

  /** write: takes the text of a line, at once. */
  constructor(write) {
    this.#write = write;
    this.#put(() => `{"trace": 1, "recorded": "inside"}`);
  }

  /** For the locker, once. look: of a key, `{ refs, holder }` as the table has them, the holder by its ticket. */
  attach(look) {
    if (this.#look !== undefined) throw new Error("this log has the steps of another locker");
    this.#look = look;
  }

  /** The ticket has taken the key or joined its queue. This and all that follow are called in the step. */
  asks(key, ticket) {
    ticket.call = ++this.#calls;
    this.#line("request", key, ticket.call);
    if (this.#look(key)?.holder === ticket) this.#line("grant", key, ticket.call);
  }

  /** A try has found the key held. It was never in the queue, so the first line says nothing of that. */
  refused(key) {
    this.#line("request", key, ++this.#calls, { timeout: 0 }, false);
    this.#line("fail", key, this.#calls, { why: "refused" });
  }

  /** The ticket is in the queue no more. held: it had the key, which has gone on. */
  leaves(event, key, ticket, held, more = {}) {
    this.#line(event, key, ticket?.call ?? --this.#strays, more);
    const holder = held ? this.#look(key)?.holder : undefined;
    if (holder !== undefined && holder !== ticket) this.#line("grant", key, holder.call);
  }

  /** An unlock was refused; ticket: of the lease, where it was one. */
  unheld(key, ticket) {
    this.#line("unheld", key, ticket?.call ?? --this.#strays, ticket === undefined ? {} : { lease: true });
  }

  /** Writes the end, which says that all is idle: every call has returned, and every key is unlocked. */
  close(keys) {
    this.#put(() => JSON.stringify({ event: "end", keys, n: ++this.#lines }));
    this.#closed = true;
    if (this.#error !== undefined) throw this.#error;
  }

  #line(event, key, call, more = {}, look = true) {
    this.#put(() => {
      const { refs, holder } = this.#look(key) ?? { refs: 0 };
      const table = look ? { refs, holder: holder?.call } : {};
      const at = performance.now() / 1000;
      const line = JSON.stringify({ event, key: this.#text(key), call, ...more, ...table, at, n: ++this.#lines });
      if (look && refs === 0) this.#texts.delete(key);
      return line;
    });
  }

  // Two live keys have two texts, whatever they are.
  #text(key) {
    if (!this.#texts.has(key)) {
      const plain = typeof key === "string" && !key.startsWith("<") ? key.toWellFormed?.() ?? key : `<${typeof key}> ${String(key)}`;
      const used = new Set(this.#texts.values());
      let text = plain;
      for (let number = 2; used.has(text); number += 1) text = `<${number}> ${plain}`;
      this.#texts.set(key, text);
    }
    return this.#texts.get(key);
  }

  #put(line) {
    if (this.#error !== undefined || this.#closed) return;
    try {
      this.#write(`${line()}\n`);
    } catch (error) {
      this.#error = error;
    }
  }
}
