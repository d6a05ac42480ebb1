//! Drives one locker by the adapter protocol, version 1 (specs/protocol.md).
//!
//!     adapter                 the library
//!     adapter --broken NAME   a locker with one mistake (broken.rs), or with none: the one that they are made in
//!     adapter --list-broken   NAME KM-XXX[,KM-YYY], a line for each

mod broken;
mod json;
#[cfg(test)]
mod vectors;

use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::exit;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use json::{quoted, Object, Value};
use kmutex::{CancelToken, Counts, GaveUp, KeyedMutex, Limits, Unheld};

const MAX_LINE: usize = 65_536;
const FEATURES: &str = r#"["fifo", "cancel", "keep", "try", "lease", "unheld", "stat", "done", "take", "deadline"]"#;

/// Ends one grant, once.
pub type Release = Box<dyn FnOnce() -> Result<(), Unheld> + Send>;

pub trait Locker: Send + Sync {
    fn hold(&self, key: &str, limits: Limits) -> Result<Release, GaveUp>;
    fn unlock(&self, key: &str) -> Result<(), Unheld>;
    fn snapshot(&self) -> HashMap<String, Counts>;
}

struct Correct(Arc<KeyedMutex>);

impl Locker for Correct {
    fn hold(&self, key: &str, limits: Limits) -> Result<Release, GaveUp> {
        let lease = self.0.hold(key, limits)?;
        Ok(Box::new(move || lease.release()))
    }

    fn unlock(&self, key: &str) -> Result<(), Unheld> {
        self.0.unlock(key)
    }

    fn snapshot(&self) -> HashMap<String, Counts> {
        self.0.snapshot()
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve("kmutex-rust", || Arc::new(Correct(Arc::default()))),
        ["--list-broken"] => broken::MISTAKES.iter().for_each(|(name, clauses, _)| println!("{name} {clauses}")),
        ["--broken", name] => match broken::find(name) {
            Some(mistake) => serve(&format!("kmutex-rust (broken: {name})"), || broken::locker(mistake)),
            None => fail(&format!("no mistake is called {name}; --list-broken has them")),
        },
        _ => fail("usage: adapter [--list-broken | --broken NAME]"),
    }
}

