"""The keys that sign a Dataset's tokens, and how far their rotation is; kept in the access Secret and nowhere else."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from forebay_protocol.auth import key_id

_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


class Phase(StrEnum):
    """Settled: one key. Announced: a new one is accepted, the old one signs. Promoted: the new one signs."""

    SETTLED = "Settled"
    ANNOUNCED = "Announced"
    PROMOTED = "Promoted"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """Keys, the signing one first; ``since`` when the phase began; ``request``: the last wish that was heard."""

    keys: tuple[str, ...] = field(repr=False)
    phase: Phase = Phase.SETTLED
    since: datetime
    request: str = ""

    @property
    def file(self) -> str:
        """The content of the key file."""
        return "".join(f"{key}\n" for key in self.keys)

    @property
    def newest_id(self) -> str:
        """What workers call the newest key."""
        newest = self.keys[-1] if self.phase is Phase.ANNOUNCED else self.keys[0]
        return key_id(newest.encode())

    @property
    def note(self) -> str:
        """Everything but the keys, for an annotation."""
        since = self.since.astimezone(UTC).strftime(_FORMAT)
        return json.dumps({"phase": self.phase.value, "request": self.request, "since": since}, sort_keys=True)

    @classmethod
    def read(cls, file: str, note: str, otherwise: datetime) -> "KeySet":
        """The key file with its annotation; keys without a note are settled since ``otherwise``."""
        keys = tuple(line.strip() for line in file.splitlines() if line.strip())
        try:
            raw = json.loads(note)
            since = datetime.strptime(raw["since"], _FORMAT).replace(tzinfo=UTC)
            found = cls(keys=keys, phase=Phase(raw["phase"]), since=since, request=str(raw["request"]))
        except (ValueError, KeyError, TypeError):
            return cls(keys=keys[:1], since=otherwise)
        return found if len(keys) == (1 if found.phase is Phase.SETTLED else 2) else cls(keys=keys[:1], since=otherwise)
