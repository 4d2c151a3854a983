"""The workers' control API: HTTP routes and the JSON that they speak.

All routes but health and metrics want ``Authorization: Bearer <token>`` (see ``auth``). Errors are
``{"code", "reason", "message"}`` with the HTTP status of their class.

====================  =================================================================================
GET  /healthz         the process works; never depends on anything else
GET  /readyz          200 once the worker has a ring that names it and can serve; else 503 and why
GET  /metrics         Prometheus text
PUT  /v1/ring         ring document; answers ``{"epoch"}``, the newest one known
GET  /v1/ring         ring document
GET  /v1/status       ``WorkerStatus``
GET  /v1/index        newest index: zlib-compressed snapshot file; generation in ``X-Forebay-Generation``;
                      ``?have=N`` answers 304 when N is the newest; 404 while there is none
POST /v1/index        somebody met an object that is not as listed: list again soon; answers 202
POST /v1/newest       ``{"dataset", "mount", "key", "version", "size"}`` of an object: asks its source; answers
                      ``{"version", "size", "mtimeNs"}`` as they are now, 204 when it is gone
PUT  /v1/loads/{id}   ``LoadRequest``; the same id and body again changes nothing, answers ``LoadProgress``
GET  /v1/loads/{id}   ``LoadProgress``
DELETE /v1/loads/{id} stop and forget; answers 204 also when there is none
GET  /v1/trust        the access Secret's keys, sealed with the key that signed the request's token; ask when
                      ``X-Forebay-Key`` of any answer names another key than the one in use
====================  =================================================================================
"""

import base64
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from forebay_protocol.errors import InvalidRequest

HEALTH = "/healthz"
READY = "/readyz"
METRICS = "/metrics"
RING = "/v1/ring"
STATUS = "/v1/status"
INDEX = "/v1/index"
NEWEST = "/v1/newest"
LOADS = "/v1/loads"
TRUST = "/v1/trust"
GENERATION_HEADER = "X-Forebay-Generation"
KEY_HEADER = "X-Forebay-Key"
"""On every answer to a good token: the id of the key to sign with (see ``auth.key_id``)."""


class IndexState(StrEnum):
    """Where a worker's index stands. Failed keeps serving the last generation if there is one."""

    NONE = "None"
    BUILDING = "Building"
    READY = "Ready"
    FAILED = "Failed"


class LoadState(StrEnum):
    """A load on one worker. Complete: every wanted chunk that the worker owns was present when looked at."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETE = "Complete"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Why something does not work: a stable CamelCase reason, a sentence with the next step, and the mount if one."""

    reason: str
    message: str
    mount: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatus:
    """One cache tier: bytes used of the capacity in force, and what is wrong with it."""

    medium: str
    capacity_bytes: int
    used_bytes: int
    problem: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """The newest generation (0: none yet) and the last attempt to build one."""

    state: IndexState
    generation: int = 0
    built_at: float = 0.0
    total_bytes: int = 0
    file_count: int = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """What one worker says of itself.

    ``cached_bytes``: verified bytes of the current generation that this worker holds *and owns*, so that
    the sum over workers counts no byte twice; ``held_bytes``: all bytes in its tiers. Counters run since
    the process started; ``window_*`` cover the last five minutes of bytes served to readers. ``keys`` are the ids
    of the keys that it accepts, the signing one first.
    """

    id: str
    epoch: int
    dataset_revision: str
    index: IndexStatus
    tiers: tuple[TierStatus, ...]
    cached_bytes: int
    held_bytes: int
    window_hit_bytes: int
    window_miss_bytes: int
    origin_bytes: int
    peer_bytes: int
    corrupt_chunks: int
    keys: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The body of GET /v1/status."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Any) -> "WorkerStatus":
        """Read a status; InvalidRequest when it is none."""
        try:
            index = dict(raw["index"])
            index |= {"state": IndexState(index["state"]), "problems": _problems(index["problems"])}
            tiers = tuple(
                TierStatus(**{**tier, "problem": Problem(**tier["problem"]) if tier["problem"] else None})
                for tier in raw["tiers"]
            )
            parsed = {
                "index": IndexStatus(**index), "tiers": tiers, "problems": _problems(raw["problems"]),
                "keys": tuple(str(one) for one in raw.get("keys", ())),
            }  # fmt: skip
            return cls(**{**raw, **parsed})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidRequest(f"malformed worker status: {error!r}") from error


def _problems(raw: Any) -> tuple[Problem, ...]:
    return tuple(Problem(**problem) for problem in raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """Load what the globs over volume paths select (``/`` and all below when empty), from generation on.

    ``generation`` is the least index generation to work on: a worker waits until it has it.
    """

    paths: tuple[str, ...] = ()
    generation: int = 0

    def to_json(self) -> dict[str, Any]:
        """The body of PUT /v1/loads/{id}."""
        return {"paths": list(self.paths), "generation": self.generation}

    @classmethod
    def from_json(cls, raw: Any) -> "LoadRequest":
        """Read a request; InvalidRequest says what is wrong with it."""
        try:
            return cls(paths=tuple(str(path) for path in raw["paths"]), generation=int(raw["generation"]))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InvalidRequest(f"malformed load request: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadProgress:
    """One worker's share of a load.

    The dataset's selected files are numbered in index order (by mount, then key). ``total_*`` describe the
    whole selection, ``own_bytes`` the part that this worker owns, ``present_bytes`` what of that part is present
    and verified now. ``complete_files`` has one bit per selected file (most significant first): set when the
    worker misses nothing of its own share of that file. A file is loaded when the bit is set on every worker.
    """

    state: LoadState
    generation: int = 0
    total_files: int = 0
    total_bytes: int = 0
    own_bytes: int = 0
    present_bytes: int = 0
    failed_files: int = 0
    complete_files: bytes = field(default=b"", repr=False)
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The body of GET /v1/loads/{id}."""
        return {**asdict(self), "complete_files": base64.b64encode(self.complete_files).decode()}

    @classmethod
    def from_json(cls, raw: Any) -> "LoadProgress":
        """Read a progress report; InvalidRequest when it is none."""
        try:
            parsed = {
                "state": LoadState(raw["state"]),
                "complete_files": base64.b64decode(raw["complete_files"], validate=True),
                "problems": _problems(raw["problems"]),
            }
            return cls(**{**raw, **parsed})
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"malformed load progress: {error!r}") from error


def loaded_files(reports: tuple[LoadProgress, ...]) -> int:
    """How many files are complete on every worker; 0 when the reports are not of one selection."""
    if not reports or len({(r.generation, r.total_files, len(r.complete_files)) for r in reports}) != 1:
        return 0
    everywhere = (1 << (8 * len(reports[0].complete_files))) - 1
    for report in reports:
        everywhere &= int.from_bytes(report.complete_files, "big")
    return everywhere.bit_count()
