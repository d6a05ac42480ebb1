"""The vectors as a release of their own: one archive with all that a player in another language needs.

The same files give the same archive, byte for byte. What a version means is in specs/player.md.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kmutex import _specs

VERSION = "2.1.0"
FILES = ("vectors.json", "vectors.schema.json", "vectors.md", "player.md", "contract.md", "protocol.md")
"""The files of specs/ in the release."""
MANIFEST = "MANIFEST.json"


class ReleaseError(ValueError):
    """The release is not possible. The message is one line."""


def contents(version: str = VERSION) -> dict[str, bytes]:
    """The files of the archive, the manifest last. OSError: this is no checkout of the sources."""
    files = {name: _specs.read(name).encode() for name in FILES}
    files["LICENSE"] = Path(str(_specs.path("vectors.json"))).parents[1].joinpath("LICENSE").read_bytes()
    manifest = {
        "name": "kmutex-vectors",
        "version": version,
        "format": json.loads(files["vectors.json"])["format"],
        "license": "Apache-2.0",
        "files": [
            {"path": name, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in files.items()
        ],
    }
    return {**files, MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()}


def archive(files: Mapping[str, bytes], version: str = VERSION) -> bytes:
    """These files in a folder of the release's name, packed."""
    packed = io.BytesIO()
    # No time and no owner, so that the archive depends on its content only.
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as out,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, body in files.items():
            entry = tarfile.TarInfo(f"kmutex-vectors-{version}/{name}")
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return packed.getvalue()


def unpacked(packed: bytes) -> dict[str, bytes]:
    """The files of an archive, by their names in it. ReleaseError: not an archive, or a checksum is wrong."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            for entry in tar:
                body = tar.extractfile(entry)
                if body is not None:
                    files[entry.name.partition("/")[2]] = body.read()
        for row in json.loads(files[MANIFEST])["files"]:
            if hashlib.sha256(files[row["path"]]).hexdigest() != row["sha256"]:
                raise ReleaseError(f"{row['path']} is not the file that {MANIFEST} has the checksum of")
    except (tarfile.TarError, EOFError, OSError, KeyError, json.JSONDecodeError) as error:
        raise ReleaseError(f"not an archive of vectors, or it breaks off: {error}") from None
    return files


def change(before: Mapping[str, Any], now: Mapping[str, Any]) -> int:
    """Return the part of the version that must change between two vector files: 0 major, 1 minor, 2 patch."""
    old, new = ({one["id"]: one for one in file["vectors"]} for file in (before, now))
    asked = ("revision", "needs", "keys", "rounds", "moves", "courses")
    if before["format"] != now["format"] or any(
        name not in new or any(one.get(field) != new[name].get(field) for field in asked) for name, one in old.items()
    ):
        return 0
    return 1 if len(new) > len(old) else 2


def check_version(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> None:
    """ReleaseError: the version of ``now`` is too low for what has changed since ``before``."""
    versions = [json.loads(files[MANIFEST])["version"] for files in (before, now)]
    old, new = (tuple(map(int, version.split("."))) for version in versions)
    part = change(json.loads(before["vectors.json"]), json.loads(now["vectors.json"]))
    least = (*old[:part], old[part] + 1, *(0,) * (2 - part))
    if new < least and {**before, MANIFEST: b""} != {**now, MANIFEST: b""}:
        word = ("major", "minor", "patch")[part]
        raise ReleaseError(
            f"version {versions[1]} is too low after {versions[0]}: this is a {word} change, so at least "
            f"{'.'.join(map(str, least))}"
        )


def main(arguments: list[str] | None = None) -> int:
    """Write the archive; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m kmutex.conform.release", description="Pack the vectors as a release of their own."
    )
    parser.add_argument("folder", type=Path, help="where the archive is written")
    parser.add_argument("--since", type=Path, metavar="ARCHIVE", help="the release before: refuse a version too low")
    args = parser.parse_args(arguments)
    path = args.folder / f"kmutex-vectors-{VERSION}.tar.gz"
    try:
        files = contents()
        if args.since is not None:
            check_version(unpacked(args.since.read_bytes()), files)
        packed = archive(files)
        path.write_bytes(packed)
    except ReleaseError as error:
        print(f"kmutex: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"kmutex: {error.filename or path}: {error.strerror}", file=sys.stderr)
        return 4
    print(f"{path}: {len(packed):,} bytes, sha256 {hashlib.sha256(packed).hexdigest()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
