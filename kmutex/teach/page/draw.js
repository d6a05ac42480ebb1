/* What is on show, drawn anew after each change. `view` and `here` are those of explore.js. */

function draw() {
  const focus = document.activeElement?.dataset?.focus;
  const steps = [...document.querySelectorAll("#steps .step")];
  const place = steps.indexOf(document.activeElement);
  document.body.dataset.mode = view.mode;
  drawModes();
  if (view.mode === "lessons") drawLesson();
  else drawModel();

  // What had the focus may have been drawn anew: give it back, or give it to what took its place.
  if (!focus || document.activeElement?.dataset?.focus === focus) return;
  const again = [...document.querySelectorAll("[data-focus]")].find((element) => element.dataset.focus === focus);
  const now = [...document.querySelectorAll("#steps .step")];
  if (again) again.focus();
  else if (place >= 0) (now[Math.min(place, now.length - 1)] || $("next-title")).focus();
}

function drawModel() {
  const runs = sides(view.mode, view.graph).map((graph) => walk(graph, taken()));
  document.title = `${MODES[view.mode].name}, ${short(view.graph)} – kmutex explore`;
  drawSetup();
  drawScene(runs);
  drawSaid(runs);
  drawPanel(runs);
  drawTools();
  drawSteps(runs);
  drawRun();
  drawLights(runs);
  drawTerms(runs);
  drawGraph(runs[runs.length - 1]);
}

function drawModes() {
  $("modes").replaceChildren(
    ...Object.entries(MODES).map(([mode, { name }]) =>
      el(
        "li",
        {},
        el(
          "a",
          {
            href: address(otherMode(mode)),
            "aria-current": mode === view.mode ? "page" : null,
            "data-focus": `mode ${mode}`,
          },
          name,
        ),
      ),
    ),
  );
}

/** The same in another mode. Watch goes back to the beginning of the run, and chooses one where there is none. */
function otherMode(mode) {
  if (mode === view.mode) return view;
  if (mode === "lessons") return { mode, lesson: nextLesson(), answer: null };
  const graph = graphFor(mode, view.graph);
  const run = graph === view.graph ? taken() : [];
  if (mode !== "watch") {
    const length = longest(mode, graph, run);
    return { mode, graph, run: run.slice(0, length), at: length };
  }
  return { mode, graph, run: run.length ? run : favourite(graph), at: 0 };
}

/** The runs that can be watched. */
function shows(graph) {
  const bad = graph.counterexamples.map((c) => ({
    title: `${c.clause} violated: ${c.message}`,
    run: [...c.run, ...(c.cycle || [])],
    end:
      c.cycle === null
        ? ""
        : c.cycle.length
          ? `The last ${count(c.cycle.length, "step")} can go on forever.`
          : "Nothing more need happen, forever.",
  }));
  const met = graph.witnesses.map((w) => ({
    title: `${w.clause}: ${w.statement}`,
    run: w.run,
    end: `Seen: ${w.statement}.`,
  }));
  return [...bad, ...met];
}

function favourite(graph) {
  const all = shows(graph);
  const race = graph.correct && all.find((show) => show.title.startsWith("KM-RACE"));
  return (race || all[0] || { run: [] }).run;
}

function title(graph) {
  if (!graph.correct) {
    const found = kept().found.includes(graph.model) ? "✓ " : "";
    return `${found}Model ${graph.exercise}: ${graph.clause}, ${count(graph.effort, "step")}`;
  }
  const race = graph.race === "keep" ? "a grant is kept when a cancel meets it" : "a grant is passed on when a cancel meets it";
  return `${count(graph.clientCount, "client")}, ${count(graph.keyCount, "key")}; ${race}`;
}

/** What a model is called where its own name would give its mistake away. */
const short = (graph) => (graph.correct ? "correct" : `model ${graph.exercise}`);

