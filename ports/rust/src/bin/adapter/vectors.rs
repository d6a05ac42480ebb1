//! The vectors of the release (specs/player.md), played on the lock itself: no kmutex, no adapter.
//!
//! KMUTEX_VECTORS names the file; without it, it is the one of this repository.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use kmutex::{CancelToken, Counts, GaveUp, Limits};

use crate::json::{parse, Object, Value};
use crate::{broken, number, text, unpoisoned, Correct, Locker, Release, FEATURES};

/// Without anything new, until a move has failed; a right lock is never waited for so long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Cancels behind a grant, before it counts that none was taken.
const MEETINGS: usize = 10;
/// Times as long as a granted try.
const SLOWER: u32 = 25;

#[derive(Clone)]
struct Step {
    op: String,
    call: usize,
    key: String,
    ms: u64,
}

impl Step {
    fn asks(&self) -> bool {
        ["lock", "try", "done", "limit"].contains(&self.op.as_str())
    }
}

/// What a move shows.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    calls: BTreeMap<usize, String>,
    unlocks: Vec<&'static str>,
    table: BTreeMap<String, (usize, usize)>,
}

#[derive(Clone)]
struct Vector {
    id: String,
    clauses: Vec<String>,
    needs: Vec<String>,
    keys: usize,
    rounds: usize,
    moves: Vec<Vec<Step>>,
    courses: Vec<Vec<Seen>>,
}

/// What the calls tell, and what is known of them.
#[derive(Default)]
struct Told {
    seen: Seen,
    ended: HashMap<usize, &'static str>,
    leases: HashMap<usize, Release>,
    /// By key: grants that no unlock has ended.
    granted: HashMap<String, i64>,
    /// By how it ended: how long each try took that was alone in its move.
    took: HashMap<&'static str, Vec<Duration>>,
}

struct Player {
    locker: Arc<dyn Locker>,
    told: Arc<Mutex<Told>>,
    calls: HashMap<usize, (String, Arc<CancelToken>)>,
    met: Vec<&'static str>,
}

impl Player {
    fn play(&mut self, vector: &Vector) -> Result<(), String> {
        let mut courses = declared(vector);
        for (place, steps) in vector.moves.iter().enumerate() {
            let waiting = {
                let mut told = unpoisoned(&self.told);
                told.seen = Seen::default();
                self.calls.len() - told.ended.len()
            };
            let mut meets = match &steps[..] {
                [one, two] => {
                    let behind = one.op == "unlock" && two.op == "cancel" && waiting == 1;
                    behind && self.calls.get(&two.call).map_or(false, |(key, _)| *key == one.key)
                }
                _ => false,
            };
            for step in steps {
                meets = self.give(step, steps.len() == 1) && meets;
            }
            // A limit of no more than a second is over in its move.
            let begun = Instant::now() + Duration::from_millis(if steps[0].ms <= 1000 { steps[0].ms } else { 0 });
            let (mut before, mut quiet, mut pause) = (Seen::default(), begun, Duration::from_micros(10));
            loop {
                let now = self.look();
                let fitting: Vec<_> = courses.iter().copied().filter(|course| course[place] == now).collect();
                if !fitting.is_empty() {
                    courses = fitting;
                    break;
                }
                if now != before {
                    quiet = Instant::now();
                }
                if quiet.elapsed() > PATIENCE {
                    return Err(format!("move {place} of {} showed {now:?}", vector.id));
                }
                before = now;
                thread::sleep(pause);
                pause = (2 * pause).min(Duration::from_millis(5));
            }
            if meets {
                self.met.extend(unpoisoned(&self.told).ended.get(&steps[1].call));
            }
        }
        Ok(())
    }

    fn look(&self) -> Seen {
        let told = unpoisoned(&self.told);
        let counts = self.locker.snapshot().into_iter();
        let table = counts.map(|(key, Counts { refs, waiters })| (key, (refs, waiters))).collect();
        Seen { table, ..told.seen.clone() }
    }

    /// Gives one command. Of a cancel: whether the call had not ended when it was told.
    fn give(&mut self, step: &Step, alone: bool) -> bool {
        match step.op.as_str() {
            "lock" | "try" | "done" | "limit" => self.lock(step, alone),
            "cancel" => {
                self.calls[&step.call].1.cancel();
                return !unpoisoned(&self.told).ended.contains_key(&step.call);
            }
            "lease" => {
                let (key, lease) = (&self.calls[&step.call].0, unpoisoned(&self.told).leases.remove(&step.call));
                self.unlocked(key, lease.map_or(false, |release| release().is_ok()));
            }
            "unlock" => self.unlocked(&step.key, self.locker.unlock(&step.key).is_ok()),
            _ => {
                let held = unpoisoned(&self.told).granted.get(&step.key).map_or(false, |grants| *grants > 0);
                if held {
                    self.unlocked(&step.key, self.locker.unlock(&step.key).is_ok());
                }
            }
        }
        true
    }

