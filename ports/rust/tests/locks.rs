use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{channel, Receiver, TryRecvError};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kmutex::{CancelToken, Counts, GaveUp, KeyedMutex, Limits, Unheld};

const TRY: Limits = Limits { timeout: Some(Duration::ZERO), cancel: None };

type Ended = Receiver<Result<(), GaveUp>>;

/// Starts a lock and returns when it stands in the queue.
fn ask(km: &Arc<KeyedMutex>, key: &'static str, token: &Arc<CancelToken>) -> Ended {
    let before = waiters(km, key);
    let (tell, ended) = channel();
    let (theirs, token) = (Arc::clone(km), Arc::clone(token));
    thread::spawn(move || tell.send(theirs.lock_within(key, Limits { timeout: None, cancel: Some(&token) })));
    while waiters(km, key) == before {
        thread::yield_now();
    }
    ended
}

fn waiters(km: &KeyedMutex, key: &str) -> usize {
    km.snapshot().get(key).map_or(0, |counts| counts.waiters)
}

fn live(refs: usize) -> HashMap<String, Counts> {
    HashMap::from([("a".to_owned(), Counts { refs, waiters: refs - 1 })])
}

/// KM-IDLE, KM-REF: nothing is kept of a key that was unlocked.
#[test]
fn an_idle_key_is_gone() {
    let km = KeyedMutex::new();
    km.lock("a");
    assert_eq!(km.snapshot(), live(1));
    km.unlock("a").unwrap();
    assert!(km.snapshot().is_empty());
}

/// KM-FIFO, KM-HANDOFF: each unlock makes the oldest waiter the holder, and a try in between gets nothing.
#[test]
fn waiters_are_served_in_order() {
    let (km, token) = (Arc::new(KeyedMutex::new()), Arc::new(CancelToken::new()));
    km.lock("a");
    let calls: Vec<Ended> = (0..3).map(|_| ask(&km, "a", &token)).collect();
    for (place, call) in calls.iter().enumerate() {
        km.unlock("a").unwrap();
        assert_eq!(km.lock_within("a", TRY), Err(GaveUp::TimedOut));
        assert_eq!(call.recv().unwrap(), Ok(()));
        assert!(calls[place + 1..].iter().all(|later| later.try_recv() == Err(TryRecvError::Empty)));
    }
    km.unlock("a").unwrap();
    assert!(km.snapshot().is_empty());
}

/// KM-CANCEL: a waiter leaves from the middle, the others keep their order; by a token or by the time.
#[test]
fn a_cancelled_waiter_leaves() {
    let (km, others) = (Arc::new(KeyedMutex::new()), Arc::new(CancelToken::new()));
    let token = Arc::new(CancelToken::new());
    km.lock("a");
    let first = ask(&km, "a", &others);
    let middle = ask(&km, "a", &token);
    let last = ask(&km, "a", &others);
    token.cancel();
    assert_eq!(middle.recv().unwrap(), Err(GaveUp::Cancelled));
    assert_eq!(km.lock_timeout("a", Duration::from_millis(1)), Err(GaveUp::TimedOut));
    assert_eq!(km.snapshot(), live(3));
    for call in [first, last] {
        km.unlock("a").unwrap();
        assert_eq!(call.recv().unwrap(), Ok(()));
    }
    km.unlock("a").unwrap();
    assert!(km.snapshot().is_empty());
}

/// KM-CANCEL: one token ends all the waits that it was given to, and those to come.
#[test]
fn a_token_ends_every_wait() {
    let (km, token) = (Arc::new(KeyedMutex::new()), Arc::new(CancelToken::new()));
    km.lock("a");
    let calls = [ask(&km, "a", &token), ask(&km, "a", &token)];
    token.cancel();
    for call in calls {
        assert_eq!(call.recv().unwrap(), Err(GaveUp::Cancelled));
    }
    let limits = Limits { timeout: None, cancel: Some(&token) };
    assert_eq!(km.lock_within("a", limits), Err(GaveUp::Cancelled));
    assert_eq!(km.snapshot(), live(1));
    assert_eq!(km.lock_within("free", limits), Ok(()));
}

/// KM-RACE, "keep": a grant and a cancel at once end in one of two ways, each as the table has it.
#[test]
fn a_cancel_that_meets_a_grant() {
    let mut kept = 0;
    for round in 0..400 {
        let (km, token) = (Arc::new(KeyedMutex::new()), Arc::new(CancelToken::new()));
        km.lock("a");
        let call = ask(&km, "a", &token);
        if round % 2 == 0 {
            km.unlock("a").unwrap();
            token.cancel();
            // The grant was first, so it is kept.
            assert_eq!(call.recv().unwrap(), Ok(()), "round {round}");
            kept += 1;
        } else {
            token.cancel();
            km.unlock("a").unwrap();
            match call.recv().unwrap() {
                Ok(()) => kept += 1,
                Err(why) => {
                    assert_eq!(why, GaveUp::Cancelled);
                    assert!(km.snapshot().is_empty(), "round {round}");
                    continue;
                }
            }
        }
        assert_eq!(km.snapshot(), live(1), "round {round}");
    }
    assert!(kept >= 200);
}

