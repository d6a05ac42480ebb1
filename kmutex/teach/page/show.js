"use strict";
/* The page of real code: recorded runs, and what else could have happened at each choice of them. */

const data = JSON.parse(document.getElementById("data").textContent);
const words = data.words;
const PACE = 900;

/** What is on show: the story, the number of its run, and how many events of that have happened. */
let view = null;
const here = { timer: null, notice: null, shown: null };

// ------------------------------------------------------------------------------------------------------------
// The recorded runs

const event = (number) => {
  const [client, text, change, key, file, line] = data.events[number];
  return { client, text, change, key, file, line };
};

/** A run as a whole: a run that parts from another has that one's events up to there. */
function whole(story, number) {
  const run = story.runs[number];
  if (!run.all) {
    const before = run.parent < 0 ? [] : whole(story, run.parent).all.slice(0, run.shared);
    run.all = [...before, ...run.events.map(event)];
    run.picks = run.choices.map(([, pick]) => pick);
    run.number = number;
  }
  return run;
}

/** The run that makes these choices first, if it was recorded. */
function recorded(story, picks) {
  const found = story.runs.findIndex((_, number) => {
    const run = whole(story, number);
    return picks.every((pick, at) => run.picks[at] === pick);
  });
  return found < 0 ? null : found;
}

/** Where two runs part: how many events they have in common. */
function parting(one, other) {
  let at = 0;
  while (at < one.all.length && at < other.all.length && one.all[at].text === other.all[at].text && one.all[at].client === other.all[at].client) at += 1;
  return at;
}

const story = () => data.stories[view.story];
const current = () => whole(story(), view.run);

/** At which line each client stands, by client; and whose line was the last. */
function places(run, at) {
  const found = new Map();
  let moved = null;
  for (const { client, file, line, change } of run.all.slice(0, at)) {
    if (client < 0) continue;
    if (line) found.set(client, { file, line });
    else if (["has", "refused", "comes back", "takes away"].includes(change)) found.delete(client);
    if (line) moved = client;
  }
  return { found, moved };
}

/** Who holds and who waits, as calls and answers tell. */
function seen(run, at) {
  const { keys, clients } = story();
  const doing = Array.from({ length: clients }, () => new Map());
  const queues = keys.map(() => []);
  for (const { client, change, key } of run.all.slice(0, at)) {
    if (client < 0 || !change) continue;
    const number = keys.indexOf(key);
    const queue = queues[number];
    const leave = () => queue.includes(client) && queue.splice(queue.indexOf(client), 1);
    if (change === "asks") {
      queue.push(client);
      doing[client].set(number, doing[client].get(number) === "holding" ? "holding" : "asking");
    } else if (change === "has") {
      leave();
      doing[client].set(number, "holding");
    } else if (change === "refused") {
      leave();
      if (doing[client].get(number) === "asking") doing[client].delete(number);
    } else if (change === "lets go") doing[client].set(number, "leaving");
    else if (change === "calls") doing[client].set(number, doing[client].get(number) || "leaving");
    else {
      if (change === "takes away")
        doing.forEach((of) => of.get(number) === "holding" && of.delete(number));
      if (doing[client].get(number) === "leaving") doing[client].delete(number);
    }
  }
  return {
    entries: keys.map((_, key) => {
      const owners = doing.flatMap((of, client) => (of.get(key) === "holding" ? [client] : []));
      return owners.length || queues[key].length ? { holders: owners, holder: owners[0] ?? -1, queue: queues[key], refs: null } : null;
    }),
    clients: doing.map((of) => client([...of].map(([key, phase]) => [phase, key]))),
  };
}

/** What a client does, of the form that pictures want. */
function client(at) {
  const [first, ...also] = at.map(([phase, key]) => ({ phase, key }));
  return first ? { ...first, also } : { phase: "idle", key: null };
}

/** The model at this moment; null where there is none. */
function model(run, at) {
  const number = last(run.model, at);
  if (number === undefined) return null;
  const [entries, clients] = data.states[number];
  return { entries: entries.map((e) => e && { holder: e[0], queue: e[1], refs: e[2] }), clients: clients.map(client) };
}

