//! Lockers that are wrong in one way each, as they go wrong in Rust. `Faulty` is the usual shape, with a count beside a
//! queue; where a mistake is made, its name stands.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use kmutex::{CancelToken, Counts, GaveUp, Limits, Unheld};

use crate::{Locker, Release};
use Mistake::*;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// The others are made in this one. It conforms: else one could be found for what is wrong with the locker itself.
    Base,
    /// Removes the entry where no more than one `Arc` of it seems to be out: the holder's, or was it a waiter's?
    CountsTheArcs,
    /// `return Err(..)`, or a `?`, past the line that counts down.
    EarlyReturn,
    /// A waiter that gives up stays in the queue and is granted later, when its thread is elsewhere.
    StaysQueued,
    /// Returns an error with the grant in hand, and nobody else is woken.
    DropsTheGrant,
    /// A `Vec` as a stack: `push` and `pop`.
    Pop,
    /// Frees the key and wakes the oldest, who has to win it: `while held { condvar.wait() }`.
    NotifyOne,
    /// `if let Some(entry) = ..` without an else, and `Ok(())` at the end.
    IfLet,
    /// `entry(key).or_default()`, and nothing that removes.
    OrDefault,
    /// `token.is_cancelled()` before the call, and after that only what wakes it: a cancel that came first does not.
    LooksTooLate,
    /// Counts a try before it looks.
    TryCounts,
    /// The guard's `Drop` unlocks the key, whoever holds it by then.
    DropByKey,
}

/// The clauses: any of them is a right name for the mistake, the first is the best.
pub const MISTAKES: [(&str, &str, Mistake); 11] = [
    ("counts-the-arcs", "KM-REF,KM-EXCL,KM-UNHELD", CountsTheArcs),
    ("early-return", "KM-REF,KM-CANCEL,KM-IDLE", EarlyReturn),
    ("stays-queued", "KM-CANCEL,KM-REF,KM-LIVE,KM-RACE", StaysQueued),
    ("drops-the-grant", "KM-RACE,KM-LIVE", DropsTheGrant),
    ("pop", "KM-FIFO,KM-HANDOFF", Pop),
    ("notify-one", "KM-HANDOFF,KM-FIFO", NotifyOne),
    ("if-let", "KM-UNHELD", IfLet),
    ("or-default", "KM-IDLE", OrDefault),
    ("looks-too-late", "KM-CANCEL", LooksTooLate),
    ("try-counts", "KM-EXPIRED,KM-REF,KM-ATOMIC,KM-IDLE", TryCounts),
    ("drop-by-key", "KM-TOKEN", DropByKey),
];

pub fn find(name: &str) -> Option<Mistake> {
    let listed = MISTAKES.iter().find(|(known, _, _)| *known == name).map(|(_, _, mistake)| *mistake);
    listed.or((name == "none").then_some(Base))
}

pub fn locker(mistake: Mistake) -> Arc<dyn Locker> {
    Arc::new(Faulty(Arc::new(Shared { mistake, table: Mutex::default() })))
}

struct Faulty(Arc<Shared>);

struct Shared {
    mistake: Mistake,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u64,
    entries: HashMap<String, Entry>,
}

#[derive(Default)]
struct Entry {
    refs: usize,
    holder: Option<u64>,
    queue: VecDeque<(u64, Thread)>,
}

impl Locker for Faulty {
    fn hold(&self, key: &str, limits: Limits) -> Result<Release, GaveUp> {
        let ticket = self.0.acquire(key, limits)?;
        let (shared, key) = (Arc::clone(&self.0), key.to_owned());
        Ok(Box::new(move || match shared.mistake {
            DropByKey => shared.release(&key, None),
            _ => shared.release(&key, Some(ticket)),
        }))
    }

    fn unlock(&self, key: &str) -> Result<(), Unheld> {
        match self.0.release(key, None) {
            Err(Unheld) if self.0.mistake == IfLet => Ok(()),
            ended => ended,
        }
    }

    fn snapshot(&self) -> HashMap<String, Counts> {
        let table = self.0.guard();
        let counts = |entry: &Entry| Counts { refs: entry.refs, waiters: entry.queue.len() };
        table.entries.iter().map(|(key, entry)| (key.clone(), counts(entry))).collect()
    }
}