/// KM-UNHELD, KM-ATOMIC: unlocking what nobody holds is an error that leaves the key a mutex.
#[test]
fn a_stray_unlock_changes_nothing() {
    let km = KeyedMutex::new();
    assert_eq!(km.unlock("a"), Err(Unheld));
    assert!(km.snapshot().is_empty());
    km.lock("a");
    assert_eq!(km.lock_within("a", TRY), Err(GaveUp::TimedOut));
}

/// KM-EXPIRED: a try takes a free key and is refused at a held one without a trace; a time without end is for ever.
#[test]
fn no_time_to_wait() {
    let km = Arc::new(KeyedMutex::new());
    assert_eq!(km.lock_within("a", TRY), Ok(()));
    assert_eq!(km.lock_within("a", TRY), Err(GaveUp::TimedOut));
    assert_eq!(km.snapshot(), live(1));
    let theirs = Arc::clone(&km);
    let patient = thread::spawn(move || theirs.lock_timeout("a", Duration::MAX));
    while waiters(&km, "a") == 0 {
        thread::yield_now();
    }
    km.unlock("a").unwrap();
    assert_eq!(patient.join().unwrap(), Ok(()));
}

/// KM-TOKEN: a lease ends its own grant, once; dropping one that has ended touches nobody.
#[test]
fn a_lease_ends_its_own_grant() {
    let km = Arc::new(KeyedMutex::new());
    let old = km.hold("a", Limits::default()).unwrap();
    let older = {
        km.unlock("a").unwrap();
        km.hold("a", Limits::default()).unwrap()
    };
    assert_eq!(old.release(), Err(Unheld));
    assert_eq!(km.snapshot(), live(1));
    km.unlock("a").unwrap();
    let lease = km.hold("a", Limits::default()).unwrap();
    drop(older);
    assert_eq!(km.snapshot(), live(1));
    assert_eq!(lease.release(), Ok(()));
    drop(km.hold("a", Limits::default()).unwrap());
    assert!(km.snapshot().is_empty());
}

/// KM-TOKEN, KM-LIVE: a thread that panics with a lease lets go of the key.
#[test]
fn a_panic_drops_the_lease() {
    let km = Arc::new(KeyedMutex::new());
    let theirs = Arc::clone(&km);
    let panicked = thread::spawn(move || {
        let _lease = theirs.hold("a", Limits::default()).unwrap();
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(panicked.join().is_err());
    km.lock("a");
}

/// KM-INDEP: a held key with a waiter delays no other key.
#[test]
fn other_keys_go_on() {
    let (km, token) = (Arc::new(KeyedMutex::new()), Arc::new(CancelToken::new()));
    km.lock("a");
    let call = ask(&km, "a", &token);
    km.lock("b");
    km.unlock("b").unwrap();
    assert_eq!(call.try_recv(), Err(TryRecvError::Empty));
    token.cancel();
    assert_eq!(call.recv().unwrap(), Err(GaveUp::Cancelled));
}

/// KM-EXCL, KM-LIVE, KM-RACE: many threads, a few keys, cancels that meet grants.
#[test]
fn many_at_once() {
    const ROUNDS: usize = 200;
    const KEYS: [&str; 3] = ["a", "b", "c"];
    let km = Arc::new(KeyedMutex::new());
    let inside: Arc<[AtomicUsize; 3]> = Arc::default();
    let workers: Vec<_> = (0..6)
        .map(|worker| {
            let (km, inside) = (Arc::clone(&km), Arc::clone(&inside));
            thread::spawn(move || {
                let mut given_up = 0;
                for round in 0..ROUNDS {
                    let k = (worker + round) % KEYS.len();
                    let token = CancelToken::new();
                    if (worker + round) % 2 == 0 {
                        token.cancel();
                    }
                    if km.lock_within(KEYS[k], Limits { timeout: None, cancel: Some(&token) }).is_err() {
                        given_up += 1;
                        continue;
                    }
                    assert_eq!(inside[k].fetch_add(1, Ordering::Relaxed), 0);
                    thread::yield_now();
                    assert_eq!(inside[k].fetch_sub(1, Ordering::Relaxed), 1);
                    km.unlock(KEYS[k]).unwrap();
                }
                given_up
            })
        })
        .collect();
    let given_up: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert!(km.snapshot().is_empty());
    assert!(given_up > 0, "no call was cancelled, so no cancel can have met a grant");
}
