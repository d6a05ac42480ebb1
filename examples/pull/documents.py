"""The documents of an image: index, manifest and configuration, in the types of OCI and of Docker's schema 2."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from errors import MalformedError, UnsupportedError
from store import hex_of

INDEXES = frozenset(
    {
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    }
)
MANIFESTS = frozenset(
    {
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    }
)
LARGEST = 4 << 20
"""Bytes that a document may have."""

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class Reference(NamedTuple):
    """What is to be pulled: ``repository:tag`` or ``repository@digest``."""

    repository: str
    target: str
    """A tag or a digest."""

    @property
    def by_digest(self) -> bool:
        """Whether the target is a digest, which stands for one content for ever."""
        return ":" in self.target


class Descriptor(NamedTuple):
    """What a document says of a blob."""

    media_type: str
    digest: str
    size: int | None
    """Bytes; None where only a registry's header told of it and gave no length."""


class Manifest(NamedTuple):
    """One image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def reference(text: str) -> Reference:
    """Read ``repository[:tag]`` or ``repository@digest``; the tag is ``latest`` where none is given.

    MalformedError: it is neither. UnsupportedError: another kind of digest.
    """
    name, at, digest = text.partition("@")
    if at:
        hex_of(digest)
        target = digest
    else:
        name, _, target = text.partition(":")
        target = target or "latest"
    if not _REPOSITORY.fullmatch(name) or not (at or _TAG.fullmatch(target)):
        raise MalformedError(f"not a reference: {text!r}")
    return Reference(name, target)


def choose(index: bytes, platform: str) -> Descriptor:
    """The manifest for a platform such as ``linux/amd64``, the first that fits.

    MalformedError: this is no index. UnsupportedError: it has no image for the platform.
    """
    for entry in _list(_document(index), "manifests"):
        where = entry.get("platform") if isinstance(entry, dict) else None
        if isinstance(where, dict) and f"{where.get('os')}/{where.get('architecture')}" == platform:
            return _descriptor(entry)
    raise UnsupportedError(f"no image for {platform} in the index")


def manifest(document: bytes) -> Manifest:
    """MalformedError: this is no image manifest."""
    fields = _document(document)
    layers = tuple(_descriptor(layer) for layer in _list(fields, "layers"))
    if not layers:
        raise MalformedError("an image without layers")
    return Manifest(_descriptor(fields.get("config")), layers)


def diff_ids(config: bytes, layers: int) -> tuple[str, ...]:
    """The digests of the layers when uncompressed. MalformedError: it is no configuration, or not of these layers."""
    rootfs = _document(config).get("rootfs")
    if not isinstance(rootfs, dict):
        raise MalformedError("a configuration without rootfs")
    found = _list(rootfs, "diff_ids")
    if len(found) != layers or not all(isinstance(diff_id, str) for diff_id in found):
        raise MalformedError(f"{len(found)} diff IDs for {layers} layers")
    for diff_id in found:
        hex_of(diff_id)
    return tuple(found)


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """For each layer, the name of it and all below it: the OCI chain ID."""
    chain: list[str] = []
    for diff_id in diff_ids:
        whole = f"{chain[-1]} {diff_id}" if chain else ""
        chain.append(f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}" if whole else diff_id)
    return tuple(chain)


def _document(text: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise MalformedError("not a JSON object")
    return fields


def _list(fields: dict[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    if not isinstance(value, list):
        raise MalformedError(f"{name} is no list")
    return value


def _descriptor(fields: Any) -> Descriptor:
    if not isinstance(fields, dict):
        raise MalformedError("not a descriptor")
    media_type, digest, size = (fields.get(name) for name in ("mediaType", "digest", "size"))
    if not isinstance(media_type, str) or not isinstance(digest, str):
        raise MalformedError("a descriptor without a type or a digest")
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise MalformedError(f"a descriptor with the size {size!r}")
    hex_of(digest)
    return Descriptor(media_type, digest, size)
