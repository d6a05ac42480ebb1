"use strict";
/* The embedded graph, and how to walk it. Nothing here knows a rule of the lock: a step is possible if the graph
   has it, and breaks what the graph says it breaks. */

/** The data as objects. States and steps stay packed until they are asked for. */
function unpack(data) {
  const actions = data.actions.map(([text, name, client, key]) => ({ text, name, client, key }));
  const situations = data.situations.map(([clause, statement]) => ({ clause, statement }));
  const kinds = data.kinds.map(([action, outcome, rule, breaks, met]) => ({
    action: actions[action],
    outcome,
    rule,
    breaks: breaks.map(([clause, message]) => ({ clause, message })),
    met: met.map((number) => situations[number]),
  }));
  const entries = data.entries.map((entry) => entry && { holder: entry[0], queue: entry[1], refs: entry[2] });
  const clients = data.clients.map(([phase, key]) => ({ phase, key }));
  const run = (numbers) => numbers && numbers.map((number) => actions[number].text);

  const graphs = data.graphs.map((packed) => {
    const [clientCount, keyCount] = packed.bound.split("x").map(Number);
    return {
      ...packed,
      id: `${packed.model} ${packed.bound} ${packed.race}`,
      correct: packed.clause === "",
      clientCount,
      keyCount,
      counterexamples: packed.counterexamples.map((c) => ({ ...c, run: run(c.run), cycle: run(c.cycle) })),
      witnesses: packed.witnesses.map((w) => ({ ...w, run: run(w.run) })),
      state(number) {
        const row = packed.states[number];
        return {
          number,
          entries: row.slice(0, keyCount).map((n) => entries[n]),
          clients: row.slice(keyCount, keyCount + clientCount).map((n) => clients[n]),
          owed: row[row.length - 1],
        };
      },
      steps(number) {
        const row = packed.steps[number] || [];
        const found = [];
        for (let i = 0; i < row.length; i += 2) found.push({ ...kinds[row[i]], after: row[i + 1] });
        return found;
      },
    };
  });
  // By how long the shortest run is that breaks it, and how much there is to search; a number gives no mistake away.
  const effort = (graph) => {
    const { run, cycle } = graph.counterexamples.find((c) => c.clause === graph.clause);
    return [run.length + (cycle || []).length + (cycle === null ? 0 : 2), graph.reached];
  };
  const broken = graphs.filter((graph) => !graph.correct).map((graph) => ({ graph, effort: effort(graph) }));
  broken.sort((a, b) => a.effort[0] - b.effort[0] || a.effort[1] - b.effort[1]);
  broken.forEach(({ graph, effort: [steps] }, place) => Object.assign(graph, { exercise: place + 1, effort: steps }));
  const outcomesOf = (name) => [...new Set(kinds.filter((k) => k.action.name === name).map((k) => k.outcome))].sort();
  return { ...data, actions, situations, graphs, outcomesOf };
}

/** Take the actions one after the other, as far as they go. `refused` is the first that is not possible. */
function walk(graph, schedule) {
  const run = { graph, states: [0], steps: [], refused: null, ended: false };
  for (const text of schedule) {
    const here = run.states[run.states.length - 1];
    const step = run.ended ? undefined : graph.steps(here).find((s) => s.action.text === text);
    if (!step) {
      run.refused = text;
      break;
    }
    run.steps.push(step);
    run.states.push(step.after);
    run.ended = step.breaks.length > 0;
  }
  return run;
}

const lastState = (run) => run.graph.state(run.states[run.states.length - 1]);
const lastStep = (run) => run.steps[run.steps.length - 1] || null;
const possible = (run) => (run.ended ? [] : run.graph.steps(run.states[run.states.length - 1]));
const keyOf = (action, before) => action.key ?? before.clients[action.client].key;

/** A run that goes round forever and is fair, and in which a client is owed something all the time: the end of
    this run, from step `from` on, repeated; or nothing at all (`from` is the number of steps). Null if there is none. */
function lasso(run, fairNames) {
  const { graph, states, steps } = run;
  if (!graph.complete) return null;
  const end = steps.length;
  const enabled = (number) => new Set(graph.steps(number).map((step) => step.action.text));
  const fair = [];
  for (const name of fairNames) for (let c = 0; c < graph.clientCount; c++) fair.push(`${name}(${c})`);

  for (let from = end; from >= 0; from--) {
    if (states[from] !== states[end]) continue;
    const round = states.slice(from, end + 1);
    const owed = round.reduce((bits, number) => bits & graph.state(number).owed, ~0);
    if (!owed) continue;
    const taken = new Set(steps.slice(from).map((step) => step.action.text));
    const isFair = (action) => taken.has(action) || round.some((number) => !enabled(number).has(action));
    if (fair.every(isFair)) return { client: 31 - Math.clz32(owed & -owed), from };
  }
  return null;
}

/** For each clause what this run shows: "violated", "tested" (a situation it is about was met, and it held),
    "seen" (a step of the kind it is about was taken, but not the hard case), "untested", or "unjudged" (this model is not judged by it). */
function lights(run, data) {
  const found = new Map();
  for (const { id } of data.clauses) found.set(id, { light: run.graph.judged.includes(id) ? "untested" : "unjudged" });
  run.steps.forEach((step, index) => {
    for (const [clause, actions] of Object.entries(data.about)) {
      if (found.get(clause)?.light === "untested" && actions.includes(`${step.action.name} ${step.outcome}`))
        found.set(clause, { light: "seen", step: index + 1 });
    }
    for (const { clause, statement } of step.met) {
      if (["untested", "seen"].includes(found.get(clause).light)) found.set(clause, { light: "tested", step: index + 1, statement });
    }
    for (const { clause, message } of step.breaks) found.set(clause, { light: "violated", step: index + 1, message });
  });
  const { clause, fair } = data.lasting;
  if (!run.graph.complete) found.set(clause, { light: "unjudged" });
  const endless = lasso(run, fair);
  if (endless) {
    const { client, from } = endless;
    const again =
      from === run.steps.length
        ? "nothing more need happen"
        : `steps ${from + 1} to ${run.steps.length} can go on forever`;
    found.set(clause, {
      light: "violated",
      step: run.steps.length,
      message: `client ${client} waits forever: ${again}`,
      endless,
    });
  }
  return found;
}
