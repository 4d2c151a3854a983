"""Processes in a network namespace of their own, as pods have one, behind a link whose rate may be limited."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.cluster.network import NETNS_DIR, Network, limit_rate
from testkit.ledger import Ledger
from testkit.settings import Settings


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """A namespace on the bridge of ``settings``; removed with everything else of those settings."""

    name: str
    address: str
    cable: str

    def entering(self, argv: Sequence[str]) -> list[str]:
        """The command, run within the namespace."""
        return ["nsenter", f"--net={NETNS_DIR / self.name}", "--", *argv]

    @property
    def sent_bytes(self) -> int:
        """What the namespace has sent, with all headers, as the other end of its cable counted it."""
        return int(Path(f"/sys/class/net/{self.cable}/statistics/rx_bytes").read_text())


def plug_in(settings: Settings, index: int, mbit: int | None) -> OwnNetwork:
    """Make number ``index`` (from 1); its processes send at most so many Mbit/s."""
    network = Network(settings, Ledger(settings.state_dir))
    network.ensure_bridge()
    name = f"{settings.prefix}-own{index}"
    address = settings.node_address(index)
    network.ensure_namespace(name, index, address)
    limit_rate(name, mbit)
    return OwnNetwork(name, str(address), f"{settings.prefix}{index}")
