"""The release workflow, and the version that a release has."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.release import PLACES, ROOT, main, notes, versions

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"


def test_one_version_stands_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    (version,) = set(versions(ROOT).values())
    assert main(f"v{version}") == 0
    assert capsys.readouterr().out.strip() == notes(ROOT, version)


@pytest.mark.parametrize("name", PLACES)
def test_another_version_is_no_release(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The known-bad twins: a tag that no file has, and a file that was forgotten."""
    version = versions(ROOT)[name]
    for place in PLACES:
        shutil.copy(ROOT / place, tmp_path)
    assert main("v99.0", tmp_path) == 1
    text = (tmp_path / name).read_text("utf-8")
    (tmp_path / name).write_text(text.replace(version, "0.0.0", 1), encoding="utf-8")
    assert main(f"v{version}", tmp_path) == 1
    assert capsys.readouterr().err.endswith(f"v{version}: {name} has 0.0.0\n")


def faults(workflow: dict[Any, Any]) -> list[str]:
    """What a workflow does that a release must not."""
    jobs: dict[str, Any] = workflow["jobs"]
    wrong = []
    # YAML reads the key "on" as a truth value.
    if workflow[True].keys() != {"push"} or workflow[True]["push"].keys() != {"tags"}:
        wrong.append("it is started by something else than a tag")
    if workflow["permissions"] != {"contents": "read"}:
        wrong.append("every job may write")
    for name, job in jobs.items():
        uses = " ".join(step.get("uses", "") for step in job["steps"])
        rights = job.get("permissions", {})
        if name != "publish" and rights:
            wrong.append(f"{name} has rights that only publish needs")
        if "pypi-publish" in uses:
            if "attest-build-provenance" not in uses.partition("pypi-publish")[0]:
                wrong.append(f"{name} publishes what is not attested")
            if rights.get("id-token") != "write" or "environment" not in job:
                wrong.append(f"{name} is no trusted publisher")
            if set(job["needs"]) != jobs.keys() - {name}:
                wrong.append(f"{name} does not wait for all others")
    if "secrets." in yaml.safe_dump(workflow):
        wrong.append("it uses a secret")
    return wrong


def test_the_workflow_publishes_what_is_checked_and_attested() -> None:
    text = WORKFLOW.read_text("utf-8")
    assert faults(yaml.safe_load(text)) == []
    assert re.findall(r"https?://|\w\.(?:org|com|io)\b", text) == []
    for script in re.findall(r"run: (?:sudo )?(\.\S+)", text):
        assert (ROOT / script).is_file()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('tags: ["v*"]', 'tags: ["v*"]\n  workflow_dispatch:', "it is started by something else than a tag"),
        ("contents: read", "contents: write", "every job may write"),
        ("needs: [checks, python, compiled]", "needs: [python, compiled]", "publish does not wait for all others"),
        ("id-token: write", "id-token: read", "publish is no trusted publisher"),
        ("actions/attest-build-provenance@v2", "actions/checkout@v4", "publish publishes what is not attested"),
        ("github.token", "secrets.TOKEN", "it uses a secret"),
    ],
)
def test_a_careless_workflow_is_seen(old: str, new: str, fault: str) -> None:
    """The known-bad twins."""
    text = WORKFLOW.read_text("utf-8")
    assert old in text
    assert faults(yaml.safe_load(text.replace(old, new))) == [fault]
