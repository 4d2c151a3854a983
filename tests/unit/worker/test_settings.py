"""The command line of a worker."""

from pathlib import Path

import pytest

from forebay_worker.settings import default_fill_bytes, parse, parse_tier

MIB = 1024 * 1024
REQUIRED = ["--id", "w-0", "--access-dir", "/a", "--state-dir", "/s"]


def test_tiers_come_in_the_order_of_the_flags() -> None:
    """Fastest first; watermarks have defaults."""
    ssd = "medium=SSD,path=/d,quota=20,high=0.9,low=0.5"

    settings = parse([*REQUIRED, "--tier", "medium=Memory,path=/m,quota=10", "--tier", ssd])

    assert [tier.medium for tier in settings.tiers] == ["Memory", "SSD"]
    assert (settings.tiers[0].paths, settings.tiers[0].high) == ((Path("/m"),), 0.95)
    assert (settings.tiers[1].quota, settings.tiers[1].low) == (20, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "medium=Memory,path=/m",
        "medium=Memory,path=/m,quota=0",
        "medium=Memory,path=/m,quota=ten",
        "medium=Memory,path=/m,quota=10,high=0.5,low=0.6",
        "medium=Memory,path=/m,quota=10,colour=red",
    ],
)
def test_a_wrong_tier_is_refused(text: str) -> None:
    """Missing or unknown parts, impossible numbers."""
    with pytest.raises(ValueError, match=r"tier|invalid"):
        parse_tier(text)


def test_unknown_flags_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error is an error."""
    with pytest.raises(SystemExit):
        parse([*REQUIRED, "--tier", "medium=Memory,path=/m,quota=10", "--fetcher", "3"])

    assert "--fetcher" in capsys.readouterr().err


def test_the_memory_for_chunks_on_their_way_follows_the_limit() -> None:
    """A quarter of it, within bounds."""
    assert default_fill_bytes(None) == default_fill_bytes(64 * 1024 * MIB) == 256 * MIB
    assert default_fill_bytes(512 * MIB) == 128 * MIB
    assert default_fill_bytes(64 * MIB) == 32 * MIB


def test_memory_tiers_are_no_room_for_buffers(tmp_path: Path) -> None:
    """Chunks on their way in get a quarter of what the tiers leave of the memory limit."""
    common = [
        "--id",
        "w",
        "--access-dir",
        str(tmp_path),
        "--state-dir",
        str(tmp_path),
        "--memory-limit",
        str(512 * MIB),
    ]
    tiers = ["--tier", f"medium=Memory,path={tmp_path}/m,quota={256 * MIB}"]
    tiers += ["--tier", f"medium=SSD,path={tmp_path}/s,quota={1024 * MIB}"]

    assert parse([*common, *tiers]).fill_bytes == 64 * MIB
    assert parse([*common, *tiers, "--fill-bytes", "5"]).fill_bytes == 5
