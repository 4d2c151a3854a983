"""What a process lets its sources use beside what the mount itself names."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """By default nothing: a node plugin reads for many tenants and lends its identity, network and files to none.

    ``one_tenant``: the process works for one tenant only, so that whatever it may reach, the tenant may: mounts without
    credentials are read as whoever the process is, and sources other than S3 are served; ``claims``: the folder with
    one folder per claim, for ``pvc://``; None where claims are not mounted.
    """

    one_tenant: bool = False
    claims: Path | None = None


NOTHING = Grant()
