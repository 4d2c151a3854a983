"""Every error that crosses a boundary between Forebay's processes.

The tree::

    ForebayError
    ├── InvalidRequest          the caller's mistake; asking again will not help
    ├── Unauthorized            missing, expired or foreign token
    ├── ChecksumMismatch        bytes that do not match their checksum; never handed on
    ├── Overloaded              try another worker, or again after ``retry_after``
    ├── WorkerUnavailable       no connection, a broken one, or no answer in time
    ├── NotCached               asked not to fill, and the chunk is not here
    └── SourceError             the object store
        ├── SourceUnavailable   unreachable, 5xx, throttled, timed out
        ├── SourceDenied        refused the credentials
        ├── SourceMissing       no such bucket, claim or host path
        ├── SourceInvalid       answered something that is not what was asked for
        ├── ObjectMissing       the object is gone
        └── ObjectChanged       the object has another version now

Codes are class attributes: ``code`` is stable and travels on the wire, ``reason`` is what a condition shows,
``retryable`` says whether the same request may succeed later with nothing changed, ``errno`` is what a
mount answers.
"""

import errno as _errno
from typing import ClassVar


class ForebayError(Exception):
    """Base of all; also what an unknown wire code becomes."""

    code: ClassVar[int] = 1
    reason: ClassVar[str] = "InternalError"
    retryable: ClassVar[bool] = False
    http_status: ClassVar[int] = 500
    errno: ClassVar[int] = _errno.EIO

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        """Keep the sentence for people and, where the other side gave one, the pause in seconds."""
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after


class InvalidRequest(ForebayError):
    """The request is malformed or asks for what cannot be."""

    code = 2
    reason = "InvalidRequest"
    http_status = 400


class Unauthorized(ForebayError):
    """The token is missing, expired or not for this dataset."""

    code = 3
    reason = "Unauthorized"
    http_status = 401
    errno = _errno.EACCES


class ChecksumMismatch(ForebayError):
    """Bytes arrived or were found that do not match their checksum."""

    code = 4
    reason = "ChecksumMismatch"
    retryable = True


class Overloaded(ForebayError):
    """The worker is at its limit."""

    code = 5
    reason = "Overloaded"
    retryable = True
    http_status = 503
    errno = _errno.EAGAIN


class WorkerUnavailable(ForebayError):
    """A worker could not be reached or did not answer in time."""

    code = 6
    reason = "WorkerUnavailable"
    retryable = True
    http_status = 503


class NotCached(ForebayError):
    """The chunk is not in this worker's store and the request forbade to fetch it."""

    code = 7
    reason = "NotCached"
    http_status = 404


class SourceError(ForebayError):
    """The object store did not give what was asked for."""

    code = 16
    reason = "SourceError"
    http_status = 502


class SourceUnavailable(SourceError):
    """Unreachable, failing, throttling or too slow."""

    code = 17
    reason = "EndpointUnreachable"
    retryable = True
    http_status = 503


class SourceDenied(SourceError):
    """The credentials are missing, wrong or not allowed to do this."""

    code = 18
    reason = "AccessDenied"
    http_status = 403
    errno = _errno.EACCES


class SourceMissing(SourceError):
    """The bucket itself does not exist."""

    code = 19
    reason = "NoSuchBucket"
    http_status = 404


class SourceInvalid(SourceError):
    """The answer is not the range, length or version that was asked for."""

    code = 20
    reason = "InvalidResponse"
    retryable = True


class ObjectMissing(SourceError):
    """The object was deleted at the source."""

    code = 21
    reason = "ObjectMissing"
    http_status = 404
    errno = _errno.ESTALE


class ObjectChanged(SourceError):
    """The object was overwritten at the source; the old version cannot be fetched any more."""

    code = 22
    reason = "ObjectChanged"
    http_status = 412
    errno = _errno.ESTALE


_ALL: tuple[type[ForebayError], ...] = (
    ForebayError,
    InvalidRequest,
    Unauthorized,
    ChecksumMismatch,
    Overloaded,
    WorkerUnavailable,
    NotCached,
    SourceError,
    SourceUnavailable,
    SourceDenied,
    SourceMissing,
    SourceInvalid,
    ObjectMissing,
    ObjectChanged,
)
BY_CODE: dict[int, type[ForebayError]] = {kind.code: kind for kind in _ALL}


def from_code(code: int, message: str, *, retry_after: float | None = None) -> ForebayError:
    """The error that a wire code stands for; an unknown code is a plain ForebayError."""
    return BY_CODE.get(code, ForebayError)(message, retry_after=retry_after)
