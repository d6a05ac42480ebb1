"""What the site has beyond the pages of the repository: an extension of Sphinx.

- The id of a clause links to the contract.
- ``lanes`` draws the counterexamples of the known-bad models, found as the page is built.
- ``lesson-texts`` has the lessons, with the runs that are found as the page is built.
- `kmutex explore` writes its page into the site.
- The pages get an order, and the front page a name that browsers open by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.data import JsonLexer
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from kmutex._clauses import CLAUSES
from kmutex.engine.timeline import picture as timeline_picture
from kmutex.picture.svg import svg
from kmutex.picture.text import text
from kmutex.teach.explore_page import embedded, page
from kmutex.teach.lesson import Lesson, find, lessons
from kmutex.teach.model_timeline import of_broken
from kmutex.teach.notebook import choices
from kmutex.testing import FEATURES
from kmutex_model.broken import BROKEN

CONTRACT = "specs/contract"
EXPLORE = "explore.html"

CONTENTS = """

```{toctree}
:hidden:
:caption: Begin here

docs/start/newcomers
docs/start/ci
docs/start/porters
docs/start/teachers
docs/faq
```

```{toctree}
:hidden:
:caption: Use it

docs/verify
docs/ci
docs/conform
specs/trace
docs/limits
docs/loops
docs/compiled
docs/benchmarks
docs/api/index
```

```{toctree}
:hidden:
:caption: The contract

specs/README
specs/contract
specs/protocol
specs/vectors
specs/player
specs/divergences
docs/clauses
docs/proof
docs/evidence
docs/explorer
```

```{toctree}
:hidden:
:caption: Learn and teach

docs/lessons
docs/lesson-texts
docs/course
docs/grade
docs/show
docs/explore
docs/pictures
docs/peers
docs/conform-peers
docs/wild
examples/pull/README
```

```{toctree}
:hidden:
:caption: Ports

ports/README
ports/cpp/README
ports/go/README
ports/java/README
ports/js/README
ports/rust/README
```

```{toctree}
:hidden:
:caption: The project

CONTRIBUTING
SECURITY
docs/prior-art
docs/adr/README
CHANGELOG
```
"""
RECORDS = """

```{toctree}
:hidden:
:glob:

0*
```
"""
BUILT = f"""

On this site the page is built already: <a href="../{EXPLORE}">open it</a>.
"""


def others(pages: Iterable[str]) -> str:
    """A last group, for pages that nobody has given a place in the order yet."""
    placed = {"README", *CONTENTS.split()}
    inner = ("docs/adr/", "docs/api/")
    rest = [page for page in sorted(pages) if page not in placed and not page.startswith(inner)]
    return "\n".join(("\n\n```{toctree}", ":hidden:", ":caption: More", "", *rest, "```\n")) if rest else ""


def add_to_page(app: Sphinx, docname: str, content: list[str]) -> None:
    """What only the site has of a page, so that the page itself stays what a forge shows."""
    if docname == "README":
        content[0] += CONTENTS + others(app.env.found_docs)
    elif docname == "docs/adr/README":
        content[0] += RECORDS
    elif docname == "docs/explore":
        title, blank, rest = content[0].partition("\n")
        content[0] = title + blank + BUILT + rest


# -- clauses -----------------------------------------------------------------------------------------------------------

_CLAUSE = re.compile("|".join(sorted(CLAUSES, reverse=True)))


def link_clauses(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Every clause that is named links to what it says, except where a link, a title or code has it."""
    places: dict[str, str] = {}
    for section in app.env.get_doctree(CONTRACT).findall(nodes.section):
        title = section.next_node(nodes.title)
        clause = title.astext().partition(":")[0] if title else ""
        places.setdefault(clause, section["ids"][0])
    base = "" if docname == CONTRACT else app.builder.get_relative_uri(docname, CONTRACT)
    for leaf in list(doctree.findall(nodes.Text)):
        if _within(leaf, (nodes.reference, nodes.title, nodes.literal_block, nodes.literal, nodes.raw)):
            continue
        words = leaf.astext()
        made: list[nodes.Node] = []
        last = 0
        for found in _CLAUSE.finditer(words):
            made.append(nodes.Text(words[last : found.start()]))
            target = f"{base}#{places[found[0]]}"
            made.append(nodes.reference("", found[0], internal=True, refuri=target, classes=["clause"]))
            last = found.end()
        if made and leaf.parent is not None:
            leaf.parent.replace(leaf, [*made, nodes.Text(words[last:])])