/** Of pairs of a moment and a value, the last value until now. */
const last = (pairs, at) => pairs.filter(([when]) => when <= at).pop()?.[1];

/** For each clause what the run shows so far. */
function lights(run, at) {
  const found = new Map(data.clauses.map(({ id }) => [id, { light: data.off.includes(id) ? "unjudged" : "untested" }]));
  for (const [clause, when] of Object.entries(run.tested))
    if (when <= at && found.has(clause)) found.set(clause, { light: "tested", when });
  for (const [when, clauses, message, promised] of run.breaches)
    if (when <= at)
      for (const clause of clauses)
        if (found.get(clause)?.light !== "violated") found.set(clause, { light: promised ? "violated" : "unpromised", when, message });
  return found;
}

// ------------------------------------------------------------------------------------------------------------
// The address

const address = ({ story, run, at }) => `#story=${story}&run=${run}&at=${at}`;

function arrive() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const number = (name, most) => Math.min(Math.max(Number.parseInt(asked.get(name), 10) || 0, 0), most);
  const wanted = { story: number("story", data.stories.length - 1) };
  wanted.run = number("run", data.stories[wanted.story].runs.length - 1);
  wanted.at = number("at", whole(data.stories[wanted.story], wanted.run).all.length);
  pause();
  view = wanted;
  draw();
}

function go(change, notice = null) {
  view = { ...view, ...change };
  view.at = Math.min(Math.max(view.at, 0), current().all.length);
  here.notice = notice;
  if (address(view) !== location.hash) history.replaceState(null, "", address(view));
  draw();
}

// ------------------------------------------------------------------------------------------------------------
// What the reader does

const step = () => go({ at: view.at + 1 });
const back = () => go({ at: view.at - 1 });
const restart = () => go({ at: 0 });

/** The next place at which there is something to choose. */
function turn() {
  const at = current().choices.map(([when]) => when).find((when) => when > view.at);
  go({ at: at ?? current().all.length });
}

function take(number, at) {
  const before = current();
  const parts = parting(before, whole(story(), number));
  go({ run: number, at: at + 1 }, `Another run: it parts from the one before after step ${parts}.`);
}

function pause() {
  clearTimeout(here.timer);
  here.timer = null;
}

function play() {
  if (here.timer !== null) {
    pause();
    return draw();
  }
  if (view.at >= current().all.length) go({ at: 0 });
  const beat = () => {
    here.timer = setTimeout(() => {
      step();
      if (view.at < current().all.length) beat();
      else pause();
      draw();
    }, PACE);
  };
  beat();
  draw();
}

function onKey(pressed) {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey || pressed.defaultPrevented) return;
  if (pressed.target.matches?.("select, textarea, input:not([type=checkbox]):not([type=range])") || !$("letters").checked) return;
  const does = {
    r: step,
    u: back,
    n: turn,
    p: play,
    s: restart,
    g: toSteps,
    "?": () => ($("help").open = !$("help").open),
  };
  if (!Object.hasOwn(does, pressed.key)) return;
  does[pressed.key]();
  pressed.preventDefault();
}

const toSteps = () => (document.querySelector("#steps .step") || $("next-title")).focus();

// ------------------------------------------------------------------------------------------------------------
// Drawing

function draw() {
  keepFocus(() => {
    drawHead();
    drawTools();
    drawSource();
    drawSaid();
    drawSteps();
    drawScene();
    drawLights();
    drawRun();
  });
}

function drawHead() {
  const broken = current().breaches.filter(([, , , promised]) => promised);
  const [, clauses, message] = broken[broken.length - 1] || current().breaches[current().breaches.length - 1] || [];
  $("verdict").textContent = message ? `${listed(clauses)}: ${message}` : "This run breaks no clause.";
  document.title = `${data.target} – kmutex show`;
  $("stories-field").hidden = data.stories.length < 2;
  $("stories").value = String(view.story);
}

function drawTools() {
  const { all } = current();
  able("step", view.at < all.length);
  able("back", view.at > 0);
  able("turn", view.at < all.length);
  able("restart", view.at > 0);
  able("play", all.length > 0);
  $("play").firstChild.data = here.timer === null ? "Play " : "Pause ";
  setSlider(view.at, all.length, `step ${view.at} of ${all.length}`);
}

