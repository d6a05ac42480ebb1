/* The mode Lessons: say what a locker with a mistake will do, and see the run on its own code that answers. */

const lessonOf = (number) => data.lessons.find((one) => one.number === number);
const letter = (index) => String.fromCharCode(97 + index);

/** The lesson that comes next, by what was answered in this browser. */
function nextLesson(after = -1) {
  const open = data.lessons.filter(({ number }) => !(number in kept().answers));
  return (open.find(({ number }) => number > after) || open[0] || data.lessons[(after + 1) % data.lessons.length]).number;
}

/** An answer is given. The first one to each lesson is kept: it is the one that was believed. */
function answer(index) {
  const { answers } = kept();
  if (!(view.lesson in answers)) keep({ answers: { ...answers, [view.lesson]: letter(index) } });
  go({ answer: index });
  $("answered").scrollIntoView({ block: "nearest" });
}

function answersSoFar() {
  const first = data.lessons.filter(({ number }) => number in kept().answers);
  const right = first.filter(isRightAtFirst).length;
  return `Lessons answered: ${first.length} of ${data.lessons.length}, ${right} right at the first try.`;
}

const isRightAtFirst = ({ number, choices }) => choices[kept().answers[number]?.charCodeAt(0) - 97]?.right === true;

/** Text in which what stands between backticks is code. */
const prose = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

function drawLesson() {
  const one = lessonOf(view.lesson);
  document.title = `Lesson ${one.number} – kmutex explore`;
  const chosen = view.answer === null ? null : one.choices[view.answer];
  $("next-title").textContent = "Predict before you look";
  $("next").hidden = $("skip").hidden = false;
  $("steps").replaceChildren(el("p", { class: "fine" }, MODES.lessons.purpose), lessonChoice(), el("p", { id: "question" }, prose(one.question)), choicesOf(one));
  $("source-title").textContent = `The code: ${one.title.toLowerCase()}`;
  drawSource(one, chosen);
  $("told").hidden = chosen === null;
  if (chosen) drawTold(one, chosen);
  else $("answered").replaceChildren();
}

/** What the keys of the buttons on show do. */
function lessonKeys() {
  const buttons = [...document.querySelectorAll("#steps button")];
  return Object.fromEntries(buttons.map((each) => [each.getAttribute("aria-keyshortcuts"), () => each.click()]));
}

function lessonChoice() {
  const mark = (one) => (one.number in kept().answers ? (isRightAtFirst(one) ? "✓ " : "· ") : "");
  const options = data.lessons.map((one) => [String(one.number), `${mark(one)}Lesson ${one.number}: ${one.title}`]);
  return el(
    "div",
    { class: "lesson" },
    select("lesson", "Lesson", options, String(view.lesson), (event) => go({ lesson: Number(event.target.value), answer: null })),
    button("next-lesson", "Next ", "n", () => go({ lesson: nextLesson(view.lesson), answer: null })),
  );
}

function choicesOf(one) {
  const choice = ({ text, right }, index) => {
    const chosen = view.answer === index;
    const attributes = {
      type: "button",
      class: `step ${chosen ? (right ? "right" : "wrong") : ""}`,
      "aria-pressed": String(chosen),
      "aria-keyshortcuts": letter(index),
      "data-focus": `answer ${letter(index)}`,
      click: () => answer(index),
    };
    const mark = chosen ? el("span", { class: `tag ${right ? "good" : "bad"}` }, right ? "✓ right" : "✗ no") : null;
    return el("li", {}, el("button", attributes, el("kbd", { "aria-hidden": "true" }, letter(index)), el("span", {}, prose(text), mark)));
  };
  return el("ul", { class: "choices" }, one.choices.map(choice));
}

/** The source, with the clients beside the lines at which they stood in the run. */
function drawSource(one, chosen) {
  const at = chosen ? one.runs[chosen.run].events.filter(([, what]) => typeof what === "number") : [];
  const chips = (line) => [...new Set(at.filter(([, what]) => what === line).map(([client]) => client))].map(chip);
  const row = (text, index) => {
    const stand = chips(one.first + index);
    return el(
      "li",
      { class: stand.length ? "at" : "" },
      el("span", { class: "number" }, String(one.first + index)),
      el("span", { class: "stands" }, stand),
      el("span", {}, text || " "),
    );
  };
  $("source").replaceChildren(el("ol", {}, one.code.trimEnd().split("\n").map(row)));
}

const chip = (client) => el("span", { class: `chip c${client}` }, String(client));

/** What the answer is told, and the run; the line that the answer is held against is marked. */
function drawTold(one, chosen) {
  const run = one.runs[chosen.run];
  const lines = one.code.split("\n");
  const row = ([client, what], at) => {
    const text = typeof what === "number" ? `${what}  ${lines[what - one.first].trim()}` : what;
    const held = at === chosen.shows;
    return el(
      "li",
      { class: `${client < 0 ? "broken" : ""} ${held ? "held" : ""}`, style: client < 0 ? null : `--lane: ${client}` },
      client < 0 ? "✗" : chip(client),
      el("span", { class: typeof what === "number" ? "line" : "" }, text, held ? el("span", { class: "tag" }, "this answers you") : null),
    );
  };
  $("answered").replaceChildren(
    el("p", {}, el("b", { class: chosen.right ? "notice good" : "notice bad" }, chosen.right ? "✓ Right." : "✗ No."), " ", prose(chosen.reply)),
  );
  $("lessons-so-far").textContent = answersSoFar();
  $("timeline").replaceChildren(...run.events.map(row));
  $("again").textContent = one.show && `kmutex show ${one.show} --replay '${run.schedule}' -o run.html`;
  $("again-words").hidden = !one.show;
  $("more").textContent = `kmutex lesson show ${one.number} --answer`;
}