def _within(node: nodes.Node, kinds: tuple[type, ...]) -> bool:
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


# -- pictures ----------------------------------------------------------------------------------------------------------


COLUMNS = 26
"""The columns of text in a lane: with these, three lanes fit on a page."""


class Lanes(SphinxDirective):
    """``lanes``: each known-bad model, its mistake, and the shortest run that shows it."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # The page follows the models, not only its own text.
        made: list[nodes.Node] = []
        for broken in BROKEN:
            _, shown = of_broken(broken)
            section = nodes.section(ids=[nodes.make_id(f"{broken.model.name}-{broken.clause}")])
            section += nodes.title("", "", nodes.literal("", broken.model.name), nodes.Text(f", {broken.clause}"))
            section += nodes.paragraph("", broken.story)
            title = f"{broken.model.name} breaks {broken.clause}"
            drawn = svg(shown, title=title, cell=COLUMNS)
            section += nodes.raw("", f'<div class="lanes" tabindex="0">{drawn}</div>', format="html")
            # For readers without pictures, and for the search.
            block = nodes.literal_block(text(shown), text(shown), language="text")
            section += nodes.raw("", "<details><summary>As text</summary>", format="html")
            section += block
            section += nodes.raw("", "</details>", format="html")
            made.append(section)
        return made


class LessonTexts(SphinxDirective):
    """``lesson-texts``: each lesson with its questions; answers are folded."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        made: list[nodes.Node] = []
        for one in lessons():
            section = nodes.section(ids=[f"lesson-{one.number}"])
            section += nodes.title("", f"{one.number}. {one.title}")
            found = find(one)
            drawn = svg(timeline_picture(found.short), title=f"{one.title}: {found.message}", cell=COLUMNS)
            self._add(section, f"{one.parts['Situation']}\n\n```python\n{one.source}```")
            self._add(section, f"**Question.** {one.parts['Question']}\n\n**Predict.** {choices(one)}")
            self._fold(section, "The answers", _replies(one))
            self._fold(section, "The run", f'<div class="lanes" tabindex="0">{drawn}</div>', raw=True)
            self._fold(section, "What happened, and why", one.parts["Answer"])
            self._add(section, f"**Exercise.** {one.parts['Exercise']}")
            self._fold(section, "Hints", one.parts["Hints"])
            made.append(section)
        return made

    def _add(self, section: nodes.section, text: str) -> None:
        section += self.parse_text_to_nodes(text)

    def _fold(self, section: nodes.section, head: str, text: str, *, raw: bool = False) -> None:
        section += nodes.raw("", f"<details><summary>{head}</summary>", format="html")
        section += nodes.raw("", text, format="html") if raw else self.parse_text_to_nodes(text)
        section += nodes.raw("", "</details>", format="html")


def _replies(one: Lesson) -> str:
    words = {choice: "Right. " if choice.right else "" for choice in one.choices}
    return "\n".join(f"- **{choice.letter}** {said}{choice.reply}" for choice, said in words.items())


class Features(SphinxDirective):
    """``features``: what a locker can be declared to lack."""

    def run(self) -> list[nodes.Node]:
        made = nodes.definition_list()
        for name, feature in FEATURES.items():
            words = nodes.paragraph("", f"{feature.meaning} ({', '.join(feature.clauses)})")
            made += nodes.definition_list_item(
                "", nodes.term("", "", nodes.literal("", name)), nodes.definition("", words)
            )
        return [made]


# -- files -------------------------------------------------------------------------------------------------------------

FRONT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>kmutex</title>
<meta http-equiv="refresh" content="0; url=README.html">
</head>
<body><p><a href="README.html">kmutex</a></p></body>
</html>
"""


def add_files(app: Sphinx, exception: Exception | None) -> None:
    """The page of `kmutex explore`, and the front page under the name that is looked for."""
    if exception is None:
        Path(app.outdir, EXPLORE).write_text(page(embedded().json), encoding="utf-8")
        Path(app.outdir, "index.html").write_text(FRONT, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", add_to_page)
    app.connect("doctree-resolved", link_clauses)
    app.connect("build-finished", add_files)
    app.add_directive("lanes", Lanes)
    app.add_directive("features", Features)
    app.add_directive("lesson-texts", LessonTexts)
    # The languages of the specifications: programs of kmutex/engine/program.py, and lines of a log.
    app.add_lexer("program", TextLexer)
    app.add_lexer("protocol", TextLexer)
    app.add_lexer("trace", JsonLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
