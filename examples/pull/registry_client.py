"""The registry, as a client sees it: resolve a reference, and stream what a digest stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import tenacity
import urllib3
from urllib3.exceptions import HTTPError, LocationValueError

from documents import INDEXES, LARGEST, MANIFESTS, Descriptor, Reference
from errors import MalformedError, RegistryError, TransientError, UnsupportedError
from stop import Stop
from store import hex_of

T = TypeVar("T")
_ACCEPT = {"Accept": ", ".join(sorted(INDEXES | MANIFESTS))}
_CHUNK = 1 << 18
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which it is worth to ask again."""


class RegistryClient:
    """For many threads: connections are pooled, and nothing else is shared."""

    def __init__(
        self, registry: str, *, tries: int = 4, backoff: float = 0.1, connect: float = 5.0, read: float = 30.0
    ) -> None:
        """registry: ``http://host:port``. tries: how often a request is made before it fails.

        backoff: seconds of the first pause between two tries at most; drawn at random, and doubling up to 2 s.
        connect, read: seconds that a connection, and each piece of an answer, may take.
        """
        self._registry = registry.rstrip("/")
        self._tries = tries
        self._backoff = backoff
        self._pool = urllib3.PoolManager(
            maxsize=128, retries=urllib3.Retry(0, redirect=3), timeout=urllib3.Timeout(connect=connect, read=read)
        )

    def persist(self, work: Callable[[], T], stop: Stop) -> T:
        """What ``work`` returns, begun anew after a TransientError as often as there are tries; then that error."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            stop=tenacity.stop_after_attempt(self._tries),
            wait=tenacity.wait_random_exponential(multiplier=self._backoff, max=2.0),
            sleep=stop.sleep,
            reraise=True,
        )
        return retrying(work)

    def resolve(self, wanted: Reference) -> Descriptor:
        """What a reference stands for now; its size may be unknown. Errors: those of `stream`."""
        path = f"/v2/{wanted.repository}/manifests/{wanted.target}"
        with self._answer("HEAD", path) as answer:
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
            digest = answer.headers.get("Docker-Content-Digest")
        if digest is None:
            with self._answer("GET", path) as answer:
                media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
                document = b"".join(_at_most(LARGEST, answer))
            digest = f"sha256:{hashlib.sha256(document).hexdigest()}"
        hex_of(digest)
        if media_type not in INDEXES | MANIFESTS:
            raise UnsupportedError(f"{wanted.repository}:{wanted.target} is of the type {media_type!r}")
        return Descriptor(media_type, wanted.target if wanted.by_digest else digest, None)

    @contextmanager
    def stream(self, repository: str, wanted: Descriptor) -> Iterator[Iterator[bytes]]:
        """A GET, and its body in chunks; never more bytes than the descriptor says. The body is not verified.

        TransientError: no connection, a body that breaks off, or a status that may pass. RegistryError: any other
        status but 200. MalformedError: the body is longer than it should be.
        """
        document = wanted.media_type in INDEXES | MANIFESTS
        path = f"/v2/{repository}/{'manifests' if document else 'blobs'}/{wanted.digest}"
        with self._answer("GET", path) as answer:
            yield _at_most(LARGEST if wanted.size is None else wanted.size, answer)

    @contextmanager
    def _answer(self, method: str, path: str) -> Iterator[urllib3.BaseHTTPResponse]:
        answer = None
        done = False
        try:
            answer = self._pool.request(
                method, self._registry + path, headers=_ACCEPT, preload_content=False, decode_content=False
            )
            if answer.status != 200:
                kind = TransientError if answer.status in _PASSING else RegistryError
                raise kind(f"{method} {path}: status {answer.status}")
            yield answer
            done = True
        except LocationValueError as error:
            raise RegistryError(f"{method} {path}: {error}") from error
        except HTTPError as error:
            raise TransientError(f"{method} {path}: {error}") from error
        finally:
            if answer is not None:
                # A connection with an unread body on it must not serve another request.
                if done:
                    answer.drain_conn()
                    answer.release_conn()
                else:
                    answer.close()

    def close(self) -> None:
        """Close the connections that are idle."""
        self._pool.clear()


def _at_most(most: int, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    size = 0
    for chunk in answer.stream(_CHUNK, decode_content=False):
        size += len(chunk)
        if size > most:
            raise MalformedError(f"the registry sends more than the {most} bytes that were asked for")
        yield chunk
