/* The page: what is on show (`view`, which the address holds), and what the learner does to it. */

const data = unpack(JSON.parse(document.getElementById("data").textContent));
const words = data.words;

const MODES = {
  schedule: {
    name: "Schedule",
    purpose: "You are the scheduler. Choose the next step from those that can happen, and see what happens.",
    fits: () => true,
  },
  watch: {
    name: "Watch",
    purpose: "A run plays itself. Choose one, play it or step through it, and read what happens.",
    fits: () => true,
  },
  predict: {
    name: "Predict",
    purpose: "Choose a step, say what it will do, and see whether you were right.",
    fits: (graph) => graph.correct,
  },
  break: {
    name: "Break",
    purpose: "This model has a mistake. Find a run in which it does harm.",
    fits: (graph) => !graph.correct,
  },
  compare: {
    name: "Compare",
    purpose: "One schedule, two models: the correct one, and one with a mistake. See where they part.",
    fits: (graph) => !graph.correct,
  },
  lessons: {
    name: "Lessons",
    purpose: "Code with a mistake each. Say what it will do; a run of it answers.",
    fits: () => true,
  },
};
const PACES = [
  ["slow", 3500],
  ["middle", 1800],
  ["fast", 600],
];

/** What is on show: mode, graph, the whole run (what was undone included) and how much of it is taken; in Lessons the
    number of the lesson, and of the answer that was given to it. */
let view = null;
const START = { mode: "schedule", graph: data.graphs[0], run: [], at: 0 };
/** What the address does not hold. */
const here = {
  notice: null,
  asking: null,
  right: 0,
  asked: 0,
  timer: null,
  pace: "middle",
  hint: null,
  story: null,
  touring: false,
  client: null,
};

/** The first run: what to do, and what is to be seen then. */
const TOUR = [
  ["request(0,0)", "let client 0 ask for the key", "The key was free, so it has an entry now, and client 0 is its holder."],
  ["request(1,0)", "let client 1 ask for it too", "It has to wait: it is in the queue, and counted. refs is 2: the holder and one waiter."],
  ["release(0)", "let client 0 release it", "The key went straight to the oldest waiter. The ring says: granted, and the call has not returned yet."],
  ["wake(1)", "let client 1 come back from its call", "Now client 1 knows that it holds the key. Between the two anything could have happened."],
  ["release(1)", "let client 1 release it", "Nobody waits, so the entry is gone: nothing is kept for an idle key. From here on you choose. The lights below say what your run has put to the test."],
];

// ------------------------------------------------------------------------------------------------------------
// What is kept from one visit to the next, where the browser lets a page keep anything

const KEPT = "kmutex explore";
const NOTHING = { toured: false, found: [], answers: {} };

function kept() {
  try {
    return { ...NOTHING, ...JSON.parse(localStorage.getItem(KEPT) || "{}") };
  } catch {
    return NOTHING;
  }
}

function keep(change) {
  try {
    localStorage.setItem(KEPT, JSON.stringify({ ...kept(), ...change }));
  } catch {
    // A page that may keep nothing works all the same.
  }
}

function forget() {
  keep(NOTHING);
  draw();
}

// ------------------------------------------------------------------------------------------------------------
// The address

function address({ mode, graph, run, at, lesson, answer }) {
  if (mode === "lessons") return `#mode=lessons&lesson=${lesson}${answer === null ? "" : `&answer=${letter(answer)}`}`;
  const parts = [`mode=${mode}`, `model=${graph.exercise || graph.model}`, `bound=${graph.bound}`, `race=${graph.race}`];
  if (run.length) parts.push(`run=${run.join(";")}`);
  if (at < run.length) parts.push(`at=${at}`);
  return `#${parts.join("&")}`;
}

function graphFor(mode, wanted) {
  if (MODES[mode].fits(wanted)) return wanted;
  const fitting = data.graphs.filter(MODES[mode].fits);
  const near = fitting.find((g) => g.bound === wanted.bound && g.race === wanted.race);
  return near || fitting[0];
}

