"""Lessons as slides: one offline file, made from the lessons and their runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape

from kmutex.engine.timeline import picture
from kmutex.picture.svg import svg
from kmutex.teach.lesson import Lesson, find

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ margin: 0; font: 26px/1.4 system-ui, sans-serif; color: #1b1d21; background: #fff }}
section {{ box-sizing: border-box; min-height: 100vh; padding: 5vh 7vw; border-bottom: 1px solid #8886 }}
h2 {{ margin: 0 0 3vh; font-size: 34px }}
h2 small {{ font-weight: 400; color: #5c6370 }}
pre {{ margin: 0; line-height: 1.3; font-family: ui-monospace, monospace; overflow: auto }}
code {{ font-family: ui-monospace, monospace; font-size: .9em }}
svg {{ width: 100%; height: 76vh }}
details {{ font-size: 20px; margin-top: 1ex }}
ol {{ list-style: lower-alpha }}
@media (prefers-color-scheme: dark) {{
  body {{ color: #e8e8ea; background: #16181c }}
  h2 small {{ color: #a4abb8 }}
}}
@media print {{ section {{ break-after: page; border: 0; min-height: 0 }} details {{ display: none }} }}
</style>
</head>
<body>
{slides}
<script>
const all = [...document.querySelectorAll("section")];
const here = () => all.findIndex((one) => one.getBoundingClientRect().bottom > innerHeight / 2);
addEventListener("keydown", (event) => {{
  const by = {{ ArrowRight: 1, PageDown: 1, ArrowLeft: -1, PageUp: -1 }}[event.key];
  if (!by || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  const more = all[here()].getBoundingClientRect().bottom - innerHeight;
  if (by > 0 && more > 9) return scrollBy(0, Math.min(more, innerHeight * 0.8));
  all[Math.min(all.length - 1, Math.max(0, here() + by))].scrollIntoView();
}});
</script>
</body>
</html>
"""

MOST_LINES = 28
"""The most lines of a locker in one column."""


def slides(lessons: Iterable[Lesson]) -> str:
    """Return one HTML file: for each lesson its situation, code, question, run, explanation and exercise.

    The arrow keys and Page Up and Down move. Replies to answers are for the teacher: folded, and not printed.

    Raises:
        NotFoundError: A run was not found.
    """
    every = list(lessons)
    title = ", ".join(f"{one.number}. {one.title}" for one in every)
    return _PAGE.format(title=escape(title), slides="\n".join(part for one in every for part in _of(one)))


def _of(one: Lesson) -> Iterator[str]:
    found = find(one)

    def slide(head: str, body: str) -> str:
        return (
            f"<section>\n<h2>{escape(head)} <small>{one.number}. {escape(one.title)}</small></h2>\n{body}\n</section>"
        )

    yield slide("Situation", as_html(one.parts["Situation"]))
    code = one.code.replace("\n\n\n", "\n\n")
    lines = code.count("\n")
    columns = 1 + (lines > MOST_LINES)
    wide = 0.61 * columns * max(map(len, code.splitlines()))
    size = f"min(20px, calc(74vh / {1.35 * lines / columns:.0f}), calc(82vw / {wide:.0f}))"
    style = f"columns: {columns}; font-size: {size}"
    yield slide("The code", f'<pre style="{style}">{escape(code)}</pre>')
    answers = "".join(f"<li>{_inline(choice.text)}</li>" for choice in one.choices)
    replies = "".join(f"<li>{'Right. ' if choice.right else ''}{_inline(choice.reply)}</li>" for choice in one.choices)
    folded = f"<details><summary>What to say</summary><ol>{replies}</ol></details>"
    yield slide("Predict", f"<p>{_inline(one.ask)}</p><ol>{answers}</ol>{folded}")
    drawn = svg(picture(found.short), title=f"{one.title}: {found.message}", cell=36)
    yield slide(f"One of {found.runs} runs" if found.runs > 1 else "The run", drawn)
    yield slide("Why", as_html(one.parts["Answer"]))
    yield slide("Exercise", as_html(one.parts["Exercise"]))


def as_html(text: str) -> str:
    """Convert the Markdown of a lesson: paragraphs, lists and code."""
    made = []
    for block in text.split("\n\n"):
        head, *items = re.split(r"(?:^|\n)- ", block)
        made += [f"<p>{_inline(head)}</p>"] if head else []
        made += [f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"] if items else []
    return "\n".join(made)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(" ".join(text.split()), quote=False))
