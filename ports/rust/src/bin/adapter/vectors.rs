//! Plays specs/vectors.json in this process, by the words of specs/vectors.md: the library takes a right course through
//! each, and each mistake of broken.rs through not all. What many rounds say of times is not judged here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kmutex::{CancelToken, Counts, GaveUp, Limits, Unheld};

use crate::json::{parse, Object, Value};
use crate::{broken, Correct, Locker, Release};

const TEXT: &str = include_str!("../../../../../specs/vectors.json");
const KEPT: &str = "a grant that was first is not kept";

#[test]
fn the_library_takes_a_right_course_through_every_vector() {
    assert_eq!(first_failure(&vectors(), || Arc::new(Correct(Arc::default())), Duration::from_secs(60)), None);
}

#[test]
fn no_mistake_does() {
    let vectors = vectors();
    for (name, _, mistake) in broken::MISTAKES {
        assert_ne!(first_failure(&vectors, || broken::locker(mistake), Duration::from_secs(1)), None, "{name}");
    }
}

fn vectors() -> Vec<Value> {
    let mut file = parse(TEXT).unwrap();
    assert_eq!(file["format"], Value::Text("kmutex-vectors/2".to_owned()));
    match file.remove("vectors") {
        Some(Value::List(vectors)) => vectors,
        other => panic!("vectors: {other:?}"),
    }
}

/// None: each vector takes one of its courses. All features are there, so none is left out.
fn first_failure(vectors: &[Value], build: impl Fn() -> Arc<dyn Locker>, patience: Duration) -> Option<String> {
    for vector in vectors.iter().map(object) {
        for round in 0..whole(vector, "rounds").unwrap_or(1) {
            if let Err(wrong) = Play::new(vector, build()).run(list(vector, "moves"), patience) {
                return Some(format!("{}, round {round}: {wrong}", text(vector, "id")));
            }
        }
    }
    None
}

/// A copy of the vector, and the number of a call in it.
type Call = (usize, usize);

#[derive(Default)]
struct Seen {
    /// How calls have ended since the move began.
    ended: HashMap<Call, &'static str>,
    leases: HashMap<Call, (String, Release)>,
    /// Of each key: grants that were seen to return, less releases.
    open: HashMap<String, i32>,
}

/// One vector on one locker, with as many copies of it side by side as it says.
struct Play<'a> {
    locker: Arc<dyn Locker>,
    /// Of each copy, those that are still possible.
    courses: Vec<Vec<&'a [Value]>>,
    tokens: HashMap<Call, Arc<CancelToken>>,
    seen: Arc<Mutex<Seen>>,
}

impl<'a> Play<'a> {
    fn new(vector: &'a Object, locker: Arc<dyn Locker>) -> Self {
        let courses = list(vector, "courses").iter().map(items).collect::<Vec<_>>();
        let copies = whole(vector, "keys").unwrap_or(1);
        Play { locker, courses: vec![courses; copies], tokens: HashMap::new(), seen: Arc::default() }
    }

    fn run(mut self, moves: &[Value], patience: Duration) -> Result<(), String> {
        for (number, commands) in moves.iter().map(items).enumerate() {
            let mut kept = Vec::new();
            let unlocks: Vec<_> = (0..self.courses.len()).map(|copy| self.give(commands, copy, &mut kept)).collect();
            let begun = Instant::now();
            while !self.settled(number, &unlocks) {
                if begun.elapsed() > patience {
                    return Err(format!("move {number}: unlocks {unlocks:?}"));
                }
                thread::sleep(Duration::from_micros(50));
            }
            let ended = std::mem::take(&mut self.seen.lock().unwrap().ended);
            if kept.iter().any(|call| ended.get(call) == Some(&"cancelled")) {
                return Err(KEPT.to_owned());
            }
        }
        Ok(())
    }