/** The view that an address asks for, as near as can be; `problem` says what could not be done. */
function read(hash) {
  let text = hash.replace(/^#/, "");
  let problem = "";
  try {
    text = decodeURIComponent(text);
  } catch {
    problem = "The address of this page is damaged.";
  }
  const asked = new Map(text.split("&").map((part) => [part.split("=", 1)[0], part.slice(part.indexOf("=") + 1)]));
  let mode = asked.get("mode") || "schedule";
  if (!Object.hasOwn(MODES, mode)) {
    problem ||= `There is no mode “${mode}”.`;
    mode = "schedule";
  }
  if (mode === "lessons") {
    const one = lessonOf(asked.has("lesson") ? Number(asked.get("lesson")) : nextLesson());
    const answer = one ? one.choices.findIndex((_, index) => letter(index) === asked.get("answer")) : -1;
    if (one) return { view: { ...START, mode, lesson: one.number, answer: answer < 0 ? null : answer }, problem };
    problem ||= `There is no lesson “${asked.get("lesson")}”.`;
    mode = "schedule";
  }
  const isCalled = (graph, name) => graph[name] === asked.get(name) || (name === "model" && String(graph.exercise) === asked.get(name));
  const same = (name) => (graph) => !asked.has(name) || isCalled(graph, name);
  const named = data.graphs.filter((g) => ["model", "bound", "race"].every((name) => same(name)(g)));
  if (!named.length) problem ||= "The address names a model or bound that this page does not have.";
  const graph = graphFor(mode, named[0] || data.graphs[0]);
  if (named.length && !named.includes(graph) && asked.has("model"))
    problem = `${MODES[mode].name} is not for the model “${asked.get("model")}”.`;
  const wanted = (problem ? "" : asked.get("run") || "").split(";").filter(Boolean);
  const taken = longest(mode, graph, wanted);
  if (taken < wanted.length) problem = `The address has a step that is not possible here: ${wanted[taken]}.`;
  const run = wanted.slice(0, taken);
  const at = asked.has("at") ? Math.min(Math.max(Number.parseInt(asked.get("at"), 10) || 0, 0), taken) : taken;
  return { view: { mode, graph, run, at }, problem };
}

/** How many of these steps can be taken, one after the other. */
function longest(mode, graph, schedule) {
  return Math.max(...sides(mode, graph).map((side) => walk(side, schedule).steps.length));
}

/** The models on show: in Compare the correct one at the same bound, and this one. */
function sides(mode, graph) {
  if (mode !== "compare") return [graph];
  return [data.graphs.find((g) => g.correct && g.bound === graph.bound && g.race === graph.race), graph];
}

/** Show another view, and let the address follow. `quietly`: without a place of its own in the history. */
function go(change, { notice = null, quietly = false } = {}) {
  const next = { ...view, ...change };
  here.notice = notice;
  here.asking = null;
  here.hint = null;
  here.client = null;
  if (change.mode && change.mode !== "watch") pause();
  const to = address(next);
  if (to !== location.hash) history[quietly ? "replaceState" : "pushState"](null, "", to);
  view = next;
  draw();
}

function arrive() {
  const { view: wanted, problem } = read(location.hash);
  pause();
  here.notice = problem ? { text: problem, kind: "bad" } : null;
  here.asking = null;
  here.hint = null;
  here.touring = location.hash.length < 2 && !kept().toured;
  view = wanted;
  draw();
}

/** How far the first run has come; -1: it is over, or was left. */
function touring() {
  if (!here.touring || view.mode !== "schedule" || !view.graph.correct) return -1;
  const run = taken();
  const onTheWay = run.length < TOUR.length && run.every((text, at) => text === TOUR[at][0]);
  return onTheWay ? run.length : -1;
}

function tour() {
  here.touring = true;
  go(START);
}

// ------------------------------------------------------------------------------------------------------------
// What the learner does

const taken = () => view.run.slice(0, view.at);
const undo = () => view.at > 0 && go({ at: view.at - 1 });
const redo = () => view.at < view.run.length && go({ at: view.at + 1 });

function restart() {
  if (view.mode === "watch") go({ at: 0 });
  else if (view.run.length) go({ run: [], at: 0 });
}

function take(text, notice = null) {
  const place = touring();
  if (place >= 0) {
    if (text === TOUR[place][0]) notice = { text: TOUR[place][2], kind: "" };
    else here.touring = false;
    if (place === TOUR.length - 1 || !here.touring) keep({ toured: true });
  }
  const run = [...taken(), text];
  const onTheWay = view.run[view.at] === text;
  go({ run: onTheWay ? view.run : run, at: run.length }, { notice });
}

/** A step was chosen: take it, or in Predict ask first. */
function choose(text) {
  if (view.mode !== "predict") return take(text);
  here.asking = text;
  here.notice = null;
  draw();
  $("guess-outcome").focus();
}

const score = () => `${here.right} of ${here.asked} right`;

function judge(step, before, after, guess) {
  const key = keyOf(step.action, before);
  const entry = after.entries[key];
  const holder = entry && entry.holder >= 0 ? String(entry.holder) : "nobody";
  const wrong = [];
  if (guess.outcome !== step.outcome)
    wrong.push(`you said “${words.outcomes[guess.outcome]}”, and ${words.outcomes[step.outcome]}`);
  if (guess.holder !== holder) {
    const name = (who) => (who === "nobody" ? "nobody" : clientName(Number(who)));
    wrong.push(`you said that key ${key} would belong to ${name(guess.holder)}, and it belongs to ${name(holder)}`);
  }
  here.asked += 1;
  if (!wrong.length) here.right += 1;
  const verdict = wrong.length ? `✗ Not so: ${wrong.join("; ")}.` : "✓ Right.";
  const text = `${verdict} ${score()}.`;
  take(step.action.text, { text, kind: wrong.length ? "bad" : "good" });
}

function pause() {
  clearTimeout(here.timer);
  here.timer = null;
}

function play() {
  if (!view.run.length) return;
  if (here.timer !== null) {
    pause();
    draw();
    return;
  }
  if (view.at >= view.run.length) go({ at: 0 });
  beat();
  draw();
}

function beat() {
  if (view.at >= view.run.length) return pause();
  here.timer = setTimeout(
    () => {
      go({ at: view.at + 1 }, { quietly: true });
      beat();
      if (here.timer === null) draw();
    },
    PACES.find(([name]) => name === here.pace)[1],
  );
}

/** Where the shortest run goes on from here: the next step, or how many steps to undo first. */
function shortestFrom(graph, run) {
  const found = graph.counterexamples.find((c) => c.clause === graph.clause);
  const whole = [...found.run, ...(found.cycle || [])];
  let common = 0;
  while (common < run.length && run[common] === whole[common]) common += 1;
  return { whole, found, undo: run.length - common, next: whole[common] };
}

function hint() {
  const { whole, undo: back, next } = shortestFrom(view.graph, taken());
  const run = walk(view.graph, taken());
  here.hint = null;
  if (isBroken(run)) here.notice = { text: "There is no need: this run breaks a clause already.", kind: "good" };
  else if (back > 0)
    here.notice = {
      text: `Hint: the shortest run has ${count(whole.length, "step")} and parted from yours. Undo ${count(back, "step")}, then ask again.`,
      kind: "",
    };
  else {
    here.hint = next;
    const action = data.actions.find((a) => a.text === next);
    here.notice = {
      text: `Hint, step ${view.at + 1} of ${whole.length}: ${actionWords(words, action, lastState(run))}.`,
      kind: "",
    };
  }
  draw();
  if (here.hint) document.querySelector("#steps .hinted")?.focus();
}

const isBroken = (run) => run.ended || lasso(run, data.lasting.fair) !== null;

// ------------------------------------------------------------------------------------------------------------
// Keys

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const target = event.target;
  const step = target.closest?.("#steps .step");
  if (step && ["ArrowDown", "ArrowUp", "Home", "End"].includes(event.key)) {
    const all = [...document.querySelectorAll("#steps .step")];
    const at = all.indexOf(step);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    all[Math.min(Math.max(to, 0), all.length - 1)].focus();
    event.preventDefault();
    return;
  }
  if (target.matches?.("select, textarea, input:not([type=checkbox]):not([type=range])") || !$("letters").checked) return;
  const lessons = view.mode === "lessons";
  if (!lessons && (here.client !== null || /^\d$/.test(event.key))) {
    pick(event);
    return;
  }
  const onRun = {
    u: undo,
    r: redo,
    s: restart,
    p: () => view.mode === "watch" && play(),
    h: () => view.mode === "break" && hint(),
    m: () => $("graph").focus(),
  };
  const does = {
    ...(lessons ? lessonKeys() : onRun),
    g: toSteps,
    "?": () => {
      $("help").open = !$("help").open;
      if ($("help").open) $("help").querySelector("summary").focus();
    },
  };
  if (!Object.hasOwn(does, event.key)) return;
  does[event.key]();
  event.preventDefault();
}