function drawSetup() {
  const { mode, graph } = view;
  $("setup-title").textContent = MODES[mode].name;
  $("purpose").textContent = MODES[mode].purpose;
  drawBound(graph);
  if (!anew($("graph"), [mode, graph.id, kept().found])) return;
  const order = [...data.graphs.keys()].sort((a, b) => (data.graphs[a].exercise || 0) - (data.graphs[b].exercise || 0));
  const options = (belongs) =>
    order
      .filter((number) => belongs(data.graphs[number]) && MODES[mode].fits(data.graphs[number]))
      .map((number) => el("option", { value: number, selected: data.graphs[number] === graph }, title(data.graphs[number])));
  const groups = [
    ["The correct model", options((g) => g.correct)],
    ["With a mistake: a step or two", options((g) => g.effort <= 2)],
    ["With a mistake: three steps", options((g) => g.effort === 3)],
    ["With a mistake: more steps", options((g) => g.effort > 3)],
  ];
  $("graph").replaceChildren(
    ...groups.filter(([, found]) => found.length).map(([label, found]) => el("optgroup", { label }, found)),
  );
}

function drawBound(graph) {
  const end = graph.complete
    ? "These are all the states and steps there are."
    : "A step that breaks a clause is shown and not followed further.";
  $("bound").textContent =
    `Bound: ${count(graph.clientCount, "client")}, ${count(graph.keyCount, "key")}, ${count(graph.reached, "state")}, ` +
    `${count(graph.transitions, "step")}. ${end} Race: ${graph.race}, a grant that meets a cancel is ` +
    `${graph.race === "keep" ? "kept, as by threads" : "passed on, as by asyncio"}.`;
}

function drawScene(runs) {
  const before = (run) => (run.steps.length ? run.graph.state(run.states[run.states.length - 2]) : null);
  if (runs.length === 1) {
    $("scene").replaceChildren(...scene(words, lastState(runs[0]), before(runs[0])));
    return;
  }
  const { keys, clients } = differences(runs);
  $("scene").replaceChildren(
    el(
      "div",
      { class: "sides" },
      runs.map((run) =>
        el(
          "section",
          { class: "side", "aria-label": run.graph.correct ? "The correct model" : upper(short(run.graph)) },
          el("h3", {}, short(run.graph)),
          scene(words, lastState(run), before(run), { keys, clients }),
          stopped(run) ? el("p", { class: "stopped" }, `■ ${stopped(run)}`) : null,
        ),
      ),
    ),
  );
}

/** Why this side of a comparison goes no further; empty where it does. */
function stopped(run) {
  if (run.refused === null) return run.ended ? "It has broken a clause; its search ends here." : "";
  const number = run.steps.length + 1;
  if (run.ended) return `It stands where it broke a clause; step ${number} is not taken here.`;
  return `It stands where it is: step ${number}, ${run.refused}, is not possible here.`;
}

/** Where two runs differ: numbers of keys and clients, and sentences. */
function differences([left, right]) {
  const [a, b] = [lastState(left), lastState(right)];
  const text = (value) => JSON.stringify(value);
  const keys = a.entries.flatMap((entry, key) => (text(entry) === text(b.entries[key]) ? [] : [key]));
  const clients = a.clients.flatMap((client, n) => (text(client) === text(b.clients[n]) ? [] : [n]));
  const sentences = [];
  const [p, q] = [lastStep(left), lastStep(right)];
  if (left.steps.length === right.steps.length && p && p.outcome !== q.outcome) {
    sentences.push(`What the caller was told: ${p.outcome} in the correct model, ${q.outcome} in the other.`);
  }
  if (left.steps.length !== right.steps.length) sentences.push("One of them has stopped; the other goes on.");
  const entryWords = (entry) =>
    entry
      ? `holder ${entry.holder < 0 ? "nobody" : entry.holder}, queue ${entry.queue.length ? entry.queue.join(" ") : "empty"}, refs ${entry.refs}`
      : "no entry";
  for (const key of keys)
    sentences.push(
      `Key ${key}: ${entryWords(a.entries[key])} in the correct model; ${entryWords(b.entries[key])} in the other.`,
    );
  for (const n of clients)
    sentences.push(
      `Client ${n} ${phaseWords(words, a.clients[n])} in the correct model; in the other it ${phaseWords(words, b.clients[n])}.`,
    );
  return { keys, clients, sentences };
}

