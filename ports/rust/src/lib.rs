//! A keyed mutex for threads: a mutex for each key, made on demand and gone when idle. The ids (KM-...) are the clauses
//! of specs/contract.md.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

type Ticket = u64;

/// An entry: its tickets, oldest first, since tickets are counted up under the guard. The first holds the key, the
/// others wait, and its length is the reference count, so there is no count that could differ from the queue (KM-REF),
/// and to remove the first is to hand over (KM-HANDOFF). A ticket that was granted at once has no waiter.
///
/// std has no list from whose middle one can take an element; a waiter leaves this map in O(log n).
type Queue = BTreeMap<Ticket, Option<Arc<Waiter>>>;

/// A mutex for each key. Not re-entrant: a thread that locks a key it holds waits for itself.
#[derive(Default)]
pub struct KeyedMutex {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: Ticket,
    entries: HashMap<String, Queue>,
}

/// A call that waits: whom to wake, and what to tell him.
struct Waiter {
    thread: Thread,
    granted: AtomicBool,
}

/// What ends a wait from outside. The default waits for ever.
#[derive(Clone, Copy, Default)]
pub struct Limits<'a> {
    /// Zero takes a free key and otherwise gives up at once (KM-EXPIRED).
    pub timeout: Option<Duration>,
    pub cancel: Option<&'a CancelToken>,
}

/// Why a call of lock does not hold the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaveUp {
    TimedOut,
    Cancelled,
}

/// Nobody holds the key, or the grant has ended (KM-UNHELD).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unheld;

/// What one live key has at one moment: `refs` are its holder and its waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub refs: usize,
    pub waiters: usize,
}

impl KeyedMutex {
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns once the caller holds `key` (KM-EXCL), first come first served (KM-FIFO).
    pub fn lock(&self, key: &str) {
        let waited = self.acquire(key, Limits::default());
        debug_assert!(waited.is_ok(), "nothing ends a wait without limits");
    }

    /// As `lock`, for `timeout` at most.
    pub fn lock_timeout(&self, key: &str, timeout: Duration) -> Result<(), GaveUp> {
        self.lock_within(key, Limits { timeout: Some(timeout), cancel: None })
    }

    /// As `lock`, until one of the limits ends the wait; then the caller does not hold the key (KM-CANCEL). Limits end
    /// a wait only: a free key is taken also with a token that is cancelled. A grant that came before the caller could
    /// leave the queue is kept, so the call returns `Ok` although it was told to give up (KM-RACE, "keep").
    pub fn lock_within(&self, key: &str, limits: Limits) -> Result<(), GaveUp> {
        self.acquire(key, limits).map(|_| ())
    }

    /// As `lock_within`, and returns a lease, which ends this grant only, when it is dropped at the latest (KM-TOKEN).
    pub fn hold(self: &Arc<Self>, key: &str, limits: Limits) -> Result<Lease, GaveUp> {
        let ticket = self.acquire(key, limits)?;
        Ok(Lease { mutex: Arc::clone(self), key: key.to_owned(), ticket })
    }

    /// Releases `key`, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE). `Unheld` where
    /// nobody holds it; nothing has changed then (KM-UNHELD, KM-ATOMIC).
    pub fn unlock(&self, key: &str) -> Result<(), Unheld> {
        self.release(key, None)
    }

    /// Every live key; empty when all are idle (KM-IDLE).
    pub fn snapshot(&self) -> HashMap<String, Counts> {
        let table = self.guard();
        let counts = |queue: &Queue| Counts { refs: queue.len(), waiters: queue.len() - 1 };
        table.entries.iter().map(|(key, queue)| (key.clone(), counts(queue))).collect()
    }

    fn acquire(&self, key: &str, limits: Limits) -> Result<Ticket, GaveUp> {
        // A time too far away to be told is for ever.
        let deadline = limits.timeout.map(|timeout| Instant::now().checked_add(timeout));
        let (ticket, waiter) = {
            // Asking and queueing are one step under the guard: whoever unlocks next sees the waiter.
            let mut table = self.guard();
            let ticket = table.last + 1;
            table.last = ticket;
            match table.entries.get_mut(key) {
                None => {
                    table.entries.insert(key.to_owned(), Queue::from([(ticket, None)]));
                    return Ok(ticket);
                }
                Some(_) if limits.timeout == Some(Duration::ZERO) => return Err(GaveUp::TimedOut),
                Some(queue) => {
                    let waiter = Arc::new(Waiter { thread: thread::current(), granted: AtomicBool::new(false) });
                    queue.insert(ticket, Some(Arc::clone(&waiter)));
                    (ticket, waiter)
                }
            }
        };
        match waiter.wait(deadline.flatten(), limits.cancel) {
            // The grant may have come since. Only the table knows, under the guard.
            Err(why) if self.leave(key, ticket) => Err(why),
            _ => Ok(ticket),
        }
    }