/** A step by its code, such as 0a: the client's number, then the letter of what it does, and with two keys the key's. */
function pick(event) {
  const code = (here.client ?? "") + event.key;
  const steps = [...document.querySelectorAll("#steps .step")];
  const starts = steps.filter((step) => step.dataset.code.startsWith(code));
  here.client = starts.length ? code : null;
  if (starts.length || /^\d$/.test(event.key)) event.preventDefault();
  for (const step of steps) step.classList.toggle("begun", starts.includes(step));
  if (starts.length === 1 && starts[0].dataset.code === code) {
    here.client = null;
    starts[0].click();
  } else if (starts.length && code.length === 1) starts[0].focus();
}

function toSteps() {
  (document.querySelector("#steps .step") || $("next-title")).focus();
}

// ------------------------------------------------------------------------------------------------------------
// The beginning

function start() {
  makeLights();
  $("rules").replaceChildren(...Object.entries(data.rules).map(([number, text]) => el("li", { value: number }, text)));
  const sum = (name) => data.graphs.reduce((total, graph) => total + graph[name], 0);
  $("size").textContent =
    `This page holds ${count(data.graphs.length, "state graph")} with ${count(sum("reached"), "state")} and ` +
    `${count(sum("transitions"), "step")}, and loads nothing.`;
  $("graph").dataset.focus = "graph";
  $("graph").addEventListener("change", (event) => {
    const graph = data.graphs[Number(event.target.value)];
    pause();
    go({ graph, run: view.mode === "watch" ? favourite(graph) : [], at: 0 });
  });
  $("play").addEventListener("click", play);
  $("undo").addEventListener("click", undo);
  $("redo").addEventListener("click", redo);
  $("restart").addEventListener("click", restart);
  $("slider").addEventListener("input", (moved) => go({ at: Number(moved.target.value) }, { quietly: true }));
  $("link").addEventListener("click", copyLink);
  $("print").addEventListener("click", () => window.print());
  $("map").addEventListener("toggle", draw);
  $("tour").addEventListener("click", tour);
  $("forget").addEventListener("click", forget);
  $("which").replaceChildren(
    ...data.graphs
      .filter((graph) => !graph.correct)
      .sort((a, b) => a.exercise - b.exercise)
      .map((graph) => el("li", {}, `Model ${graph.exercise} is ${graph.model.replace(".", ", to break ")}: ${graph.story}.`)),
  );
  $("skip").addEventListener("click", (event) => {
    event.preventDefault();
    toSteps();
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", arrive);
  arrive();
}

start();
