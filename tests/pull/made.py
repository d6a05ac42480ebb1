"""Images and layers for tests: small, and as good or bad as a test wants them."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import stat
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image import CONFIG_TYPE as CONFIG
from image import LAYER_TYPE as LAYER
from image import MANIFEST_TYPE as MANIFEST
from image import digest_of

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True)
class Made:
    """What a registry takes in a push."""

    manifest: bytes
    blobs: Mapping[str, bytes]
    manifest_type: str = MANIFEST
    layers: tuple[str, ...] = ()
    """Digests of the layers' blobs."""

    @property
    def manifest_digest(self) -> str:
        return digest_of(self.manifest)


def file(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    return member, content


def special(name: str, kind: bytes, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A member without content: a folder, a link, a device."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, 0o755
    return member, b""


def folder(name: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.DIRTYPE)


def symlink(name: str, link: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.SYMTYPE, link)


def hardlink(name: str, link: str) -> tuple[tarfile.TarInfo, bytes]:
    return special(name, tarfile.LNKTYPE, link)


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def noise(seed: int, size: int = 1_000_000) -> bytes:
    """Bytes that do not compress, so that a layer of them comes in several chunks."""
    return random.Random(seed).randbytes(size)


def image(
    tars: Sequence[bytes],
    *,
    diff_ids: Sequence[str] | None = None,
    manifest_type: str = MANIFEST,
    layer_type: str = LAYER,
) -> Made:
    """diff_ids: None for the true ones."""
    packed = [gzip.compress(data, 1, mtime=0) for data in tars]
    true = [digest_of(data) for data in tars]
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": list(diff_ids or true)}}).encode()

    def descriptor(kind: str, data: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(layer_type, data) for data in packed],
    }
    blobs = {digest_of(data): data for data in [config, *packed]}
    return Made(json.dumps(manifest).encode(), blobs, manifest_type, tuple(digest_of(data) for data in packed))


def index(images: Mapping[str, Made], kind: str = INDEX) -> Made:
    """By platform. Only the document: the images are pushed apart."""
    entries = []
    for platform, each in images.items():
        system, _, architecture = platform.partition("/")
        entries.append(
            {
                "mediaType": each.manifest_type,
                "digest": each.manifest_digest,
                "size": len(each.manifest),
                "platform": {"os": system, "architecture": architecture},
            }
        )
    return Made(json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode(), {}, kind)


def chain_ids(tars: Iterable[bytes]) -> tuple[str, ...]:
    """As the OCI specification defines them, worked out apart from the puller."""
    chain: list[str] = []
    for data in tars:
        chain.append(digest_of(f"{chain[-1]} {digest_of(data)}".encode()) if chain else digest_of(data))
    return tuple(chain)


def tree(root: Path) -> dict[str, object]:
    """Every path below a folder: None for a folder, the target of a link, else the bytes and the x bit."""
    found: dict[str, object] = {}
    for above, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(above, name)
            mode = path.lstat().st_mode
            key = path.relative_to(root).as_posix()
            if stat.S_ISLNK(mode):
                found[key] = os.readlink(path)
            elif stat.S_ISDIR(mode):
                found[key] = None
            else:
                assert stat.S_ISREG(mode), path
                found[key] = (path.read_bytes(), bool(mode & 0o100))
    return found


# -- a small image of two layers, for tests that need just some image ---------------------------------------------

TARS = [tar(file("base", noise(1))), tar(file("top", b"top"))]
CHAIN = chain_ids(TARS)
TREES: dict[str, dict[str, object]] = {
    CHAIN[0]: {"base": (noise(1), False)},
    CHAIN[1]: {"base": (noise(1), False), "top": (b"top", False)},
}
IMAGE = image(TARS)
