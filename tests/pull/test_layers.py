"""Applying layers: what a good one does, and what a malicious one can't."""

from __future__ import annotations

import gzip
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import layers
from errors import MalformedError, PullError, UnsafeLayerError, UnsupportedError, VerificationError
from layers import apply_layer
from tests.pull.made import LAYER, digest_of, file, folder, hardlink, special, symlink, tar, tree

Apply = Callable[[Path, str, str, Path], None]
"""Blob, media type, diff ID, root."""


def apply(subject: Apply, folder: Path, root: Path, data: bytes) -> None:
    blob = folder / "layer"
    blob.write_bytes(gzip.compress(data))
    subject(blob, LAYER, digest_of(data), root)


def naive(blob: Path, media_type: str, diff_id: str, root: Path) -> None:
    """The known-bad one: what people write first."""
    with tarfile.open(blob) as archive:
        archive.extractall(root, filter="fully_trusted")


# What a good one does.

BELOW = tar(
    folder("etc"),
    file("etc/kept", b"kept"),
    file("etc/gone", b"gone"),
    file("etc/new", b"old"),
    folder("opaque"),
    file("opaque/below", b"below"),
    folder("opaque/deep"),
    file("opaque/deep/below", b"below"),
    file("was-file", b"file"),
    folder("was-folder"),
    file("was-folder/inside", b"inside"),
    symlink("link", "etc/kept"),
    file("run", b"#!", 0o755),
)
ABOVE = tar(
    folder("."),
    file("etc/.wh.gone"),
    file("etc/new", b"new", 0o755),
    hardlink("etc/hard", "etc/kept"),
    file("opaque/above", b"above"),
    file("opaque/deep/above", b"above"),
    file("opaque/.wh..wh..opq"),
    file(".wh..wh.plnk", b"of another tool"),
    folder("was-file"),
    file("was-file/inside", b"now a folder"),
    symlink("was-folder", "etc"),
    file("./made/on/the/way", b"way"),
)
MERGED: dict[str, object] = {
    "etc": None,
    "etc/kept": (b"kept", False),
    "etc/new": (b"new", True),
    "etc/hard": (b"kept", False),
    "opaque": None,
    "opaque/above": (b"above", False),
    "opaque/deep": None,
    "opaque/deep/above": (b"above", False),
    "was-file": None,
    "was-file/inside": (b"now a folder", False),
    "was-folder": "etc",
    "link": "etc/kept",
    "run": (b"#!", True),
    "made": None,
    "made/on": None,
    "made/on/the": None,
    "made/on/the/way": (b"way", False),
}


def check_merged(subject: Apply, folder: Path) -> None:
    root = folder / "root"
    root.mkdir()
    apply(subject, folder, root, BELOW)
    apply(subject, folder, root, ABOVE)
    assert tree(root) == MERGED


def test_a_layer_is_put_over_those_below(tmp_path: Path) -> None:
    """Whiteouts, opaque folders, and one kind of file in the place of another."""
    check_merged(apply_layer, tmp_path)


def test_plain_extraction_is_caught_by_the_same_check(tmp_path: Path) -> None:
    with pytest.raises((AssertionError, OSError)):
        check_merged(naive, tmp_path)


@pytest.mark.parametrize("order", ["first", "last"])
def test_a_whiteout_hides_nothing_of_its_own_layer(tmp_path: Path, order: str) -> None:
    """Wherever it stands in the file."""
    own = [folder("d"), file("d/own", b"own")]
    marks = [file("d/.wh.own"), file("d/.wh..wh..opq"), file(".wh.d")]
    root = tmp_path / "root"
    root.mkdir()
    apply(apply_layer, tmp_path, root, tar(folder("d"), file("d/own", b"below"), file("d/other", b"below")))
    apply(apply_layer, tmp_path, root, tar(*(own + marks if order == "last" else marks + own)))
    assert tree(root) == {"d": None, "d/own": (b"own", False)}


