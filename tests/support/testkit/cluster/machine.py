"""What all parts of one cluster share: settings, programs, ledger, processes, network, certificates, progress."""

from dataclasses import dataclass
from pathlib import Path

from testkit.binaries import Binaries
from testkit.cluster.certificates import Certificates
from testkit.cluster.network import Network
from testkit.ledger import Ledger
from testkit.processes import ProcessTable
from testkit.progress import Progress
from testkit.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The parts, wired once."""

    settings: Settings
    binaries: Binaries
    ledger: Ledger
    processes: ProcessTable
    network: Network
    certificates: Certificates
    progress: Progress

    def log(self, role: str) -> Path:
        """The log file of a daemon."""
        return self.settings.data_dir / "log" / f"{role}.log"


def wire(settings: Settings, binaries: Binaries, progress: Progress) -> Machine:
    """Build the parts of one cluster."""
    ledger = Ledger(settings.state_dir)
    return Machine(
        settings=settings,
        binaries=binaries,
        ledger=ledger,
        processes=ProcessTable(settings.name, settings.state_dir),
        network=Network(settings, ledger),
        certificates=Certificates(settings),
        progress=progress,
    )
