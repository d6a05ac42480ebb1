"""An OCI image made from a seed: the same arguments give the same bytes, so the same digests, at every build.

The bytes depend on nothing but the arguments and the zlib that Python was built with: owners, times and names in
the tar archives and in the gzip headers are fixed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"

DEFAULT_BYTES = 20_000_000
TINY_BYTES = 40_000

# Shares of the image in percent, from the base up: a big base and thin layers on top, as real images have them.
SHARES = (30, 20, 15, 12, 10, 8, 4, 1)
_FILE_BYTES = (2_000, 600_000)


@dataclass(frozen=True)
class Layer:
    """One layer: the digest and size of its blob, and the digest of the tar inside (diff id)."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True)
class Image:
    """An image to push. ``blobs`` holds the config and the layers by digest; the manifest is apart."""

    manifest: bytes
    manifest_digest: str
    config_digest: str
    layers: tuple[Layer, ...]
    chain_ids: tuple[str, ...]
    blobs: Mapping[str, bytes]
    manifest_type: str = MANIFEST_TYPE

    @property
    def total_bytes(self) -> int:
        """Bytes to fetch for all blobs, without the manifest."""
        return sum(len(blob) for blob in self.blobs.values())


def build(total_bytes: int = DEFAULT_BYTES, seed: int = 1) -> Image:
    """An image of ``len(SHARES)`` layers whose blobs have about ``total_bytes`` bytes; unpacked it is twice that.

    ValueError: total_bytes is negative.
    """
    if total_bytes < 0:
        raise ValueError(f"total_bytes must be at least 0, not {total_bytes}")
    return compose([_seeded_tar(n, total_bytes * share // 100, seed) for n, share in enumerate(SHARES)])


def compose(tars: Sequence[bytes]) -> Image:
    """An image of these tar archives, from the base up. What is in them is not looked at."""
    blobs: dict[str, bytes] = {}
    layers = []
    for tar in tars:
        blob = _gzip(tar)
        layers.append(Layer(digest_of(blob), len(blob), digest_of(tar)))
        blobs[layers[-1].digest] = blob
    config = _json(
        {
            "architecture": "amd64",
            "config": {},
            "created": "1970-01-01T00:00:00Z",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    blobs[digest_of(config)] = config
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.size} for layer in layers],
        }
    )
    return Image(
        manifest=manifest,
        manifest_digest=digest_of(manifest),
        config_digest=digest_of(config),
        layers=tuple(layers),
        chain_ids=tuple(_chain([layer.diff_id for layer in layers])),
        blobs=blobs,
    )


def digest_of(data: bytes) -> str:
    """The digest by which a registry names these bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _chain(diff_ids: Sequence[str]) -> Iterator[str]:
    """A chain id names a layer together with all below it: the first is its diff id, then digest(parent, own)."""
    parent = ""
    for diff_id in diff_ids:
        parent = digest_of(f"{parent} {diff_id}".encode()) if parent else diff_id
        yield parent


def _seeded_tar(number: int, blob_bytes: int, seed: int) -> bytes:
    """Files in hexadecimal digits: gzip halves them, so there is something to inflate, as in real layers."""
    dice = random.Random(f"kmutex layer {number} of seed {seed}")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        _add(tar, f"layer{number}", tarfile.DIRTYPE)
        name = ""
        while blob_bytes > 0:
            size = min(blob_bytes, dice.randint(*_FILE_BYTES))
            blob_bytes -= size
            name = f"layer{number}/file{len(tar.getmembers())}"
            _add(tar, name, tarfile.REGTYPE, dice.randbytes(size).hex().encode())
        if name:
            _add(tar, f"layer{number}/last", tarfile.SYMTYPE, link=name.rpartition("/")[2])
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, kind: bytes, data: bytes = b"", link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    member.size = len(data)
    member.linkname = link
    tar.addfile(member, io.BytesIO(data))


def _gzip(data: bytes) -> bytes:
    # Not gzip.compress: what it writes as the operating system differs between Python releases.
    out = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=out, mtime=0) as file:
        file.write(data)
    return out.getvalue()


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