function drawSource() {
  const { found, moved } = places(current(), view.at);
  const ahead = places(current(), current().all.length);
  const file = (moved === null ? [...ahead.found.values()][0]?.file : found.get(moved)?.file) ?? here.shown ?? 0;
  if (here.shown !== file) {
    here.shown = file;
    const { name, first, lines } = data.files[file] || { name: "no source", first: 1, lines: [] };
    $("source").dataset.name = name;
    $("source").replaceChildren(
      el(
        "ol",
        { start: first },
        lines.map((line, n) =>
          el("li", { "data-line": first + n }, el("span", { class: "number" }, String(first + n)), el("span", { class: "stands" }), el("code", {}, line || " ")),
        ),
      ),
    );
  }
  const elsewhere = [...found].filter(([, place]) => place.file !== file);
  $("code-title").textContent = [
    $("source").dataset.name,
    ...elsewhere.map(([client, place]) => `client ${client}: ${data.files[place.file].name}, line ${place.line}`),
  ].join("; ");
  for (const line of $("source").querySelectorAll("li.at")) {
    line.classList.remove("at", "moved");
    line.querySelector(".stands").replaceChildren();
  }
  const before = current().all.slice(0, view.at).filter((one) => one.line && one.file === file).pop();
  let shown = before ? $("source").querySelector(`li[data-line="${before.line}"]`) : null;
  for (const [client, place] of found) {
    if (place.file !== file) continue;
    const line = $("source").querySelector(`li[data-line="${place.line}"]`);
    line.classList.add("at");
    if (client === moved) line.classList.add("moved");
    line.querySelector(".stands").append(chip(client), el("span", { class: "unseen" }, `client ${client} stands here: `));
  }
  if (shown) {
    const box = $("source");
    const top = shown.offsetTop - box.offsetTop;
    if (top < box.scrollTop + 24 || top + shown.offsetHeight > box.scrollTop + box.clientHeight - 24) box.scrollTop = top - box.clientHeight / 2;
  }
}

const chip = (client) => el("span", { class: `chip c${client % 4}`, "aria-hidden": "true" }, String(client));

/** One event in words. */
function telling({ client, text, line, file }) {
  if (client < 0) return text;
  if (line) return `Client ${client} comes to line ${line} of ${data.files[file].name}:${text.slice(5)}`;
  if (text.startsWith("...")) return `Client ${client}: ${text.slice(4)}`;
  return text.endsWith(" ...") ? `Client ${client} calls ${text.slice(0, -4)}` : `Client ${client}, ${text}`;
}

function drawSaid() {
  const run = current();
  const lines = [];
  if (here.notice) lines.push(el("p", { class: "notice" }, here.notice));
  const now = run.all[view.at - 1];
  const verdicts = run.breaches.filter(([when]) => when === view.at);
  if (!now) lines.push(el("p", {}, "Nothing has happened yet. The locker is new."));
  else if (now.client >= 0 || !verdicts.length) lines.push(el("p", {}, `Step ${view.at}. ${telling(now)}`));
  for (const [, clauses, message, promised] of verdicts)
    lines.push(el("p", { class: promised ? "notice bad" : "notice" }, `${promised ? "✗" : "–"} ${listed(clauses)}${promised ? "" : ", not promised"}: ${message}.`));
  if (run.parts >= 0 && run.parts === view.at) lines.push(el("p", { class: "notice bad" }, "Here the code and the model part."));
  if (view.at === run.all.length && !run.breaches.length)
    lines.push(el("p", { class: "notice good" }, run.ended ? "✓ The run is at its end, and breaks no clause." : "The run has no end within the limit, so nothing is decided."));
  const text = lines.map((line) => line.textContent).join("\n");
  if ($("said").dataset.text === text) return;
  $("said").dataset.text = text;
  $("said").replaceChildren(...lines);
}