    fn lock(&mut self, step: &Step, alone: bool) {
        let token = Arc::new(CancelToken::new());
        if step.op == "done" {
            token.cancel();
        }
        self.calls.insert(step.call, (step.key.clone(), Arc::clone(&token)));
        let (locker, told, step) = (Arc::clone(&self.locker), Arc::clone(&self.told), step.clone());
        thread::spawn(move || {
            let timeout = match step.op.as_str() {
                "try" => Some(Duration::ZERO),
                "limit" => Some(Duration::from_millis(step.ms)),
                _ => None,
            };
            let asked = Instant::now();
            let ended = locker.hold(&step.key, Limits { timeout, cancel: Some(&token) });
            let took = asked.elapsed();
            let mut told = unpoisoned(&told);
            let how = match ended {
                Ok(release) => {
                    told.leases.insert(step.call, release);
                    *told.granted.entry(step.key).or_default() += 1;
                    "granted"
                }
                Err(GaveUp::Cancelled) => "cancelled",
                Err(GaveUp::TimedOut) if step.op == "limit" && took * 10 < 9 * Duration::from_millis(step.ms) => {
                    "timeout before its time"
                }
                Err(GaveUp::TimedOut) => "timeout",
            };
            if step.op == "try" && alone {
                told.took.entry(how).or_default().push(took);
            }
            told.ended.insert(step.call, how);
            told.seen.calls.insert(step.call, how.to_owned()); // of the move in which it ends
        });
    }

    fn unlocked(&self, key: &str, released: bool) {
        let mut told = unpoisoned(&self.told);
        if released {
            *told.granted.entry(key.to_owned()).or_default() -= 1;
        }
        told.seen.unlocks.push(if released { "released" } else { "unheld" });
    }
}

/// The courses that a lock with these features may take: an early cancel of a free key takes it.
fn declared(vector: &Vector) -> Vec<&Vec<Seen>> {
    let mut left: Vec<&Vec<Seen>> = vector.courses.iter().collect();
    for (place, steps) in vector.moves.iter().enumerate().filter(|(_, steps)| steps[0].op == "done") {
        let takes = |course: &Vec<Seen>| course[place].calls.get(&steps[0].call).map_or(false, |how| how == "granted");
        let free = |course: &Vec<Seen>| vector.courses.iter().any(|one| takes(one) && one[..place] == course[..place]);
        left.retain(|course| takes(course) || !free(course));
    }
    left
}

/// The same case on `keys` keys at once (specs/vectors.md).
fn spread(vector: &Vector) -> Vector {
    if vector.keys == 1 {
        return vector.clone();
    }
    let made = vector.moves.iter().flatten().filter(|step| step.asks()).count();
    let names = key_names(vector.keys);
    let name = |key: &str, copy: usize| match key {
        "a" => names[copy].clone(),
        _ => format!("{key}:{}", names[copy]),
    };
    let copies = 0..vector.keys;
    let copied = |steps: &Vec<Step>, copy: usize| -> Vec<Step> {
        let renamed =
            |step: &Step| Step { call: copy * made + step.call, key: name(&step.key, copy), ..step.clone() };
        steps.iter().map(renamed).collect()
    };
    let moves = vector.moves.iter().map(|steps| copies.clone().flat_map(|copy| copied(steps, copy)).collect());
    let course = vector.courses[0].iter().map(|one| {
        let mut seen = Seen::default();
        for copy in copies.clone() {
            seen.calls.extend(one.calls.iter().map(|(call, how)| (copy * made + call, how.clone())));
            seen.unlocks.extend(&one.unlocks);
            seen.table.extend(one.table.iter().map(|(key, counts)| (name(key, copy), *counts)));
        }
        seen
    });
    Vector { moves: moves.collect(), courses: vec![course.collect()], ..vector.clone() }
}

/// Keys that are easily taken for each other.
fn key_names(count: usize) -> Vec<String> {
    let odd = ["a", "A", "a ", "", " ", "aa", "\u{e9}", "e\u{301}", "__proto__", "constructor", "0", "00"];
    let more = (0..).map(|number| format!("{number:064}"));
    odd.iter().map(|name| name.to_string()).chain(more).take(count).collect()
}

