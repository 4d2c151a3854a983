"""Processes: known again by id and start time, ended for certain, started outside of us."""

import os
import subprocess

import pytest

from testkit.processes import Identity, end, marked, parse_stat, running


def test_a_command_with_spaces_and_brackets_is_read() -> None:
    """The command in /proc/PID/stat may hold anything, also a closing bracket."""
    rest = " ".join(str(number) for number in range(4, 53))
    identity, state = parse_stat(f"42 (a) (b c) S {rest}")

    assert identity == Identity(42, 22)
    assert state == "S"


def test_a_process_that_runs_is_told_from_one_that_ended() -> None:
    """A zombie counts as ended."""
    child = subprocess.Popen(["sleep", "60"])
    there = running(child.pid)

    assert there is not None
    assert end([there], grace_seconds=5) == []
    assert running(child.pid) is None
    child.wait()


def test_a_process_that_ignores_the_request_is_killed() -> None:
    """SIGTERM first, SIGKILL when that has no effect."""
    child = subprocess.Popen(
        ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    there = running(child.pid)

    assert there is not None
    assert end([there], grace_seconds=0.2) == []
    child.wait()
    child.stdout.close()


def test_another_process_with_the_same_id_is_left_alone() -> None:
    """Ids are used again: a start time that differs means another process."""
    own = running(os.getpid())
    assert own is not None

    assert end([Identity(own.pid, own.start_ticks - 1)], grace_seconds=0.1) == []
    assert running(own.pid) == own


def test_the_marker_in_the_environment_is_found() -> None:
    """What a daemon starts inherits the marker; other clusters' markers do not count."""
    child = subprocess.Popen(["sleep", "60"], env={**os.environ, "FOREBAY_TESTKIT": "probe-of-a-test"})
    try:
        assert marked("probe-of-a-test").keys() == {child.pid}
        assert marked("probe-of-a") == {}
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("pid", [2**22 + 1, 0])
def test_no_process_has_this_id(pid: int) -> None:
    """An id beyond the kernel's range runs nothing."""
    assert running(pid) is None