/** What an alternative is, in words. */
function moveWords([who, how, cost], taken, following) {
  const looped = story().level === "tasks" || story().level === "timeouts";
  const other = looped ? `the event loop${following >= 0 ? `, with client ${following},` : ""}` : "a thread of the locker’s own";
  const name = who < 0 || who >= story().clients ? other : clientName(who);
  if (how === "phase") return "the next phase of the program begins";
  if (how === "expired") return `the time of ${name}’s wait is over`;
  if (how === "interrupted") return `an interrupt strikes ${name}’s wait`;
  if (how === "cancel") return story().level === "timeouts" ? `the time of ${name}’s wait is over` : `${name}’s task is cancelled`;
  return `${name} goes on${cost && !taken ? " (a preemption)" : ""}`;
}

function drawSteps() {
  const run = current();
  const mine = run.choices.flatMap(([at, pick, moves], number) => (at === view.at ? [{ number, pick, moves }] : []));
  if (!mine.length) {
    const next = run.choices.find(([at]) => at > view.at);
    return $("steps").replaceChildren(
      el("p", { class: "fine" }, view.at >= run.all.length ? "Nothing: the run is over." : `Nothing: there is no choice here. ${next ? `The next is after step ${next[0]}.` : "There is none any more."}`),
    );
  }
  const items = mine.flatMap(({ number, pick, moves }, n) =>
    moves.map((move, alternative) => {
      const taken = alternative === pick;
      const other = taken ? view.run : recorded(story(), [...run.picks.slice(0, number), alternative]);
      const following = other === null ? -1 : (whole(story(), other).all[view.at]?.client ?? -1);
      const label = [el("span", { class: "what" }, upper(moveWords(move, taken, following))), mine.length > 1 ? el("span", { class: "fine" }, ` choice ${n + 1} of ${mine.length} here`) : null];
      const outcome = other === null ? null : verdictOf(whole(story(), other));
      const tag = taken ? el("span", { class: "tag own" }, "this run") : other === null ? el("span", { class: "tag" }, "not recorded") : el("span", { class: `tag ${outcome.kind}` }, outcome.text);
      return el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            class: taken ? "step own" : "step",
            "aria-disabled": other === null ? "true" : null,
            "data-choice": number,
            "data-alternative": alternative,
            "data-focus": `choice ${number} ${alternative}`,
            click: () => (taken ? step() : other === null ? missing(number, alternative) : take(other, view.at)),
          },
          move[0] >= 0 && move[0] < story().clients ? chip(move[0]) : el("span", { class: "chip none", "aria-hidden": "true" }, "·"),
          el("span", {}, ...label.filter(Boolean), tag),
        ),
      );
    }),
  );
  $("steps").replaceChildren(el("ul", {}, items));
}

function verdictOf(run) {
  const broken = run.breaches.find(([, , , promised]) => promised);
  if (broken) return { kind: "bad", text: `✗ ${broken[1][0]}` };
  return { kind: "good", text: run.ended ? "✓ breaks nothing" : "no end" };
}

/** An alternative that was not run: the command that shows it. */
function missing(number, alternative) {
  const run = current();
  const picks = [...run.picks.slice(0, number), alternative].flatMap((pick, at) => (pick ? [`${at}:${pick}`] : []));
  const schedule = [run.schedule.replace(/( \d+:\d+)*$/, ""), ...picks].join(" ");
  go({}, `That was not run: the page holds ${count(story().runs.length, "run")}, and ${story().left} alternatives are left out. This shows it: ${story().command} -o page.html --replay '${schedule}'`);
}

function drawScene() {
  const run = current();
  const before = Math.max(view.at - 1, 0);
  const [mine, sound] = [seen(run, view.at), model(run, view.at)];
  const parted = run.parts >= 0 && view.at >= run.parts;
  const text = (value) => JSON.stringify(value);
  const who = (entry) => text(entry && [holders(entry), entry.queue]);
  const keys = parted && sound ? mine.entries.flatMap((entry, key) => (who(entry) === who(sound.entries[key]) ? [] : [key])) : [];
  const counted = last(run.counts, view.at);
  const side = (name, state, was, note) =>
    el("section", { class: "side", "aria-label": name }, el("h3", {}, name, note ? el("span", { class: "fine" }, ` ${note}`) : null), scene(words, state, was, { keys, clients: [] }));
  const sides = [side("your code", mine, seen(run, before), counted === undefined ? "" : `len() said ${counted}`)];
  if (sound) sides.push(side("the model", sound, model(run, before), parted ? "the sound run" : ""));
  $("scene").replaceChildren(el("div", { class: "sides" }, sides));
}