fn play(vector: &Vector, build: &dyn Fn() -> Arc<dyn Locker>) -> Result<(), String> {
    let (spread, mut met) = (spread(vector), Vec::new());
    let mut took: HashMap<&str, Vec<Duration>> = HashMap::new();
    for _ in 0..vector.rounds {
        let mut player = Player { locker: build(), told: Arc::default(), calls: HashMap::new(), met: Vec::new() };
        player.play(&spread)?;
        met.extend(player.met);
        unpoisoned(&player.told).took.drain().for_each(|(how, times)| took.entry(how).or_default().extend(times));
    }
    let cancelled = met.contains(&"cancelled");
    if FEATURES.contains("\"keep\"") && cancelled {
        return Err(format!("{}: a grant was given up, and keep is declared", vector.id));
    }
    if FEATURES.contains("\"pass\"") && met.len() >= MEETINGS && !cancelled {
        return Err(format!("{}: no grant was given up, and pass is declared", vector.id));
    }
    if let (Some(refused), Some(mut granted)) = (took.remove("timeout"), took.remove("granted")) {
        granted.sort();
        let usual = granted[granted.len() / 2].max(Duration::from_millis(1));
        let fastest = *refused.iter().min().expect("there is one");
        if refused.len().min(granted.len()) >= 5 && fastest > SLOWER * usual {
            return Err(format!("{}: the fastest refused try took {fastest:?}, a granted one {usual:?}", vector.id));
        }
    }
    Ok(())
}

// -- the file ---------------------------------------------------------------------------------------------------------

fn list<'a>(object: &'a Object, field: &str) -> &'a [Value] {
    match object.get(field) {
        Some(Value::List(list)) => list,
        _ => panic!("{field} is no list"),
    }
}

fn object(value: &Value) -> &Object {
    match value {
        Value::Object(object) => object,
        _ => panic!("{value:?} is no object"),
    }
}

fn texts(object: &Object, field: &str) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.clone(),
        _ => panic!("{value:?} is no text"),
    };
    list(object, field).iter().map(text).collect()
}

fn count(object: &Object, field: &str, otherwise: usize) -> usize {
    number(object, field).map_or(otherwise, |number| number as usize)
}

fn each<T>(value: &Value, read: impl Fn(&Object) -> T) -> Vec<T> {
    match value {
        Value::List(list) => list.iter().map(|value| read(object(value))).collect(),
        _ => panic!("{value:?} is no list"),
    }
}

fn step(body: &Object) -> Step {
    let key = text(body, "key").unwrap_or_default().to_owned();
    Step { op: text(body, "op").expect("a command has an op").to_owned(), call: count(body, "call", 0), key, ms: count(body, "ms", 0) as u64 }
}

fn seen(body: &Object) -> Seen {
    let calls = object(&body["calls"]);
    let ended = |call: &String| (call.parse().expect("a number"), text(calls, call).expect("a word").to_owned());
    let word = |how: &String| if how == "released" { "released" } else { "unheld" };
    let counts = |(key, value): (&String, &Value)| {
        (key.clone(), (count(object(value), "refs", 0), count(object(value), "waiters", 0)))
    };
    Seen {
        calls: calls.keys().map(ended).collect(),
        unlocks: texts(body, "unlocks").iter().map(word).collect(),
        table: object(&body["table"]).iter().map(counts).collect(),
    }
}

fn vector(body: &Object) -> Vector {
    Vector {
        id: text(body, "id").expect("a vector has an id").to_owned(),
        clauses: texts(body, "clauses"),
        needs: texts(body, "needs"),
        keys: count(body, "keys", 1),
        rounds: count(body, "rounds", 1),
        moves: list(body, "moves").iter().map(|steps| each(steps, step)).collect(),
        courses: list(body, "courses").iter().map(|course| each(course, seen)).collect(),
    }
}

/// The vectors that a lock with these features can be put to.
fn read() -> Vec<Vector> {
    let path = env::var("KMUTEX_VECTORS").unwrap_or_else(|_| "../../specs/vectors.json".to_owned());
    let body = parse(&fs::read_to_string(&path).expect(&path)).expect(&path);
    assert_eq!(text(&body, "format"), Some("kmutex-vectors/2"));
    let all = each(&body["vectors"], vector).into_iter();
    let fits = |vector: &Vector| vector.needs.iter().all(|feature| FEATURES.contains(&format!("\"{feature}\"")));
    let vectors: Vec<_> = all.filter(fits).collect();
    assert!(vectors.len() > 500, "{path} has only {} for this lock", vectors.len());
    vectors
}

#[test]
fn the_lock_and_the_base_of_the_mistakes_take_a_course_of_each_vector() {
    for vector in read() {
        assert_eq!(play(&vector, &|| Arc::new(Correct(Arc::default()))), Ok(()));
        assert_eq!(play(&vector, &|| broken::locker(broken::Mistake::Base)), Ok(()), "of the base");
    }
}

#[test]
fn each_mistake_fails_in_a_vector_of_its_clauses() {
    let vectors = read();
    for (name, clauses, mistake) in broken::MISTAKES {
        let right = |vector: &&Vector| vector.clauses.iter().any(|clause| clauses.split(',').any(|one| one == clause));
        let fails = |vector: &Vector| play(vector, &|| broken::locker(mistake)).is_err();
        assert!(vectors.iter().filter(right).any(fails), "{name} takes a course of each");
    }
}