function account(run) {
  const step = lastStep(run);
  if (!step) return "Nobody has asked for anything yet.";
  return stepWords(words, step, run.graph.state(run.states[run.states.length - 2]), lastState(run));
}

function violations(run) {
  return [...lights(run, data)]
    .filter(([, { light }]) => light === "violated")
    .map(([clause, found]) => ({ clause, ...found }));
}

function drawSaid(runs) {
  const lines = [];
  if (here.notice) lines.push(el("p", { class: `notice ${here.notice.kind}` }, here.notice.text));
  const number = view.at ? `Step ${view.at}. ` : "";
  const moved = runs.filter((run) => run.steps.length === view.at);
  const accounts = moved.map(account);
  if (runs.length === 1 || (moved.length === 2 && accounts[0] === accounts[1])) {
    lines.push(el("p", {}, number, runs.length === 2 && view.at ? "In both: " : "", accounts[0]));
  } else {
    for (const run of runs) {
      const name = run.graph.correct ? "Correct: " : `${short(run.graph)}: `;
      const text = moved.includes(run) ? account(run) : stopped(run);
      lines.push(el("p", {}, number, el("b", {}, name), text));
    }
  }
  for (const run of runs) {
    for (const { clause, message } of violations(run))
      lines.push(el("p", { class: "notice bad" }, `✗ ${clause} is violated: ${message}.`));
  }
  if (view.mode === "watch" && view.run.length && view.at === view.run.length) {
    const show = shows(view.graph).find(({ run }) => run.join() === view.run.join());
    lines.push(el("p", { class: "notice" }, show && show.end ? show.end : "The run is at its end."));
  }
  const rule = lastStep(runs[0]) && lastStep(runs[0]).rule;
  const correct = runs[0].graph.correct;
  $("because").replaceChildren(
    ...(rule && data.rules[rule]
      ? [el("p", {}, el("b", {}, correct ? `Rule ${rule}. ` : `Rule ${rule} of the correct model. `), data.rules[rule])]
      : []),
  );

  // The same text again would be read out again.
  const text = lines.map((line) => line.textContent).join("\n");
  if ($("said").dataset.text === text) return;
  $("said").dataset.text = text;
  $("said").replaceChildren(...lines);
}

function drawTools() {
  able("undo", view.at > 0);
  able("redo", view.at < view.run.length);
  able("restart", view.mode === "watch" ? view.at > 0 : view.run.length > 0);
  able("play", view.run.length > 0);
  $("play").hidden = view.mode !== "watch";
  $("play").firstChild.data = here.timer === null ? "Play " : "Pause ";
  setSlider(view.at, view.run.length, `step ${view.at} of ${view.run.length}`);
  $("redo").firstChild.data = view.mode === "watch" ? "Next step " : "Redo ";
}

// ------------------------------------------------------------------------------------------------------------
// The panel of each mode

function drawPanel(runs) {
  if (
    !anew($("panel"), [
      view.mode,
      view.graph.id,
      view.run,
      view.mode === "watch" ? 0 : view.at,
      here.asked,
      here.notice,
    ])
  )
    return;
  const panels = {
    schedule: schedulePanel,
    watch: watchPanel,
    predict: predictPanel,
    break: breakPanel,
    compare: comparePanel,
  };
  $("panel").replaceChildren(...panels[view.mode](runs).filter(Boolean));
}

const mistake = () =>
  el(
    "details",
    {
      class: "story",
      open: here.story === view.graph.id,
      toggle: (event) => (here.story = event.target.open ? view.graph.id : null),
    },
    el("summary", { "data-focus": "story" }, "What is its mistake? (This tells it.)"),
    el("p", {}, `${upper(view.graph.story)}.`),
  );