    /// Gives the commands of a move to one copy; what its unlocks said.
    fn give(&mut self, commands: &[Value], copy: usize, kept: &mut Vec<Call>) -> Vec<Value> {
        let mut unlocks = Vec::new();
        let mut before = "";
        for command in commands.iter().map(object) {
            let key = command.get("key").map_or(String::new(), |_| name(text(command, "key"), copy));
            let call = (copy, whole(command, "call").unwrap_or(0));
            let op = text(command, "op");
            match op {
                "lock" => {
                    let token = Arc::new(CancelToken::new());
                    self.tokens.insert(call, Arc::clone(&token));
                    let (locker, seen) = (Arc::clone(&self.locker), Arc::clone(&self.seen));
                    thread::spawn(move || {
                        let ended = locker.hold(&key, Limits { timeout: None, cancel: Some(&token) });
                        end(&seen, call, key, ended);
                    });
                }
                "try" => {
                    let limits = Limits { timeout: Some(Duration::ZERO), cancel: None };
                    let ended = self.locker.hold(&key, limits);
                    end(&self.seen, call, key, ended);
                }
                "cancel" => {
                    // The lone waiter is the one that the unlock has granted the key.
                    let counts: Vec<Counts> = self.locker.snapshot().into_values().collect();
                    if before == "unlock" && counts.len() == 1 && counts[0].waiters == 0 {
                        kept.push(call);
                    }
                    self.tokens.get(&call).into_iter().for_each(|token| token.cancel());
                }
                "unlock" => {
                    let ended = self.locker.unlock(&key);
                    unlocks.push(self.word(&key, ended));
                }
                "lease" => {
                    let lease = self.seen.lock().unwrap().leases.remove(&call);
                    unlocks.push(match lease {
                        None => Value::Text("unheld".to_owned()),
                        Some((key, release)) => self.word(&key, release()),
                    });
                }
                "free" => {
                    let open = self.seen.lock().unwrap().open.get(&key).copied().unwrap_or(0);
                    if open > 0 {
                        let ended = self.locker.unlock(&key);
                        unlocks.push(self.word(&key, ended));
                    }
                }
                _ => panic!("no command is called {op}"),
            }
            before = op;
        }
        unlocks
    }

    fn word(&self, key: &str, ended: Result<(), Unheld>) -> Value {
        let word = match ended {
            Ok(()) => {
                *self.seen.lock().unwrap().open.entry(key.to_owned()).or_default() -= 1;
                "released"
            }
            Err(Unheld) => "unheld",
        };
        Value::Text(word.to_owned())
    }

    /// Whether each copy shows what one of its courses has here; then the others are out of the question.
    fn settled(&mut self, number: usize, unlocks: &[Vec<Value>]) -> bool {
        let mut calls = vec![Object::new(); unlocks.len()];
        for ((copy, call), how) in &self.seen.lock().unwrap().ended {
            calls[*copy].insert(call.to_string(), Value::Text((*how).to_owned()));
        }
        let mut tables = vec![Object::new(); unlocks.len()];
        for (key, Counts { refs, waiters }) in self.locker.snapshot() {
            let parts: Vec<_> = key.split(':').collect();
            let row = [("refs", refs), ("waiters", waiters)];
            let row = row.map(|(name, count)| (name.to_owned(), Value::Number(count as f64)));
            tables[parts[1].parse::<usize>().unwrap()].insert(parts[0].to_owned(), Value::Object(row.into()));
        }
        let mut left = self.courses.clone();
        for (((courses, calls), table), unlocks) in left.iter_mut().zip(calls).zip(tables).zip(unlocks) {
            let shown = [
                ("calls".to_owned(), Value::Object(calls)),
                ("unlocks".to_owned(), Value::List(unlocks.clone())),
                ("table".to_owned(), Value::Object(table)),
            ];
            let shown = Value::Object(shown.into());
            courses.retain(|course| course[number] == shown);
            if courses.is_empty() {
                return false;
            }
        }
        self.courses = left;
        true
    }
}

fn end(seen: &Mutex<Seen>, call: Call, key: String, ended: Result<Release, GaveUp>) {
    let mut seen = seen.lock().unwrap();
    let word = match ended {
        Ok(release) => {
            *seen.open.entry(key.clone()).or_default() += 1;
            seen.leases.insert(call, (key, release));
            "granted"
        }
        Err(GaveUp::Cancelled) => "cancelled",
        Err(GaveUp::TimedOut) => "timeout",
    };
    seen.ended.insert(call, word);
}

fn name(key: &str, copy: usize) -> String {
    format!("{key}:{copy}:the-same-end-of-all-keys")
}

fn object(value: &Value) -> &Object {
    match value {
        Value::Object(object) => object,
        other => panic!("no object: {other:?}"),
    }
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::List(list) => list,
        other => panic!("no list: {other:?}"),
    }
}

fn list<'a>(object: &'a Object, field: &str) -> &'a [Value] {
    items(&object[field])
}

fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    match &object[field] {
        Value::Text(text) => text,
        other => panic!("no text: {other:?}"),
    }
}

fn whole(object: &Object, field: &str) -> Option<usize> {
    match object.get(field) {
        Some(Value::Number(number)) => Some(*number as usize),
        _ => None,
    }
}