impl Shared {
    fn acquire(&self, key: &str, limits: Limits) -> Result<u64, GaveUp> {
        let deadline = limits.timeout.map(|timeout| Instant::now() + timeout);
        let early = self.mistake == LooksTooLate && limits.cancel.map_or(false, CancelToken::is_cancelled);
        let ticket = self.request(key, limits)?;
        let _listening = limits.cancel.map(CancelToken::listen);
        loop {
            let told = !early && limits.cancel.map_or(false, CancelToken::is_cancelled);
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let mut table = self.guard();
            let looks = !told || self.mistake != DropsTheGrant;
            if looks && self.holds(&mut table, key, ticket) {
                return Ok(ticket);
            }
            if told {
                self.leave(&mut table, key, ticket);
                return Err(GaveUp::Cancelled);
            }
            if left == Some(Duration::ZERO) {
                self.leave(&mut table, key, ticket);
                return Err(GaveUp::TimedOut);
            }
            drop(table);
            left.map_or_else(thread::park, thread::park_timeout);
            if self.mistake == NotifyOne {
                // Stands for a machine that is busy when he wakes; without it the mistake shows in few bursts only.
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Takes a free key, or queues.
    fn request(&self, key: &str, limits: Limits) -> Result<u64, GaveUp> {
        let mut table = self.guard();
        table.last += 1;
        let ticket = table.last;
        let entry = table.entries.entry(key.to_owned()).or_default();
        entry.refs += 1;
        if entry.holder.is_none() {
            entry.holder = Some(ticket);
        } else if limits.timeout == Some(Duration::ZERO) {
            if self.mistake != TryCounts {
                entry.refs -= 1;
            }
            return Err(GaveUp::TimedOut);
        } else {
            entry.queue.push_back((ticket, thread::current()));
        }
        Ok(ticket)
    }

    /// Who is not in the queue was granted, also if an unlock has ended it since; under `NotifyOne` he was woken only.
    fn holds(&self, table: &mut Table, key: &str, ticket: u64) -> bool {
        let entry = match table.entries.get_mut(key) {
            Some(entry) => entry,
            None => return true,
        };
        let woken = entry.place(ticket).is_none();
        if self.mistake != NotifyOne || entry.holder == Some(ticket) {
            return woken;
        }
        if woken && entry.holder.is_some() {
            entry.queue.push_back((ticket, thread::current()));
            return false;
        }
        if woken {
            entry.holder = Some(ticket);
        }
        woken
    }

    fn leave(&self, table: &mut Table, key: &str, ticket: u64) {
        let entry = match table.entries.get_mut(key) {
            Some(entry) if self.mistake != StaysQueued => entry,
            _ => return,
        };
        if let Some(place) = entry.place(ticket) {
            entry.queue.remove(place);
            if self.mistake != EarlyReturn {
                entry.refs -= 1;
            }
        }
    }

    fn release(&self, key: &str, ticket: Option<u64>) -> Result<(), Unheld> {
        let mut table = self.guard();
        let entry = table.entries.get_mut(key).ok_or(Unheld)?;
        let holder = entry.holder.ok_or(Unheld)?;
        if ticket.map_or(false, |ticket| ticket != holder) {
            return Err(Unheld);
        }
        let next = if self.mistake == Pop { entry.queue.pop_back() } else { entry.queue.pop_front() };
        entry.refs -= 1;
        entry.holder = next.as_ref().map(|(ticket, _)| *ticket).filter(|_| self.mistake != NotifyOne);
        next.iter().for_each(|(_, thread)| thread.unpark());
        let others = if self.mistake == CountsTheArcs { entry.refs.saturating_sub(1) } else { entry.refs };
        if others == 0 && self.mistake != OrDefault {
            table.entries.remove(key);
        }
        Ok(())
    }

    fn guard(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics under it")
    }
}

impl Entry {
    fn place(&self, ticket: u64) -> Option<usize> {
        self.queue.iter().position(|(waiter, _)| *waiter == ticket)
    }
}