def test_uncompressed_layers_and_their_progress(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    blob = tmp_path / "layer"
    data = tar(file("a", b"a"), file("b", b"b"))
    blob.write_bytes(data)
    steps: list[int] = []
    plain = "application/vnd.oci.image.layer.v1.tar"
    apply_layer(blob, plain, digest_of(data), tmp_path / "root", steps.append)
    assert len(steps) == 2
    assert all(0 < step <= len(data) for step in steps)
    assert set(tree(tmp_path / "root")) == {"a", "b"}


# What a malicious one can't.


def attacks(outside: Path) -> dict[str, bytes]:
    """Each wants to change or to show what is in ``outside``, which lies beside the root."""
    up = f"../{outside.name}"
    return {
        "absolute path": tar(file(str(outside / "new"), b"evil")),
        "path with ..": tar(file(f"{up}/new", b"evil")),
        "path with .. inside": tar(folder("a"), file(f"a/../{up}/new", b"evil")),
        "link out, by ..": tar(symlink("link", up)),
        "absolute link": tar(symlink("link", str(outside))),
        "write through a link out": tar(symlink("link", up), file("link/new", b"evil")),
        "write over a link to a file": tar(symlink("link", f"{up}/secret"), file("link", b"evil")),
        "write through a link of links": tar(
            folder("a"), symlink("a/b", ".."), symlink("c", "a/b/.."), file(f"c/{outside.name}/new", b"evil")
        ),
        "hard link out": tar(hardlink("link", f"{up}/secret"), file("link", b"evil")),
        "absolute hard link": tar(hardlink("link", str(outside / "secret"))),
        "hard link through a link": tar(symlink("a", up), hardlink("b", "a/secret")),
        "whiteout of ..": tar(file(f".wh.../{outside.name}"), file(".wh...")),
        "whiteout by ..": tar(file(f"{up}/.wh.secret")),
        "opaque by ..": tar(file(f"{up}/.wh..wh..opq")),
        "whiteout through a link": tar(symlink("link", up), file("link/.wh.secret")),
        "whiteout of the folder itself": tar(folder("a"), file("a/.wh..")),
        "device": tar(special("null", tarfile.CHRTYPE)),
        "block device": tar(special("disk", tarfile.BLKTYPE)),
        "fifo": tar(special("fifo", tarfile.FIFOTYPE)),
        "root is a link": tar(symlink(".", up)),
        "hard link to the root": tar(hardlink("a", ".")),
        "hard link to a link": tar(file("f"), symlink("l", "f"), hardlink("h", "l")),
        "hard link to itself": tar(hardlink("a", "a")),
    }


NAMES = sorted(attacks(Path("/outside")))


def try_attack(subject: Apply, folder: Path, name: str) -> tuple[BaseException | None, bool]:
    """What was raised, and whether what lies outside is as it was, with no way to it from the root."""
    outside, root = folder / "outside", folder / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret").write_bytes(b"secret")
    error: BaseException | None = None
    try:
        apply(subject, folder, root, attacks(outside)[name])
    except (PullError, OSError, tarfile.TarError, KeyError) as raised:
        error = raised
    safe = tree(outside) == {"secret": (b"secret", False)} and (outside / "secret").stat().st_nlink == 1
    for path in root.rglob("*"):
        safe &= path.resolve().is_relative_to(root)
        safe &= path.is_symlink() or path.is_dir() or path.is_file()
    return error, safe


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_is_refused(tmp_path: Path, name: str) -> None:
    error, safe = try_attack(apply_layer, tmp_path, name)
    assert safe
    assert isinstance(error, UnsafeLayerError), error


def test_plain_extraction_falls_to_attacks(tmp_path: Path) -> None:
    """The attacks are real: by path, by links, and by what is no file."""
    fell = set()
    for number, name in enumerate(NAMES):
        (tmp_path / str(number)).mkdir()
        if not try_attack(naive, tmp_path / str(number), name)[1]:
            fell.add(name)
    assert fell >= {
        "absolute path",
        "path with ..",
        "absolute link",
        "link out, by ..",
        "write through a link out",
        "hard link out",
        "fifo",
    }


@pytest.mark.parametrize("name", [n for n in NAMES if "path" in n or "through" in n or "by .." in n])
def test_nothing_leads_out_even_if_the_filter_has_a_hole(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a data filter that passes everything, still nothing outside is written, linked or removed."""
    monkeypatch.setattr(tarfile, "data_filter", lambda member, path: member)
    try_attack(apply_layer, tmp_path, name)
    assert tree(tmp_path / "outside") == {"secret": (b"secret", False)}
    assert (tmp_path / "outside" / "secret").stat().st_nlink == 1


def test_without_the_second_guard_such_a_hole_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the last: with neither guard, the same look finds the damage."""
    monkeypatch.setattr(tarfile, "data_filter", lambda member, path: member)
    monkeypatch.setattr(layers, "_parts", lambda name: Path(name).parts)
    try_attack(apply_layer, tmp_path, "path with ..")
    assert tree(tmp_path / "outside") != {"secret": (b"secret", False)}


def test_a_lower_layer_is_not_changed_by_a_link_to_its_file(tmp_path: Path) -> None:
    """A hard link with another mode and time: the file below keeps its own. Extraction by tarfile would set them."""

    def mode_below(subject: Apply, at: Path) -> int:
        below, root = at / "below", at / "root"
        below.mkdir(parents=True)
        root.mkdir()
        (below / "f").write_bytes(b"f")
        (below / "f").chmod(0o640)
        os.link(below / "f", root / "f")
        apply(subject, at, root, tar(hardlink("g", "f")))
        return (below / "f").stat().st_mode & 0o777

    assert mode_below(apply_layer, tmp_path / "good") == 0o640
    assert mode_below(naive, tmp_path / "bad") == 0o755


# What is no good layer at all.


def test_another_diff_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(gzip.compress(tar(file("a", b"a"))))
    (tmp_path / "root").mkdir()
    with pytest.raises(VerificationError):
        apply_layer(tmp_path / "layer", LAYER, digest_of(b"another"), tmp_path / "root")


def test_the_diff_id_covers_what_follows_the_archive(tmp_path: Path) -> None:
    """Bytes after the end of the archive count, too."""
    data = tar(file("a", b"a"))
    (tmp_path / "layer").write_bytes(gzip.compress(data + b"\0" * 2_000_000))
    (tmp_path / "root").mkdir()
    with pytest.raises(VerificationError):
        apply_layer(tmp_path / "layer", LAYER, digest_of(data), tmp_path / "root")


@pytest.mark.parametrize(
    "blob",
    [
        b"no gzip",
        gzip.compress(b"no tar" * 1000),
        gzip.compress(tar(file("a", b"a" * 100_000)))[:-20],
        gzip.compress(tar(file("a", os.urandom(100_000)))[:50_000]),
        gzip.compress(tar(file("a", b"a")))[:-8] + b"\0" * 8,
    ],
    ids=["no gzip", "no tar", "gzip cut off", "tar cut off", "wrong checksum"],
)
def test_a_broken_file_is_malformed(tmp_path: Path, blob: bytes) -> None:
    (tmp_path / "layer").write_bytes(blob)
    (tmp_path / "root").mkdir()
    with pytest.raises(MalformedError):
        apply_layer(tmp_path / "layer", LAYER, digest_of(b""), tmp_path / "root")


def test_an_unknown_type_is_unsupported(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="zstd"):
        apply_layer(tmp_path, "application/vnd.oci.image.layer.v1.tar+zstd", "", tmp_path)


def test_a_python_without_the_filter_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(UnsupportedError, match=r"3\.10\.12"):
        apply_layer(tmp_path, LAYER, "", tmp_path)
