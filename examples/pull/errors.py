"""What can go wrong in a pull. A full disk and its like stay the OSError that they are."""

from __future__ import annotations


class PullError(Exception):
    """A pull, or a part of it, failed."""


class UnavailableError(PullError):
    """Somebody else is writing this just now."""


class AlreadyExistsError(PullError):
    """It is there already."""


class RootInUseError(PullError):
    """Another process, or another puller of this one, works in the same folder."""


class StoppedError(PullError):
    """The pull was stopped from outside."""


class RegistryError(PullError):
    """The registry answers with an error that asking again would not mend."""


class TransientError(PullError):
    """The registry is out of reach, or fails in a way that may pass."""


class MalformedError(PullError):
    """A document of the image is not what its media type says."""


class UnsupportedError(PullError):
    """It may be right, but this puller does not know it."""


class VerificationError(PullError):
    """The content is not what its descriptor says: its size, its digest or its diff ID."""


class UnsafeLayerError(PullError):
    """A layer wants to reach out of its snapshot, or to make what is no file, folder or link."""
