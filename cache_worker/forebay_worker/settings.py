"""What a worker is told by its command line; parsed once, frozen, unknown flags refused."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from forebay_protocol.volume import CONTROL_PORT, DATA_PORT

_MIB = 1024 * 1024
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MOST_FILL_BYTES = 256 * _MIB
_LEAST_FILL_BYTES = 32 * _MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSettings:
    """One cache tier over one or more folders, each on a disk of its own as a rule.

    ``quota`` is in bytes, for all folders together; ``high`` and ``low`` are the watermarks, shares of the capacity.
    ``reserve`` is the share of each folder's file system that is left free for others.
    """

    medium: str
    paths: tuple[Path, ...]
    quota: int
    reserve: float = 0.0
    high: float = 0.95
    low: float = 0.85
    encrypted: bool = False
    """Whether chunks are encrypted on the tier's disks, with the access folder's data key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Everything that a worker can be told."""

    id: str
    """The member's name in the ring."""
    access_dir: Path
    """Folder with the dataset document, credentials and keys; its files may come later and change."""
    state_dir: Path
    """Folder for ring, index and loads."""
    tiers: tuple[TierSettings, ...]
    """Fastest first."""
    claims_dir: Path | None = None
    """Folder with one folder per claim, for ``pvc://`` sources; None: such sources cannot be read."""
    address: str = "0.0.0.0"
    """Local address of both ports; ``::`` for IPv6."""
    data_port: int = DATA_PORT
    control_port: int = CONTROL_PORT
    """TCP ports; 0 lets the system choose."""
    tls_dir: Path | None = None
    """Folder with ``tls.crt``, ``tls.key`` and ``ca.crt``, whose files may change: both ports speak TLS only."""
    fetchers: int = 16
    """Requests to the store at the same time."""
    fill_bytes: int = _MOST_FILL_BYTES
    """Bytes of chunks on their way in, at most; requests beyond wait."""
    max_connections: int = 512
    """Data connections at the same time; more are refused."""
    scrub_rate: int = 256 * _MIB
    """Bytes per second that the scrub reads, at most."""
    poll_seconds: float = 1.0
    """Pause between looks at the access folder."""
    stop_seconds: float = 10.0
    """How long requests in flight may take when the worker is told to stop."""


def parse_tier(text: str) -> TierSettings:
    """Read ``medium=SSD,path=/a,path=/b,quota=<bytes>`` and the optional ``high=0.95,low=0.85,reserve=0,encrypted=no``.

    ValueError says what is wrong.
    """
    pairs = [part.partition("=") for part in text.split(",")]
    paths = tuple(Path(value) for name, _, value in pairs if name == "path")
    values = {name: value for name, _, value in pairs if name != "path"}
    unknown = values.keys() - {"medium", "quota", "high", "low", "reserve", "encrypted"}
    missing = {"medium", "quota"} - values.keys() | ({"path"} if not paths else set())
    if unknown or missing:
        raise ValueError(f"tier {text!r}: unknown {sorted(unknown)}, missing {sorted(missing)}")
    tier = TierSettings(
        medium=values["medium"],
        paths=paths,
        quota=int(values["quota"]),
        high=float(values.get("high", "0.95")),
        low=float(values.get("low", "0.85")),
        reserve=float(values.get("reserve", "0")),
        encrypted=values.get("encrypted") == "yes",
    )
    if tier.quota <= 0 or not 0 < tier.low < tier.high <= 1:
        raise ValueError(f"tier {text!r}: the quota must be positive and 0 < low < high <= 1")
    if values.get("encrypted", "no") not in {"yes", "no"}:
        raise ValueError(f"tier {text!r}: encrypted is yes or no")
    if not 0 <= tier.reserve < 1:
        raise ValueError(f"tier {text!r}: the reserve is a share of the file system, at least 0 and below 1")
    if len(set(paths)) < len(paths):
        raise ValueError(f"tier {text!r}: a folder is named twice")
    return tier


def memory_limit() -> int | None:
    """The limit of this process's cgroup in bytes; None when there is none."""
    for path in _CGROUP_LIMITS:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 1 << 60:
            return int(text)
    return None


def default_fill_bytes(limit: int | None) -> int:
    """A quarter of the memory that is no tier's, within sensible bounds."""
    return _MOST_FILL_BYTES if limit is None else max(_LEAST_FILL_BYTES, min(_MOST_FILL_BYTES, limit // 4))


def _tier_argument(text: str) -> TierSettings:
    try:
        return parse_tier(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse(argv: Sequence[str]) -> WorkerSettings:
    """Read the command line; exits with a sentence when it is wrong."""
    parser = argparse.ArgumentParser(prog="forebay_worker", allow_abbrev=False, description=__doc__)
    parser.add_argument("--id", required=True, help="this worker's name in the ring")
    parser.add_argument("--access-dir", required=True, type=Path, help="folder with the access files")
    parser.add_argument("--state-dir", required=True, type=Path, help="folder for ring, index and loads")
    parser.add_argument(
        "--tier",
        required=True,
        action="append",
        type=_tier_argument,
        metavar="medium=…,path=…[,path=…],quota=…[,high=…,low=…,reserve=…]",
    )
    parser.add_argument("--claims-dir", type=Path, help="folder with a folder per claim, for pvc:// sources")
    parser.add_argument("--address", default="0.0.0.0", help="local address of both ports")
    parser.add_argument("--data-port", type=int, default=DATA_PORT)
    parser.add_argument("--control-port", type=int, default=CONTROL_PORT)
    parser.add_argument("--tls-dir", type=Path, help="folder with tls.crt, tls.key and ca.crt: both ports speak TLS")
    parser.add_argument("--fetchers", type=int, default=16, help="requests to the store at the same time")
    parser.add_argument(
        "--memory-limit",
        type=int,
        default=memory_limit(),
        help="bytes that tiers and process may use; default: cgroup's",
    )
    parser.add_argument("--fill-bytes", type=int, help="bytes of chunks on their way in; default: by the memory limit")
    parser.add_argument("--max-connections", type=int, default=512)
    parser.add_argument("--scrub-rate", type=int, default=256 * _MIB, help="bytes per second")
    arguments = vars(parser.parse_args(argv))
    tiers, limit = tuple(arguments.pop("tier")), arguments.pop("memory_limit")
    if limit is not None:
        limit -= sum(tier.quota for tier in tiers if tier.medium == "Memory")
    if arguments["fill_bytes"] is None:
        arguments["fill_bytes"] = default_fill_bytes(limit)
    return WorkerSettings(tiers=tiers, **arguments)