function schedulePanel() {
  return view.graph.correct ? [] : [mistake()];
}

function watchPanel() {
  const all = shows(view.graph);
  const number = all.findIndex((show) => show.run.join() === view.run.join());
  const options = all.map((show, n) => [String(n), show.title]);
  if (number < 0)
    options.unshift(["own", view.run.length ? `your own run, ${count(view.run.length, "step")}` : "choose a run"]);
  return [
    select("show", "Run", options, number < 0 ? "own" : String(number), (event) => {
      pause();
      const show = all[Number(event.target.value)];
      if (show) go({ run: show.run, at: 0 });
    }),
    el("p", { class: "fine" }, number < 0 ? "" : `${all[number].title}.`),
    select(
      "pace",
      "Pace",
      PACES.map(([name]) => [name, name]),
      here.pace,
      (event) => (here.pace = event.target.value),
    ),
    view.graph.correct ? null : mistake(),
  ];
}

function predictPanel() {
  return [el("p", { class: "score", id: "score" }, here.asked ? score() : "No prediction yet")];
}

/** What Predict asks before it takes a step. */
function question(run) {
  const before = lastState(run);
  const step = possible(run).find((s) => s.action.text === here.asking);
  const after = run.graph.state(step.after);
  const key = keyOf(step.action, before);
  const told = data.outcomesOf(step.action.name);
  const outcomes = told.length > 1 ? told : Object.keys(words.outcomes);
  const clients = before.clients.map((_, n) => [String(n), clientName(n)]);
  const submit = (event) => {
    event.preventDefault();
    judge(step, before, after, { outcome: $("guess-outcome").value, holder: $("guess-holder").value });
    (document.querySelector("#steps .step") || $("next-title")).focus();
  };
  const leave = () => {
    const text = here.asking;
    here.asking = null;
    draw();
    document.querySelector(`#steps .step[data-action="${text}"]`)?.focus();
  };
  return el(
    "form",
    { class: "guess", submit, "aria-label": "Your prediction" },
    el("h3", {}, `${upper(actionWords(words, step.action, before))}.`),
    select(
      "guess-outcome",
      "What is it told?",
      [["", "choose"], ...outcomes.map((o) => [o, words.outcomes[o]])],
      "",
      null,
    ),
    select("guess-holder", `Whose is key ${key} then?`, [["", "choose"], ["nobody", "nobody’s"], ...clients], "", null),
    el(
      "div",
      { class: "tools" },
      el("button", { type: "submit", class: "main", id: "commit" }, "Take the step"),
      button("leave", "Another step", null, leave),
    ),
  );
}

const progress = () => `You have broken ${kept().found.length} of ${data.graphs.filter((graph) => !graph.correct).length} models.`;

function breakPanel([run]) {
  const { graph } = view;
  const { whole, found } = shortestFrom(graph, []);
  const broken = violations(run);
  const clause = data.clauses.find(({ id }) => id === graph.clause);
  const goal = el(
    "p",
    {},
    "To break: ",
    el("b", {}, `${clause.id}, ${clause.title.toLowerCase()}`),
    `: ${clause.statement}.`,
  );
  const endless =
    graph.clause === data.lasting.clause
      ? el(
          "p",
          { class: "fine" },
          `This takes a run without an end: come back to a state in which the run has been, or to one where nobody is left to help, with a client waiting all the time. Each ${listed(data.lasting.fair)} that stays possible must be taken on the way round.`,
        )
      : null;
  const what =
    found.cycle === null
      ? count(whole.length, "step")
      : `${count(found.run.length, "step")}, and ${found.cycle.length ? count(found.cycle.length, "step") : "nothing"} forever`;
  if (broken.length) {
    if (!kept().found.includes(graph.model)) keep({ found: [...kept().found, graph.model] });
    const wanted = broken.some((b) => b.clause === graph.clause);
    return [
      goal,
      el(
        "p",
        { class: "notice good", id: "found" },
        `✓ Found in ${count(run.steps.length, "step")}. The shortest run: ${what}.${wanted ? "" : ` You broke another clause than ${graph.clause}; this run counts too.`}`,
      ),
      el("p", {}, `Its mistake: ${graph.story}. In kmutex_model it is ${graph.model.split(".")[0]}.`),
      el("p", { class: "fine", id: "progress" }, progress()),
    ];
  }
  return [
    goal,
    endless,
    el("div", { class: "tools" }, button("hint", "Hint", "h", hint)),
    el("p", { class: "fine" }, `The shortest run: ${what}. A hint shows its next step.`),
    el("p", { class: "fine", id: "progress" }, progress()),
    mistake(),
  ];
}

