"""The image that is pushed: always the same bytes, and a manifest that says what is in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import image

PULL = Path(__file__).resolve().parents[2] / "examples" / "pull"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="module")
def tiny() -> image.Image:
    return image.build(image.TINY_BYTES)


def test_another_process_with_another_clock_and_hash_seed_builds_the_same_bytes(tiny: image.Image) -> None:
    program = "import image, time; time.time = lambda: 1.0; print(image.build(image.TINY_BYTES).manifest_digest)"
    environment = os.environ | {"PYTHONPATH": str(PULL), "PYTHONHASHSEED": "7", "TZ": "Pacific/Auckland"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == tiny.manifest_digest


def test_another_seed_or_size_builds_other_bytes(tiny: image.Image) -> None:
    digests = {
        tiny.manifest_digest,
        image.build(image.TINY_BYTES, seed=2).manifest_digest,
        image.build(image.TINY_BYTES + 1_000).manifest_digest,
    }
    assert len(digests) == 3


def test_the_manifest_names_each_blob_by_its_digest_and_size(tiny: image.Image) -> None:
    manifest = json.loads(tiny.manifest)
    assert sha256(tiny.manifest) == tiny.manifest_digest
    assert manifest["mediaType"] == tiny.manifest_type
    named = [manifest["config"], *manifest["layers"]]
    assert [(one["digest"], one["size"]) for one in named] == [
        (sha256(tiny.blobs[one["digest"]]), len(tiny.blobs[one["digest"]])) for one in named
    ]
    assert {one["digest"] for one in named} == set(tiny.blobs)
    assert len(manifest["layers"]) == len(image.SHARES) == len({layer.digest for layer in tiny.layers})


def test_diff_ids_are_of_the_unpacked_archives_and_chain_ids_go_up_from_the_base(tiny: image.Image) -> None:
    config = json.loads(tiny.blobs[tiny.config_digest])
    diff_ids = [sha256(gzip.decompress(tiny.blobs[layer.digest])) for layer in tiny.layers]
    assert config["rootfs"] == {"type": "layers", "diff_ids": diff_ids}
    chains = itertools.accumulate(diff_ids, lambda parent, own: sha256(f"{parent} {own}".encode()))
    assert list(tiny.chain_ids) == list(chains)


def test_layers_unpack_with_the_safe_filter_to_folders_files_and_links(tiny: image.Image, tmp_path: Path) -> None:
    for number, layer in enumerate(tiny.layers):
        with tarfile.open(fileobj=io.BytesIO(tiny.blobs[layer.digest]), mode="r:gz") as tar:
            assert {member.mtime for member in tar} == {0}
            tar.extractall(tmp_path, filter="data")
        last = tmp_path / f"layer{number}" / "last"
        assert last.is_symlink()
        assert last.resolve(strict=True).stat().st_size > 0


@pytest.mark.parametrize("total", [image.TINY_BYTES, 1_000_000])
def test_the_blobs_have_about_the_bytes_asked_for_and_unpack_to_more(total: int) -> None:
    built = image.build(total)
    assert total <= built.total_bytes <= 1.3 * total
    unpacked = sum(len(gzip.decompress(built.blobs[layer.digest])) for layer in built.layers)
    assert unpacked > 1.5 * built.total_bytes


def test_an_image_of_nothing_has_all_its_layers() -> None:
    assert len(image.build(0).layers) == len(image.SHARES)
    with pytest.raises(ValueError, match="at least 0"):
        image.build(-1)


def test_any_archives_can_be_composed() -> None:
    assert image.compose([]).chain_ids == ()
    twice = image.compose([b"not a tar", b"not a tar"])
    assert twice.layers[0] == twice.layers[1]
    assert twice.chain_ids[0] != twice.chain_ids[1]
    assert gzip.decompress(twice.blobs[twice.layers[0].digest]) == b"not a tar"
