"""The documentation site: built without a warning, whole, and independent of any network."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from kmutex._clauses import CLAUSES
from kmutex_model.broken import BROKEN
from tests import browser

pytest.importorskip("furo", reason="the dev extra has what builds the site: pip install -e '.[dev]'")

pytestmark = pytest.mark.site

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (1280, 360)
LOAD = {"script", "img", "iframe", "source", "video", "audio", "embed"}
"""Elements that load what their src says; `link` does too, for these relations."""
LINKS_THAT_LOAD = {"stylesheet", "icon", "shortcut icon", "preload", "prefetch", "modulepreload", "preconnect"}


def build(source: Path, into: Path) -> subprocess.CompletedProcess[str]:
    options = ("-q", "-E", "-W", "--keep-going", "-b", "html", "-c", str(ROOT / "docs" / "site"))
    command = [sys.executable, "-m", "sphinx", *options, str(source), str(into)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("site")
    done = build(ROOT, into)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return into


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids.update(found[name] for name in ("id", "name") if name in found)
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in LOAD and "src" in found:
            self.loads.append(found["src"])
        if tag == "link" and found.get("rel") in LINKS_THAT_LOAD:
            self.loads.append(found["href"])


def pages(site: Path) -> dict[Path, Page]:
    """All but the page of `kmutex explore`, which has tests of its own: its links are made by its script."""
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "explore.html"}


def dead(found: dict[Path, Page]) -> list[str]:
    """Links within the site that lead nowhere."""
    wrong = []
    for path, page in found.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            ids = found[target].ids if target in found else set()
            if not target.is_file() or (parts.fragment and target in found and unquote(parts.fragment) not in ids):
                wrong.append(f"{path.name}: {link}")
    return wrong


def foreign(site: Path) -> list[str]:
    """What would be loaded from elsewhere: by an element, or by a style sheet."""
    wrong = [f"{path.name}: {one}" for path, page in pages(site).items() for one in page.loads if urlsplit(one).netloc]
    for path in site.rglob("*.css"):
        addresses = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", path.read_text(encoding="utf-8"))
        wrong += [f"{path.name}: {one or two}" for one, two in addresses if urlsplit(one or two).netloc]
    return wrong


def test_every_link_within_the_site_leads_somewhere(site: Path) -> None:
    found = pages(site)
    assert sum(len(page.links) for page in found.values()) > 1000
    assert dead(found) == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    assert foreign(site) == []


def test_dead_links_and_foreign_files_are_seen(tmp_path: Path) -> None:
    """The known-bad twins."""
    (tmp_path / "a.html").write_text('<a href="b.html"></a><a href="#x"></a><a href="a.html#y"></a><p id="y"></p>')
    assert dead(pages(tmp_path)) == ["a.html: b.html", "a.html: #x"]
    (tmp_path / "b.html").write_text('<script src="//cdn.example/x.js"></script><a href="https://example.org"></a>')
    (tmp_path / "c.css").write_text(
        "@import 'https://fonts.example/x.css'; a { background: url(https://example.org/x) }"
    )
    assert len(foreign(tmp_path)) == 3


def test_a_page_with_a_dead_link_is_not_built(tmp_path: Path) -> None:
    """The known-bad twin of the build."""
    (tmp_path / "README.md").write_text("# A page\n\n[to nowhere](nowhere.md)\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere.md" in done.stderr


def test_every_page_of_the_repository_is_in_it(site: Path) -> None:
    """But the pages of a port's own packages, and of tests."""
    for pattern in ("*.md", "docs/**/*.md", "specs/*.md", "ports/*.md", "ports/*/*.md", "examples/**/*.md"):
        for page in ROOT.glob(pattern):
            assert (site / page.relative_to(ROOT)).with_suffix(".html").is_file(), page