function comparePanel(runs) {
  const { sentences } = differences(runs);
  return [
    mistake(),
    el("h3", {}, "Where they differ"),
    el(
      "div",
      { id: "differences" },
      sentences.length
        ? el(
            "ul",
            {},
            sentences.map((s) => el("li", {}, s)),
          )
        : el("p", {}, view.at ? "Nowhere at this point." : "Nowhere yet: both begin with an empty table."),
    ),
    view.at
      ? null
      : el(
          "div",
          { class: "tools" },
          button("shortest", "Load the shortest run that breaks it", null, () => {
            const { whole } = shortestFrom(view.graph, []);
            go(
              { run: whole, at: 0 },
              { notice: { text: `Loaded ${count(whole.length, "step")}. Redo takes them one by one.`, kind: "" } },
            );
          }),
        ),
  ];
}

// ------------------------------------------------------------------------------------------------------------
// Steps, run, lights

function drawSteps(runs) {
  $("next").hidden = view.mode === "watch";
  $("skip").hidden = view.mode === "watch";
  if (view.mode === "watch") return $("steps").replaceChildren();
  const place = touring();
  const asked = place < 0 ? "Who goes next?" : `First run, ${place + 1} of ${TOUR.length}: ${TOUR[place][1]}`;
  $("next-title").textContent = here.asking === null ? asked : "What will it do?";
  if (here.asking !== null) return $("steps").replaceChildren(question(runs[0]));
  const all = runs.map((run) => (run.refused === null ? possible(run).map((s) => s.action) : []));
  const texts = all.map((actions) => new Set(actions.map((a) => a.text)));
  const order = (a) => [a.client, a.key ?? -1, Object.keys(words.actions).indexOf(a.name)];
  const offered = [...new Set(all.flat())].sort((a, b) => {
    const [x, y] = [order(a), order(b)];
    return x[0] - y[0] || x[1] - y[1] || x[2] - y[2];
  });
  if (!offered.length) {
    const why = runs.some((run) => run.ended)
      ? "This run ends here: its last step broke a clause. Undo, or start over."
      : "No step is possible.";
    return $("steps").replaceChildren(el("p", {}, why));
  }
  const groups = [];
  for (let client = 0; client < view.graph.clientCount; client++) {
    const mine = offered.filter((action) => action.client === client);
    const buttons = mine.map((action) => {
      const code = codeOf(action);
      const side = texts.findIndex((set) => set.has(action.text));
      const before = lastState(runs[side]);
      const only = runs.length === 2 && !texts.every((set) => set.has(action.text));
      const tag = only ? el("span", { class: "tag" }, unfit(runs[texts[0].has(action.text) ? 1 : 0])) : null;
      const hinted = here.hint === action.text || (place >= 0 && action.text === TOUR[place][0]);
      const label = words.actions[action.name].replace("{key}", `key ${keyOf(action, before)}`);
      return el(
        "li",
        {},
        el(
          "button",
          {
            type: "button",
            class: hinted ? "step hinted" : "step",
            "data-action": action.text,
            "data-focus": `step ${action.text}`,
            "data-code": code,
            "aria-keyshortcuts": code.split("").join(" "),
            click: () => choose(action.text),
          },
          el("kbd", { "aria-hidden": "true" }, code),
          el(
            "span",
            {},
            el("span", { class: "unseen" }, `Client ${client} `),
            label,
            tag,
            hinted ? el("span", { class: "tag" }, place >= 0 ? "this one" : "hint") : null,
          ),
        ),
      );
    });
    groups.push(
      el(
        "div",
        { class: "group" },
        el(
          "h3",
          {},
          el("span", { class: `chip c${client}`, "aria-hidden": "true" }, String(client)),
          `Client ${client}`,
        ),
        buttons.length ? el("ul", {}, buttons) : el("p", { class: "fine" }, "no step now"),
      ),
    );
  }
  $("steps").replaceChildren(...groups);
}