    /// Takes a waiter out of the queue. False: it does not wait, since it was granted: it is the first, or it is gone,
    /// where somebody has unlocked the key since.
    fn leave(&self, key: &str, ticket: Ticket) -> bool {
        let mut table = self.guard();
        let queue = table.entries.get_mut(key);
        queue.map_or(false, |queue| first(queue) != Some(ticket) && queue.remove(&ticket).is_some())
    }

    fn release(&self, key: &str, ticket: Option<Ticket>) -> Result<(), Unheld> {
        let mut table = self.guard();
        let queue = table.entries.get_mut(key).ok_or(Unheld)?;
        let holder = first(queue).ok_or(Unheld)?;
        if ticket.map_or(false, |ticket| ticket != holder) {
            return Err(Unheld);
        }
        queue.remove(&holder);
        match queue.values().next() {
            None => {
                table.entries.remove(key);
            }
            Some(next) => next.iter().for_each(|waiter| waiter.grant()),
        }
        Ok(())
    }

    /// Held for a few steps on the table and never across a wait (KM-INDEP). No code of the caller's runs under it, so
    /// nothing panics there and it can't be poisoned.
    fn guard(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics under the guard")
    }
}

fn first(queue: &Queue) -> Option<Ticket> {
    queue.keys().next().copied()
}

impl Waiter {
    /// Under the guard. The flag is set before the thread is woken, and `unpark` is remembered by a thread that is not
    /// parked yet, so the wake-up can't be lost between the look at the flag and the park.
    fn grant(&self) {
        self.granted.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Until the grant, or what ends the wait before it was seen. A thread is also woken for nothing, so it looks again.
    fn wait(&self, deadline: Option<Instant>, cancel: Option<&CancelToken>) -> Result<(), GaveUp> {
        let _listening = cancel.map(CancelToken::listen);
        while !self.granted.load(Ordering::Acquire) {
            if cancel.map_or(false, CancelToken::is_cancelled) {
                return Err(GaveUp::Cancelled);
            }
            match deadline.map(|at| at.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return Err(GaveUp::TimedOut),
                Some(left) => thread::park_timeout(left),
            }
        }
        Ok(())
    }
}

/// One grant of one key.
pub struct Lease {
    mutex: Arc<KeyedMutex>,
    key: String,
    ticket: Ticket,
}

impl Lease {
    /// Ends the grant. `Unheld` where an `unlock` of the key has ended it; a later holder is not touched (KM-TOKEN).
    pub fn release(self) -> Result<(), Unheld> {
        self.mutex.release(&self.key, Some(self.ticket)) // and once more in drop, which finds it ended
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.mutex.release(&self.key, Some(self.ticket));
    }
}

/// Ends the waits that it was given to, now and in future.
#[derive(Default)]
pub struct CancelToken {
    state: Mutex<TokenState>,
}

#[derive(Default)]
struct TokenState {
    cancelled: bool,
    listeners: Vec<Thread>,
}

impl CancelToken {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cancel(&self) {
        // A waiter listens before it looks: it is in the list here, or it looks after this and sees the flag.
        let mut state = self.state();
        state.cancelled = true;
        state.listeners.iter().for_each(Thread::unpark);
    }

    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// For a wait of one's own: from now on the cancel unparks the calling thread. Look at `is_cancelled` after this.
    pub fn listen(&self) -> Listening<'_> {
        self.state().listeners.push(thread::current());
        Listening { token: self }
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        self.state.lock().expect("nothing panics under the token's lock")
    }
}

/// Ends the listening when it is dropped.
pub struct Listening<'a> {
    token: &'a CancelToken,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let me = thread::current().id();
        let mut state = self.token.state();
        if let Some(place) = state.listeners.iter().position(|thread| thread.id() == me) {
            state.listeners.swap_remove(place);
        }
    }
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            GaveUp::TimedOut => "no grant within the time",
            GaveUp::Cancelled => "the wait was cancelled",
        })
    }
}

impl fmt::Display for Unheld {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("nobody holds the key, or this grant of it has ended")
    }
}

impl std::error::Error for GaveUp {}
impl std::error::Error for Unheld {}
