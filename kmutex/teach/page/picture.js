/* States and steps, in words and as SVG. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Text is never parsed. Attributes that are null or false are left out. */
function el(name, attributes = {}, ...children) {
  return dress(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return dress(document.createElementNS(SVG, name), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

// ------------------------------------------------------------------------------------------------------------
// Words

const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const listed = (items) =>
  items.length < 2 ? items.join("") : `${items.slice(0, -1).join(", ")} and ${items[items.length - 1]}`;
const clientName = (client) => `client ${client}`;
/** What a key is called; a page that has other names for them says so. */
let keyName = (key) => `key ${key}`;
/** What those at a key are called; a page that has other names for them says so. */
let roles = {
  holder: "holder",
  holders: "holders",
  isHeldBy: "held by",
  free: "nobody holds it",
  idle: "nobody holds it or waits for it",
  queue: "queue",
};
const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

function actionWords(words, action, before) {
  const key = keyOf(action, before);
  return `${clientName(action.client)} ${words.actions[action.name].replace("{key}", keyName(key))}`;
}

function phaseWords(words, client) {
  const at = (place) => words.phases[place.phase].replace("{key}", keyName(place.key));
  return [client, ...(client.also || [])].map(at).join(" and ");
}

/** What a step did, in sentences: the action, what its caller was told, and what changed besides. */
function stepWords(words, step, before, after) {
  const said = [`${upper(actionWords(words, step.action, before))}: ${words.outcomes[step.outcome]}.`];
  after.clients.forEach((client, number) => {
    const was = before.clients[number];
    if (number !== step.action.client && (was.phase !== client.phase || was.key !== client.key)) {
      said.push(`${upper(clientName(number))} now ${phaseWords(words, client)}.`);
    }
  });
  after.entries.forEach((entry, key) => {
    if (before.entries[key] && !entry) said.push(`${upper(keyName(key))} has no entry any more.`);
  });
  if (step.breaks.length === 0 && before.number === after.number) said.push("Nothing has changed.");
  return said.join(" ");
}

/** Who owns the key and who waits for it, as the clients know it; the table may be wrong about that. */
function really(state, key) {
  const at = (...phases) => state.clients.flatMap((c, n) => (c.key === key && phases.includes(c.phase) ? [n] : []));
  return { owners: at("granted", "holding"), waiting: at("waiting") };
}

/** Where the table and the clients do not agree about a key; empty where they do. */
function disagreement(state, key) {
  if (state.entries[key] && (state.entries[key].refs ?? null) === null) return ""; // What is shown is no table of references.
  const entry = state.entries[key] || { holder: -1, queue: [] };
  const { owners, waiting } = really(state, key);
  const same = (a, b) => [...a].sort().join() === [...b].sort().join();
  if (same(owners, entry.holder < 0 ? [] : [entry.holder]) && same(waiting, entry.queue)) return "";
  const parts = [];
  if (owners.length) parts.push(`${listed(owners.map(clientName))} ${owners.length > 1 ? "own" : "owns"} the key`);
  if (waiting.length) parts.push(`${listed(waiting.map(clientName))} ${waiting.length > 1 ? "wait" : "waits"}`);
  return `The table is wrong: in truth ${parts.length ? listed(parts) : "nobody is there"}.`;
}

/** One key as a sentence. */
function keyWords(state, key) {
  const entry = state.entries[key];
  const name = upper(keyName(key));
  if (!entry) return `${name} has no entry: ${roles.idle}.`;
  const doing = entry.refs === null ? "asking" : "waiting";
  const line = entry.queue.length ? `${doing}, oldest first: ${listed(entry.queue.map(clientName))}` : entry.refs === null ? "nobody asks" : "nobody waits";
  const owners = holders(entry);
  let who = owners.length ? `${roles.isHeldBy} ${listed(owners.map(clientName))}` : roles.free;
  if ((entry.refs ?? null) === null) return `${name}: ${who}; ${line}.`;
  if (owners.length && returning(state, key, owners[0]))
    who = `granted to ${clientName(owners[0])}, whose call has not returned yet`;
  return `${name} is in the table: ${who}; ${line}; ${count(entry.refs, "reference")}.`;
}

/** Who holds the key: one, or none; several where two calls came back with it. */
const holders = (entry) => entry.holders || (entry.holder >= 0 ? [entry.holder] : []);

/** Whether the key is granted to this client and its call has not returned. */
function returning(state, key, client) {
  const at = state.clients[client];
  return [at, ...(at.also || [])].some((place) => place.phase === "granted" && place.key === key);
}

// ------------------------------------------------------------------------------------------------------------
// Pictures

const WIDTH = 320;
const HEIGHT = 138;

function token(client, x, y, kind = "") {
  return svg(
    "g",
    { class: `token c${client} ${kind}`, transform: `translate(${x} ${y})` },
    kind === "granted" ? svg("circle", { r: 23, class: "ring" }) : null,
    svg("circle", { r: 18, class: "disc" }),
    svg("text", { y: 6, class: "number" }, String(client)),
  );
}

function caption(text, x, y, kind = "", anchor = "start") {
  return svg("text", { x, y, class: `caption ${kind}`, "text-anchor": anchor }, text);
}

/** One key as a box: the holder's place at the left, the queue as a line of tokens, the references at the top. */
function keyPicture(state, key, changed) {
  const entry = state.entries[key];
  const parts = [
    svg("rect", { x: 2, y: 2, width: WIDTH - 4, height: HEIGHT - 4, rx: 14, class: entry ? "box" : "box absent" }),
    caption(keyName(key), 20, 31, "title"),
  ];
  if (!entry) {
    parts.push(caption("no entry", WIDTH / 2, 84, "nothing", "middle"));
  } else {
    const { queue, refs } = entry;
    const owners = holders(entry);
    const granted = owners.length === 1 && returning(state, key, owners[0]);
    const pitch = queue.length > 4 ? 168 / queue.length : 44;
    const spread = owners.length > 1 ? 22 / (owners.length - 1) : 0;
    const asking = queue.length ? "asking, oldest first" : "nobody asks";
    const title = { 0: "nobody", 1: granted ? "granted" : roles.holder }[owners.length] || `${owners.length} ${roles.holders}`;
    if ((refs ?? null) !== null)
      parts.push(
        svg("rect", { x: WIDTH - 92, y: 14, width: 76, height: 25, rx: 12.5, class: "pill" }),
        caption(`refs ${refs}`, WIDTH - 54, 31.5, "refs", "middle"),
      );
    parts.push(
      svg("circle", { cx: 52, cy: 76, r: 23, class: "place" }),
      owners.length ? null : caption("–", 52, 82, "nothing", "middle"),
      ...owners.map((owner, n) => token(owner, 52 + (n - (owners.length - 1) / 2) * spread, 76, granted ? "granted" : "")),
      caption(title, 52, 120, owners.length > 1 ? "wrong" : "", "middle"),
      svg("path", { d: `M 92 76 H 84 m 6 -6 l -6 6 l 6 6`, class: "arrow" }),
      svg("path", { d: `M 104 98 H ${WIDTH - 20}`, class: "ground" }),
      caption(refs === null ? asking : queue.length ? `${roles.queue}, oldest first` : `${roles.queue}: empty`, 104, 120),
      ...queue.map((client, place) => token(client, 122 + place * pitch, 76)),
    );
  }
  const words = keyWords(state, key);
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": words, class: `key${changed ? " changed" : ""}` },
    parts.filter(Boolean),
  );
}

/** A whole state: the keys as pictures and sentences, then the clients. `marks` has the numbers of keys and
    clients that differ from the other side, in compare. */
function scene(words, state, before, marks = { keys: [], clients: [] }) {
  const text = (value) => JSON.stringify(value);
  const keys = state.entries.map((entry, key) => {
    const changed = before !== null && text(before.entries[key]) !== text(entry);
    const warning = disagreement(state, key);
    return el(
      "figure",
      { class: marks.keys.includes(key) ? "keybox differs" : "keybox" },
      keyPicture(state, key, changed),
      el(
        "figcaption",
        {},
        marks.keys.includes(key) ? el("strong", { class: "mark" }, "≠ differs. ") : null,
        keyWords(state, key),
        warning ? el("strong", { class: "warning" }, `⚠ ${warning}`) : null,
      ),
    );
  });
  const clients = state.clients.map((client, number) =>
    el(
      "li",
      { class: marks.clients.includes(number) ? "client differs" : "client" },
      el("span", { class: `chip c${number} ${client.phase}`, "aria-hidden": "true" }, String(number)),
      el(
        "span",
        {},
        marks.clients.includes(number) ? el("strong", { class: "mark" }, "≠ ") : null,
        `${upper(clientName(number))} ${phaseWords(words, client)}`,
      ),
    ),
  );
  return [el("div", { class: "keys" }, keys), el("ul", { class: "clients", "aria-label": "The clients" }, clients)];
}
