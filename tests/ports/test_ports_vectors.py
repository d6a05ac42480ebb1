"""The vectors of the release in the ports' own test runners: unpacked somewhere, with nothing of kmutex in reach."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kmutex.conform import release
from tests.ports.conftest import PORTS, Port

PLAYERS = [name for name, row in PORTS.items() if "vectors" in row]


@pytest.fixture(scope="session")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, from the archive that the build makes."""
    folder = tmp_path_factory.mktemp("release")
    assert release.main([str(folder)]) == 0
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as tar:
        tar.extractall(folder, filter="data")
    return folder / path.name.removesuffix(".tar.gz") / "vectors.json"


def played(port: Port, file: Path) -> subprocess.CompletedProcess[str]:
    """What the port's runner says of it. No Python and no kmutex are on its path."""
    mine = Path(sys.executable).parent
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != mine)
    environment = {**os.environ, "PATH": path, "KMUTEX_VECTORS": str(file)}
    command = PORTS[port.name]["vectors"]
    return subprocess.run(
        command, cwd=port.folder, env=environment, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PLAYERS)
def test_a_port_plays_them_and_each_of_its_mistakes_fails(
    name: str, built: Callable[[str], Port], vectors: Path
) -> None:
    """All are tests of the port's own: of the lock, of what its mistakes are made in, and of the mistakes."""
    done = played(built(name), vectors)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.long
@pytest.mark.parametrize("name", PLAYERS)
def test_the_player_of_a_port_fails_where_the_lock_takes_no_course(
    name: str, built: Callable[[str], Port], vectors: Path, tmp_path: Path
) -> None:
    """Of a file in which one vector expects what no right lock does, and nothing else is changed."""
    file = json.loads(vectors.read_text(encoding="utf-8"))
    (wrong,) = [one for one in file["vectors"] if one["id"] == "0+a/1+a/ua"] or file["vectors"][:1]
    for course in wrong["courses"]:
        course[0]["calls"] = {}
    path = tmp_path / "vectors.json"
    path.write_text(json.dumps(file), encoding="utf-8")
    done = played(built(name), path)
    assert done.returncode not in (0, None)
    assert wrong["id"] in done.stdout + done.stderr