def test_a_page_that_nobody_gave_a_place_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the contents; pages that have theirs are not there twice."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    parts = importlib.import_module("parts")
    assert "docs/new" in parts.others(["README", "docs/verify", "docs/new", "docs/adr/0001-x"]).split()
    assert parts.others(["README", "docs/verify", "docs/adr/0001-x", "docs/api/index"]) == ""


def test_arguments_and_errors_are_lists(site: Path) -> None:
    """Of `KeyedMutex.lock`: the sections of its docstring. Clauses are links."""
    text = (site / "docs" / "api" / "kmutex.html").read_text(encoding="utf-8")
    lock = text.split('id="kmutex.KeyedMutex.lock"')[1].split('<dt class="sig')[0]
    for words in ("<strong>timeout</strong>", "<strong>TimeoutError</strong>", "<strong>ValueError</strong>"):
        assert words in lock
    assert 'href="../../specs/contract.html#km-expired-no-time-to-wait">KM-EXPIRED</a>' in lock
    assert "ValueError: the timeout" not in lock


def test_every_clause_is_linked_to_what_it_says(site: Path) -> None:
    links = {link for page in pages(site).values() for link in page.links if "contract.html#km-" in link}
    anchors = {link.partition("#")[2] for link in links}
    assert all(any(anchor.startswith(clause.lower() + "-") for anchor in anchors) for clause in CLAUSES)


def test_every_known_bad_model_is_drawn(site: Path) -> None:
    text = (site / "docs" / "pictures.html").read_text(encoding="utf-8")
    assert text.count('<svg xmlns="http://www.w3.org/2000/svg" class="kmutex-lanes"') == len(BROKEN)
    for broken in BROKEN:
        assert f"<title>{broken.model.name} breaks {broken.clause}</title>" in text


def test_the_explore_page_is_built_and_linked(site: Path) -> None:
    assert (site / "explore.html").stat().st_size > 100_000
    assert "../explore.html" in Page(site / "docs" / "explore.html").links


def test_decisions_are_listed(tmp_path: Path) -> None:
    """On the forge, where nobody makes a list of them."""
    page = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    records = sorted((ROOT / "docs" / "adr").glob("0*.md"))
    assert records
    assert re.findall(r"\]\((\w.*?)\)", page) == [record.name for record in records]
    for record in records:
        title = record.read_text(encoding="utf-8").splitlines()[0].partition(". ")[2]
        assert f"[{title}]({record.name})" in page


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("selenium", reason="the dev extra has selenium: pip install -e '.[dev]'")
    with browser.started(tmp_path_factory.mktemp("profile"), network=True) as driver:
        yield driver


_TOO_WIDE = "return document.documentElement.scrollWidth > document.documentElement.clientWidth"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_shown_without_a_network(chromium: Any, site: Path, scheme: str) -> None:
    """No request but for files of the site, nothing in the console, no page that scrolls sideways."""
    chromium.get("about:blank")
    browser.requests(chromium)
    browser.errors(chromium)
    wide = []
    written = [path for path in sorted(pages(site)) if "_modules" not in path.parts and path.name != "index.html"]
    for path in written:
        for width in WIDTHS:
            browser.emulate(chromium, width=width, scheme=scheme)
            chromium.get(path.as_uri())
            if chromium.execute_script(_TOO_WIDE):
                wide.append(f"{path.relative_to(site)} at {width}")
    assert wide == []
    asked = browser.requests(chromium)
    assert len(asked) > len(written)
    assert [one for one in asked if not one.startswith(("file:", "data:"))] == []
    assert browser.errors(chromium) == []


@pytest.mark.browser
def test_the_front_page_is_found(chromium: Any, site: Path) -> None:
    """The name that browsers open by themselves leads to it."""
    shutil.copy(site / "index.html", site / "again.html")
    chromium.get((site / "again.html").as_uri())
    browser.until(chromium, "return document.title === 'kmutex' && location.pathname.endsWith('/README.html')")
    (site / "again.html").unlink()