function drawLights() {
  const found = lights(current(), view.at);
  let tested = 0;
  for (const [id, { light, when, message }] of found) {
    const shown = light === "unpromised" ? "unjudged" : light;
    const said = {
      violated: `Violated at step ${when}: ${message}.`,
      unpromised: `Broken at step ${when}, and not promised: ${message}.`,
      tested: `Put to the test at step ${when}, and kept.`,
      unjudged: "Not judged for this locker.",
      untested: "Not put to the test so far.",
    }[light];
    setLight(id, shown, [[said, shown]]);
    if (light === "tested" || light === "violated") tested += 1;
  }
  const broken = [...found.values()].filter(({ light }) => light === "violated").length;
  $("tally").textContent = `Put to the test so far: ${tested} of ${found.size}. Violated: ${broken || "none"}.`;
}

function drawRun() {
  const run = current();
  const sound = story().sound;
  const links = [];
  if (run.model.length && run.parts >= 0 && run.parts !== view.at)
    links.push(button("parts", `Where they part: step ${run.parts}`, null, () => go({ at: run.parts })));
  if (view.run !== 0) links.push(button("first", "Back to the run that was asked for", null, () => go({ run: 0, at: Math.min(view.at, parting(run, whole(story(), 0))) })));
  if (sound >= 0 && view.run !== sound) {
    const parts = parting(run, whole(story(), sound));
    links.push(button("sound", `Nearest sound run: after step ${parts}`, null, () => go({ run: sound, at: parts }, "A run of the same code that breaks nothing. Step on, and see what it does instead.")));
  }
  $("compare").replaceChildren(...links);
  if (!anew($("run"), [view.story, view.run])) return markRun();
  const places = new Set(run.choices.map(([at]) => at));
  $("run").replaceChildren(
    el(
      "ol",
      { start: 0 },
      [null, ...run.all].map((one, at) =>
        el(
          "li",
          { class: one && one.client < 0 ? "verdict" : "" },
          el(
            "a",
            { href: address({ ...view, at }), "data-at": at, "data-focus": `at ${at}` },
            one && one.client >= 0 ? chip(one.client) : null,
            one ? (one.line ? `line ${one.line}:${one.text.slice(6)}` : one.text) : "The beginning",
          ),
          places.has(at) ? el("span", { class: "outcome" }, " choice") : null,
          at === run.parts ? el("span", { class: "outcome parts" }, " here they part") : null,
        ),
      ),
    ),
  );
  markRun();
}

function markRun() {
  for (const link of $("run").querySelectorAll("a")) {
    const at = Number(link.dataset.at);
    link.parentElement.classList.toggle("ahead", at > view.at);
    if (at === view.at) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
  }
}

// ------------------------------------------------------------------------------------------------------------
// The beginning

function start() {
  keyName = (key) => `key ${story().keys[key]}`;
  if (words.roles) roles = words.roles;
  makeLights();
  $("target").textContent = data.target;
  $("foot").textContent = `${data.taken ? `Taken as ${data.taken}. ` : ""}${data.foot}. This page loads nothing.`;
  $("stories").replaceChildren(
    ...data.stories.map((one, number) => {
      const broken = one.runs[0].breaches;
      const name = broken.length ? `${listed(broken[broken.length - 1][1])}: ${broken[broken.length - 1][2]}` : `${one.program}: breaks nothing`;
      return el("option", { value: number }, name);
    }),
  );
  $("stories").addEventListener("change", (changed) => go({ story: Number(changed.target.value), run: 0, at: 0 }));
  $("slider").addEventListener("input", (moved) => go({ at: Number(moved.target.value) }));
  for (const [id, does] of Object.entries({ step, back, turn, play, restart, link: copyLink, print: () => window.print() })) $(id).addEventListener("click", does);
  $("skip").addEventListener("click", (clicked) => {
    clicked.preventDefault();
    toSteps();
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", arrive);
  arrive();
}

start();
