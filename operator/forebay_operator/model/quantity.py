"""Kubernetes quantities: read them, write them, and say them to people."""

import re
from decimal import Decimal

_QUANTITY = re.compile(r"^([+-]?[0-9.]+)(?:([KMGTPE]i|[numkMGTPE])|[eE]([+-]?[0-9]+))?$")
_SUFFIXES = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12, "P": Decimal(10) ** 15, "E": Decimal(10) ** 18,
    "Ki": Decimal(1 << 10), "Mi": Decimal(1 << 20), "Gi": Decimal(1 << 30),
    "Ti": Decimal(1 << 40), "Pi": Decimal(1 << 50), "Ei": Decimal(1 << 60),
}  # fmt: skip


def parse(text: str | int) -> Decimal:
    """The number that a quantity stands for; ValueError when it is none."""
    match = _QUANTITY.match(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, suffix, exponent = match.groups()
    return Decimal(number) * _SUFFIXES[suffix or ""] * Decimal(10) ** int(exponent or 0)


def to_bytes(text: str | int) -> int:
    """Whole bytes of a size, rounded down."""
    return int(parse(text))


def same(left: object, right: object) -> bool:
    """Whether two values are the same quantity although written differently; False when one is none."""
    if not isinstance(left, str | int) or not isinstance(right, str | int):
        return False
    try:
        return parse(left) == parse(right)
    except ValueError:
        return False


def human(size: int) -> str:
    """A size for people: three significant digits and a binary unit."""
    value, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    if units[0] == "B" or value >= 100:
        return f"{value:.0f}{units[0]}"
    return f"{value:.1f}{units[0]}"


def human_seconds(seconds: int) -> str:
    """A duration for people."""
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