fn serve(name: &str, build: impl Fn() -> Arc<dyn Locker>) {
    let mut session: Option<Arc<Session>> = None;
    let mut input = io::stdin().lock();
    while let Some(line) = read_line(&mut input) {
        let command = json::parse(&line).unwrap_or_else(|why| fail(&format!("not a command: {why}")));
        let id = number(&command, "id").unwrap_or_else(|| fail("a command without an id"));
        let session = match (text(&command, "op"), &session) {
            (Some("hello"), _) if number(&command, "protocol") == Some(1) => {
                say(&format!(r#"{{"id": {id}, "protocol": 1, "name": {}, "features": {FEATURES}}}"#, quoted(name)));
                continue;
            }
            (Some("reset"), _) => {
                session =
                    Some(Arc::new(Session { locker: build(), calls: Mutex::default(), leases: Mutex::default() }));
                result(id, "ok");
                continue;
            }
            (Some("bye"), _) => {
                result(id, "ok");
                exit(0);
            }
            (_, None) => {
                failed(id, "the first commands are hello, with protocol 1, and reset");
                continue;
            }
            (_, Some(session)) => session,
        };
        if let Err(message) = session.obey(id, &command) {
            failed(id, message);
        }
    }
}

/// What one reset begins. A call of an older session keeps its own locker, and can disturb no later one.
struct Session {
    locker: Arc<dyn Locker>,
    /// By the id of the lock, until the call has ended.
    calls: Mutex<HashMap<u64, Arc<CancelToken>>>,
    /// By the id of the lock, from its grant until it is released by it.
    leases: Mutex<HashMap<u64, Release>>,
}

impl Session {
    fn obey(self: &Arc<Self>, id: u64, command: &Object) -> Result<(), &'static str> {
        const INCOMPLETE: &str = "no such command, or a field of it is missing or wrong";
        match text(command, "op").ok_or(INCOMPLETE)? {
            "lock" => {
                let key = text(command, "key").ok_or(INCOMPLETE)?.to_owned();
                let timeout = match command.get("timeout") {
                    None => None,
                    Some(_) => Some(Duration::from_millis(number(command, "timeout").ok_or(INCOMPLETE)?)),
                };
                // The call can be cancelled from the next command on, so it is known before it starts.
                let token = Arc::new(CancelToken::new());
                if let Some(Value::Word("true")) = command.get("done") {
                    token.cancel();
                }
                unpoisoned(&self.calls).insert(id, Arc::clone(&token));
                let session = Arc::clone(self);
                thread::spawn(move || session.lock(id, &key, Limits { timeout, cancel: Some(&token) }));
            }
            "unlock" => {
                let key = text(command, "key").ok_or(INCOMPLETE)?;
                let lease = match command.get("lease") {
                    None => None,
                    Some(_) => Some(number(command, "lease").ok_or(INCOMPLETE)?),
                };
                answer(id, || match self.unlock(key, lease) {
                    Ok(()) => "released",
                    Err(Unheld) => "unheld",
                });
            }
            "cancel" => {
                let call = number(command, "call").ok_or(INCOMPLETE)?;
                let token = unpoisoned(&self.calls).get(&call).cloned();
                token.iter().for_each(|token| token.cancel());
                result(id, "ok");
            }
            "stat" => {
                let keys = self.locker.snapshot().into_iter().map(|(key, Counts { refs, waiters })| {
                    format!(r#"{}: {{"refs": {refs}, "waiters": {waiters}}}"#, quoted(&key))
                });
                say(&format!(r#"{{"id": {id}, "keys": {{{}}}}}"#, keys.collect::<Vec<_>>().join(", ")));
            }
            _ => return Err(INCOMPLETE),
        }
        Ok(())
    }

    fn lock(&self, id: u64, key: &str, limits: Limits) {
        answer(id, || {
            let ended = self.locker.hold(key, limits);
            unpoisoned(&self.calls).remove(&id);
            match ended {
                Ok(release) => {
                    unpoisoned(&self.leases).insert(id, release);
                    "granted"
                }
                Err(GaveUp::Cancelled) => "cancelled",
                Err(GaveUp::TimedOut) => "timeout",
            }
        });
    }

    fn unlock(&self, key: &str, lease: Option<u64>) -> Result<(), Unheld> {
        match lease {
            None => self.locker.unlock(key),
            Some(call) => {
                let release = unpoisoned(&self.leases).remove(&call).ok_or(Unheld)?;
                release()
            }
        }
    }
}

/// The reply of a call; that of a panic is an error.
fn answer(id: u64, call: impl FnOnce() -> &'static str) {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(word) => result(id, word),
        Err(_) => failed(id, "a panic; standard error has its message"),
    }
}

fn text<'a>(command: &'a Object, field: &str) -> Option<&'a str> {
    match command.get(field) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// A whole number that a float has exactly.
fn number(command: &Object, field: &str) -> Option<u64> {
    match command.get(field) {
        Some(Value::Number(n)) if n.fract() == 0.0 && (0.0..9e15).contains(n) => Some(*n as u64),
        _ => None,
    }
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics under it")
}

fn result(id: u64, word: &str) {
    say(&format!(r#"{{"id": {id}, "result": "{word}"}}"#));
}

fn failed(id: u64, message: &str) {
    say(&format!(r#"{{"id": {id}, "result": "error", "message": {}}}"#, quoted(message)));
}

fn say(line: &str) {
    let mut output = io::stdout().lock();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) {
        fail(&error.to_string());
    }
}

/// None at the end of the input.
fn read_line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = input.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
    match read {
        Err(error) => fail(&error.to_string()),
        Ok(0) => None,
        Ok(bytes) if bytes > MAX_LINE => fail(&format!("a line of more than {MAX_LINE} bytes")),
        Ok(_) => Some(String::from_utf8(line).unwrap_or_else(|_| fail("a line that is not UTF-8"))),
    }
}

/// Ends the adapter: whoever sent the line can't be answered, since its id is not known.
fn fail(message: &str) -> ! {
    eprintln!("adapter: {message}");
    exit(2);
}
