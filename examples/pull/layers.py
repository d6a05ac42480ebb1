"""Applying a layer: a tar file, mostly compressed, put over what the layers below it have left.

A layer comes from strangers. Its digest says that it is the file that was asked for, not that it means well. Two
guards stand behind each other, as each has had its holes: the standard library's data filter decides what a member
may be and where it and its links may lead, and `_parent` lets nothing be written, linked or removed through a link.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from errors import MalformedError, UnsafeLayerError, UnsupportedError, VerificationError

GZIP = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    }
)
PLAIN = frozenset({"application/vnd.oci.image.layer.v1.tar"})

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_BLOCK = 1 << 18


class _Hashing:
    """Passes on what is read, and knows the digest of all of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self.hash.update(chunk)
        return chunk


def apply_layer(
    blob: Path, media_type: str, diff_id: str, root: Path, step: Callable[[int], None] = lambda read: None
) -> None:
    """Change the files below ``root`` as the layer says.

    blob: the layer's file, as it was fetched. diff_id: the digest that it has when uncompressed. step: called before
    each member with the bytes of ``blob`` that were read so far; what it raises ends the work.

    UnsafeLayerError, MalformedError, UnsupportedError, VerificationError, and OSError for a full disk. ``root`` is
    then half changed, and must be thrown away: the diff ID is known only at the end.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UnsupportedError("this Python has no tarfile.data_filter: use 3.10.12, 3.11.4, 3.12 or later")
    if media_type not in GZIP | PLAIN:
        raise UnsupportedError(f"no layer type that is known here: {media_type}")
    with blob.open("rb") as packed:
        unpacked = _Hashing(gzip.GzipFile(fileobj=packed) if media_type in GZIP else packed)  # type: ignore[arg-type]
        changed: set[Path] = set()
        try:
            # As a stream: each member is read once, in the order of the file, and its data comes right after it.
            with tarfile.open(fileobj=unpacked, mode="r|", bufsize=_BLOCK) as tar:  # type: ignore[call-overload]
                for member in tar:
                    step(packed.tell())
                    _apply(tar, member, root, changed)
                    tar.members = []  # A stream needs none of the past, and a layer may have very many.
            while unpacked.read(_BLOCK):
                pass
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
            raise MalformedError(f"the layer {diff_id} is no good tar file: {error}") from error
    _verify(diff_id, f"sha256:{unpacked.hash.hexdigest()}")


def _verify(diff_id: str, found: str) -> None:
    if found != diff_id:
        raise VerificationError(f"the layer {diff_id} has the diff ID {found}")


def _apply(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path, changed: set[Path]) -> None:
    """Apply one member. changed: the paths that this layer has made, which its own whiteouts do not touch."""
    parts = _parts(member.name)
    if not parts:
        if not member.isdir():
            raise UnsafeLayerError(f"the root of the layer is no folder: {member.name!r}")
        return
    folder = _parent(root, parts, member.name)
    name = parts[-1]
    if name == _OPAQUE:
        _hide_all(folder, changed)
        return
    if name.startswith(_WHITEOUT):
        if not name.startswith(_WHITEOUT * 2):
            _hide(folder, name[len(_WHITEOUT) :], changed)
        return
    try:
        safe = tarfile.data_filter(member, str(root))
    except tarfile.FilterError as error:
        raise UnsafeLayerError(str(error)) from error
    target = folder / name
    if safe.islnk():
        # By hand, for `extract` would then set times and modes, and so change the file of the layers below.
        origin = _parent(root, _parts(safe.linkname), safe.linkname, make=False) / _parts(safe.linkname)[-1]
        if origin == target or not _is_file(origin):
            raise UnsafeLayerError(f"{member.name!r} is a link to no file of the image: {safe.linkname!r}")
        _clear(target)
        os.link(origin, target, follow_symlinks=False)
    else:
        if not (safe.isdir() and _is_folder(target)):
            _clear(target)
        tar.extract(safe, str(root), filter="fully_trusted")  # It has been through the filter.
    _note(root, target, changed)


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise UnsafeLayerError(f"a path that leads out of the layer: {name!r}")
    return path.parts


def _parent(root: Path, parts: tuple[str, ...], name: str, *, make: bool = True) -> Path:
    """The folder that a path lies in, made if it is missing. UnsafeLayerError: the way there is not all folders."""
    if not parts:
        raise UnsafeLayerError(f"a link to the root: {name!r}")
    folder = root
    for part in parts[:-1]:
        folder = folder / part
        if not _is_folder(folder):
            if not make or os.path.lexists(folder):
                raise UnsafeLayerError(f"a path through what is no folder: {name!r}")
            folder.mkdir(mode=0o755)
    return folder


def _note(root: Path, target: Path, changed: set[Path]) -> None:
    while target != root and target not in changed:
        changed.add(target)
        target = target.parent


def _hide_all(folder: Path, changed: set[Path]) -> None:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        _hide(folder, name, changed)


def _hide(folder: Path, name: str, changed: set[Path]) -> None:
    """Remove what the layers below have left of a path, and nothing of this layer."""
    if name in ("", ".", ".."):
        raise UnsafeLayerError(f"a whiteout of {name!r}")
    target = folder / name
    if target not in changed:
        _clear(target)
    elif _is_folder(target):
        _hide_all(target, changed)


def _clear(target: Path) -> None:
    if _is_folder(target):
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(_mode(path))
