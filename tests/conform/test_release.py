"""The release of the vectors: what is in the archive, that its files are what they say, and what a version means."""

from __future__ import annotations

import copy
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kmutex import _specs
from kmutex.conform import release
from kmutex.conform.release import MANIFEST, ReleaseError, archive, change, check_version, contents, unpacked

VECTORS: dict[str, Any] = json.loads(_specs.read("vectors.json"))


def test_the_archive_is_unpacked_by_anybody_and_its_checksums_are_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With tar and a SHA-256; and made twice it is the same, byte for byte."""
    assert release.main([str(tmp_path)]) == 0
    path = tmp_path / f"kmutex-vectors-{release.VERSION}.tar.gz"
    assert hashlib.sha256(path.read_bytes()).hexdigest() in capsys.readouterr().out
    with tarfile.open(path) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / f"kmutex-vectors-{release.VERSION}"
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    assert {path.name for path in folder.iterdir()} == {MANIFEST, *(row["path"] for row in manifest["files"])}
    for row in manifest["files"]:
        body = (folder / row["path"]).read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (row["bytes"], row["sha256"])
    assert (manifest["version"], manifest["format"]) == (release.VERSION, VECTORS["format"])
    assert archive(contents()) == path.read_bytes()


def test_an_archive_that_was_touched_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = contents()
    assert unpacked(archive(files)) == files
    packed = archive({**files, "player.md": files["player.md"] + b"x"})
    with pytest.raises(ReleaseError, match=r"^player.md is not the file"):
        unpacked(packed)
    for damaged in (packed[: len(packed) // 2], b"x", archive({"player.md": b""})):
        with pytest.raises(ReleaseError, match="not an archive of vectors"):
            unpacked(damaged)
    (tmp_path / "old").write_bytes(b"x")
    assert release.main([str(tmp_path), "--since", str(tmp_path / "old")]) == 1
    assert release.main([str(tmp_path), "--since", str(tmp_path / "missing")]) == 4
    assert release.main([str(tmp_path / "missing")]) == 4
    assert "Traceback" not in capsys.readouterr().err
    assert not list(tmp_path.glob("*.gz"))


# -- the schema --------------------------------------------------------------------------------------------------------

SCHEMA: dict[str, Any] = json.loads(_specs.read("vectors.schema.json"))


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 50])
def test_the_file_has_the_form_of_the_schema(every: int) -> None:
    """Each vector, or some of them with all that have keys or rounds."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    few = [one for one in VECTORS["vectors"] if "keys" in one or "rounds" in one]
    jsonschema.Draft202012Validator(SCHEMA).validate({**VECTORS, "vectors": [*VECTORS["vectors"][::every], *few]})


def without(field: str) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["vectors"][0].pop(field)


def put(field: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda file: file["vectors"][0].update({field: value})


@pytest.mark.parametrize(
    "damage",
    [
        *(without(field) for field in SCHEMA["$defs"]["vector"]["required"]),
        put("revision", 0),
        put("clauses", ["EXCL"]),
        put("needs", ["speed"]),
        put("keys", 1),
        put("moves", [[{"op": "lock", "call": 0}]]),
        put("moves", [[{"op": "unlock", "call": 0}]]),
        put("courses", [[{"calls": {"a": "granted"}, "unlocks": [], "table": {}}]]),
        put("courses", [[{"calls": {"0": "got it"}, "unlocks": [], "table": {}}]]),
        put("courses", [[{"calls": {}, "unlocks": [], "table": {"a": {"refs": 0, "waiters": 0}}}]]),
        put("more", 1),
        lambda file: file.update(format="kmutex-vectors/1"),
        lambda file: file.update(vectors=[]),
    ],
)
def test_the_schema_refuses_another_form(damage: Callable[[dict[str, Any]], None]) -> None:
    file = {**VECTORS, "vectors": copy.deepcopy(VECTORS["vectors"][:2])}
    jsonschema.Draft202012Validator(SCHEMA).validate(file)
    damage(file)
    assert list(jsonschema.Draft202012Validator(SCHEMA).iter_errors(file))


def test_the_schema_has_the_operations_of_the_cases() -> None:
    """Each of them is in the file; so the schema allows none that is not there."""
    said = {op for part in SCHEMA["$defs"]["command"]["oneOf"] for op in part["properties"]["op"]["enum"]}
    assert said == {command["op"] for one in VECTORS["vectors"] for move in one["moves"] for command in move}


# -- versions ----------------------------------------------------------------------------------------------------------


def edited(edit: Callable[[list[dict[str, Any]]], object], version: str) -> dict[str, bytes]:
    """The files of a release in which the vectors were edited."""
    vectors = copy.deepcopy(VECTORS["vectors"][:5])
    edit(vectors)
    files = {"vectors.json": json.dumps({**VECTORS, "vectors": vectors}).encode()}
    return {**files, MANIFEST: json.dumps({"version": version}).encode()}


EDITS: list[tuple[int, Callable[[list[dict[str, Any]]], object]]] = [
    (0, lambda vectors: vectors.pop()),
    (0, lambda vectors: vectors[0].update(revision=2)),
    (0, lambda vectors: vectors[0]["courses"].pop()),
    (0, lambda vectors: vectors[0]["needs"].append("lease")),
    (1, lambda vectors: vectors.append({**vectors[0], "id": "new"})),
    (2, lambda vectors: vectors[0]["kills"].append("another")),
    (2, lambda vectors: None),
]


@pytest.mark.parametrize(("part", "edit"), EDITS)
def test_a_version_rises_by_what_has_changed(part: int, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    """Major for what a port may newly fail without a mistake of its own, minor for new vectors, patch for words."""
    before = edited(lambda vectors: None, "1.2.3")
    assert change(json.loads(before["vectors.json"]), json.loads(edited(edit, "")["vectors.json"])) == part
    enough = ("2.0.0", "1.3.0", "1.2.4")
    for version in enough[: part + 1]:
        check_version(before, edited(edit, version))
    for version in (*enough[part + 1 :], "1.2.3", "0.9.9"):
        if edited(edit, "") != edited(lambda vectors: None, ""):
            with pytest.raises(ReleaseError, match=f"^version {version} is too low after 1.2.3: .* {enough[part]}$"):
                check_version(before, edited(edit, version))


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_of_the_player_has_each_operation_and_feature() -> None:
    page = _specs.read("player.md")
    algorithm = page.partition("```text\n")[2].partition("```")[0]
    assert 40 < len(algorithm.splitlines()) < 130
    operations = {command["op"] for one in VECTORS["vectors"] for move in one["moves"] for command in move}
    assert all(f"{op}:" in algorithm or f"{op}, " in algorithm for op in operations)
    for feature in SCHEMA["$defs"]["vector"]["properties"]["needs"]["items"]["enum"]:
        assert f"`{feature}`" in page