/** What is typed for a step. It means the same wherever it can be taken. */
const codeOf = ({ client, name, key }) => `${client}${data.words.letters[name]}${view.graph.keyCount > 1 && key !== null ? key : ""}`;

const unfit = (run) =>
  run.ended || run.refused !== null ? `${short(run.graph)} has stopped` : `not possible in ${short(run.graph)}`;

function drawRun() {
  const runs = sides(view.mode, view.graph).map((graph) => walk(graph, view.run));
  const item = (number, text, outcome) =>
    el(
      "li",
      { class: number > view.at ? "ahead" : "" },
      el(
        "a",
        {
          href: address({ ...view, at: number }),
          "aria-current": number === view.at ? "step" : null,
          "data-focus": `at ${number}`,
        },
        text,
      ),
      outcome ? el("span", { class: "outcome" }, ` ${outcome}`) : null,
      number > view.at ? el("span", { class: "unseen" }, " (not taken now)") : null,
    );
  const items = [item(0, "The beginning", "")];
  view.run.forEach((text, index) => {
    const took = runs.filter((run) => run.steps.length > index);
    const before = took[0].graph.state(took[0].states[index]);
    const outcomes = runs.map((run) => (run.steps[index] ? run.steps[index].outcome : "not possible"));
    const shown =
      new Set(outcomes).size === 1 ? outcomes[0] : `correct: ${outcomes[0]}; ${short(view.graph)}: ${outcomes[1]}`;
    const hidden = view.mode === "predict" && index >= view.at;
    items.push(item(index + 1, upper(actionWords(words, took[0].steps[index].action, before)), hidden ? "" : shown));
  });
  $("run").replaceChildren(el("ol", { start: 0 }, items));
}

/** What a clause that was not put to the test waits for: a refusal that was seen may not be the hard case. */
function awaited(clause) {
  const cases = data.situations.filter((situation) => situation.clause === clause).map(({ statement }) => statement);
  return cases.length ? `Not put to the test. That takes: ${cases.join("; or: ")}` : "Not put to the test";
}

function lightWords({ light, step, message, statement }, clause) {
  if (light === "violated") return `Violated at step ${step}: ${message}`;
  if (light === "tested") return `Kept, and put to the test at step ${step}: ${statement}`;
  if (light === "seen") return `Seen at step ${step}, and kept; its hard case was not. ${awaited(clause)}`;
  return light === "unjudged" ? "Not judged for this model" : awaited(clause);
}

function drawLights(runs) {
  const found = runs.map((run) => lights(run, data));
  let tested = 0;
  for (const { id } of data.clauses) {
    const each = found.map((of) => of.get(id));
    const worst = each.find(({ light }) => light === "violated") || each[each.length - 1];
    const texts = each.map((found) => lightWords(found, id));
    const same = texts.length === 1 || texts[0] === texts[1];
    setLight(
      id,
      worst.light,
      same
        ? [[`${texts[0]}.`, worst.light]]
        : [
            [`Correct: ${texts[0]}.`, each[0].light],
            [`${short(view.graph)}: ${texts[1]}.`, each[1].light],
          ],
    );
    if (each.some(({ light }) => light === "tested" || light === "violated")) tested += 1;
  }
  const broken = runs.flatMap(violations).length;
  $("tally").textContent =
    `Put to the test by this run: ${tested} of ${data.clauses.length}. Violated: ${broken || "none"}.`;
}

