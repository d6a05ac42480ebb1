/* What the pages have in common: buttons, lights, the slider through a run, the address to hand on. */

const $ = (id) => document.getElementById(id);
const LIGHTS = { untested: "○", seen: "◐", tested: "✓", violated: "✗", unjudged: "–" };

/** Whether the element shows something else than at the last time. One that does not is left as it is, so that a
    list that is open stays open while a run plays. */
function anew(element, shown) {
  const key = JSON.stringify(shown);
  const changed = element.dataset.shown !== key;
  element.dataset.shown = key;
  return changed;
}

function button(id, label, key, action, attributes = {}) {
  return el(
    "button",
    { type: "button", id, "data-focus": id, "aria-keyshortcuts": key || null, click: action, ...attributes },
    label,
    key ? el("kbd", { "aria-hidden": "true" }, key) : null,
  );
}

function select(id, label, options, chosen, change) {
  return el(
    "p",
    { class: "field" },
    el("label", { for: id }, label),
    " ",
    el(
      "select",
      { id, "data-focus": id, change, required: true },
      options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)),
    ),
  );
}

function makeLights() {
  $("lights").replaceChildren(
    ...data.clauses.map(({ id, title: name, statement }) =>
      el(
        "li",
        { id: `light-${id}`, class: "light" },
        el("span", { class: "bulb", "aria-hidden": "true" }),
        el(
          "details",
          {},
          el(
            "summary",
            { "data-focus": `light ${id}` },
            el("b", {}, id),
            ` ${name}. `,
            el("span", { class: "states" }),
          ),
          el("p", {}, `${upper(statement)}.`),
        ),
      ),
    ),
  );
}

/** Set one light. said: texts, each with the state that gives it its colour. */
function setLight(id, state, said) {
  const item = $(`light-${id}`);
  item.className = `light ${state}`;
  item.querySelector(".bulb").textContent = LIGHTS[state];
  item.querySelector(".states").replaceChildren(...said.map(([text, as]) => el("span", { class: `state ${as}` }, `${text} `)));
}

/** The slider: place `at` of `length`, and what is said of it. */
function setSlider(at, length, text) {
  Object.assign($("slider"), { max: length, value: at });
  $("slider").setAttribute("aria-valuetext", text);
  $("place").textContent = text;
}

/** Whether a button or link of the tools can be used. */
function able(id, on) {
  $(id).setAttribute("aria-disabled", String(!on));
  $(id).dataset.focus = id;
}

/** Hand on the address of what is seen. Where the clipboard is closed to the page, it is there to be copied. */
async function copyLink() {
  const say = (text) => ($("copied").textContent = text);
  try {
    await navigator.clipboard.writeText(location.href);
    say("The address is copied.");
  } catch {
    $("copied").replaceChildren(el("label", {}, "Copy this: ", el("input", { id: "href", readonly: true, value: location.href })));
    $("href").select();
  }
}

/** Give the focus back to what was drawn anew. */
function keepFocus(redraw) {
  const focus = document.activeElement?.dataset?.focus;
  redraw();
  if (!focus || document.activeElement?.dataset?.focus === focus) return;
  [...document.querySelectorAll("[data-focus]")].find((element) => element.dataset.focus === focus)?.focus();
}