// ------------------------------------------------------------------------------------------------------------
// Terms, and the graph

/** The terms that are on show now, each explained. */
function drawTerms(runs) {
  const state = lastState(runs[0]);
  const actions = runs.flatMap(possible).map(({ action }) => action.name);
  const phases = state.clients.map(({ phase }) => phase);
  const shown = {
    outside: phases.includes("idle"),
    granted: phases.includes("granted"),
    refs: state.entries.some(Boolean),
    "timeout 0": actions.includes("try"),
    interrupted: actions.includes("interrupt"),
    lease: actions.includes("stale_release"),
    [view.graph.race]: true,
    bound: true,
  };
  $("terms").replaceChildren(
    ...Object.keys(shown)
      .filter((term) => shown[term])
      .map((term) => el("div", {}, el("dt", {}, term), el("dd", {}, data.words.terms[term]))),
  );
}

const MOST_EDGES = 260;

/** All states in layers, by how many steps it takes to come there; the run so far, and where it stands. */
function drawGraph(run) {
  if (!$("map").open) return;
  const { graph, states } = run;
  const depth = new Map([[0, 0]]);
  const from = new Map();
  for (const number of depth.keys())
    for (const step of graph.steps(number))
      if (!depth.has(step.after)) {
        depth.set(step.after, depth.get(number) + 1);
        from.set(step.after, [number, step.action.text]);
      }
  const layers = [];
  for (const [number, layer] of depth) (layers[layer] ||= []).push(number);
  const [wide, high] = [Math.max(640, layers.length * 70), Math.max(...layers.map((layer) => layer.length)) * 14 + 40];
  const at = new Map();
  layers.forEach((layer, x) =>
    layer.forEach((number, y) => at.set(number, [40 + (x * (wide - 80)) / Math.max(1, layers.length - 1), 20 + ((y + 0.5) * (high - 40)) / layer.length])),
  );
  const here = states[states.length - 1];
  const between = new Map();
  for (const number of depth.keys())
    for (const step of graph.steps(number))
      if (step.after !== number) between.set(`${number} ${step.after}`, [number, step.after, step.breaks.length > 0]);
  const edges = [...between.values()];
  const taken = new Set(states.slice(1).map((after, index) => `${states[index]} ${after}`));
  const few = edges.length <= MOST_EDGES;
  const line = ([a, b, breaks]) => {
    const [[x, y], [u, v]] = [at.get(a), at.get(b)];
    const kind = taken.has(`${a} ${b}`) ? "taken" : breaks ? "breaks" : "";
    return svg("path", { class: `edge ${kind}`, d: `M ${x} ${y} Q ${(x + u) / 2} ${(y + v) / 2 - (x >= u ? 18 : 0)} ${u} ${v}` });
  };
  const way = (number) => (from.has(number) ? [...way(from.get(number)[0]), from.get(number)[1]] : []);
  const dot = ([number, [x, y]]) =>
    svg(
      "circle",
      { cx: x, cy: y, r: number === here ? 7 : 4, class: number === here ? "state here" : number >= graph.reached ? "state bad" : "state", click: () => go({ run: way(number), at: way(number).length }) },
      svg("title", {}, graph.state(number).entries.map((_, key) => keyWords(graph.state(number), key)).join(" ")),
    );
  const shown = few ? edges : edges.filter(([a, b]) => a === here || taken.has(`${a} ${b}`));
  $("map-words").textContent =
    `${count(depth.size, "state")} in ${count(layers.length, "layer")}, by the fewest steps that lead there; ${count(edges.length, "way")} from one to another` +
    `${few ? "" : ", of which those from here and those of the run are drawn"}. You are in layer ${depth.get(here)}. A click leads to a state by its shortest run.`;
  $("graph-picture").replaceChildren(
    svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": $("map-words").textContent, class: "graph" }, shown.map(line), [...at].map(dot)),
  );
}
