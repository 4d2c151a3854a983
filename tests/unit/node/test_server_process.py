"""What the node plugin and a mount's server say to each other, with programs that play the server."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay_node import server_process
from forebay_node.server_process import ServerProcess, ServerSpec
from forebay_protocol.dataset import KEYS_FILE
from forebay_protocol.errors import WorkerUnavailable

Play = Callable[[str], ServerProcess]


@pytest.fixture
def spec(tmp_path: Path) -> ServerSpec:
    """What a server is to serve."""
    return ServerSpec(
        source="s", node="n", worker_service="w", secrets={KEYS_FILE: "old"}, index_folder=tmp_path, patience=5.0
    )


@pytest.fixture
def play(spec: ServerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Starts a shell script as the server."""

    def started(script: str) -> ServerProcess:
        program = tmp_path / "server"
        program.write_text(f"#!/bin/sh\nread secrets\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        return ServerProcess(spec, (), resume=False)

    return started


def test_keys_may_be_rotated_at_any_time(play: Play, spec: ServerSpec) -> None:
    """Before the server is prepared, too; the next server is given those that came last."""
    server = play("""echo 'keys: ["a"]'; echo prepared; read serve; echo alive; echo 'keys: ["new","old"]'; exit 3""")
    mounted: list[int] = []

    server.begin(lambda: mounted.append(1))

    assert spec.secrets[KEYS_FILE] == "a"
    assert server.wait() == 3
    assert spec.secrets[KEYS_FILE] == "new\nold"
    assert mounted == [1]


@pytest.mark.parametrize(
    ("script", "reason"), [("echo 'failed: no index'", "no index"), ("exit 1", "did not become ready")]
)
def test_a_server_that_cannot_begin_says_why(play: Play, script: str, reason: str) -> None:
    """In its own words, if it has any; nothing is mounted, and it has ended."""
    server = play(script)
    with pytest.raises(WorkerUnavailable, match=reason):
        server.begin(lambda: pytest.fail("mounted"))
    assert not server.identity.is_alive()


def test_a_server_that_hangs_is_ended(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was prepared and then gave no sign of life."""
    monkeypatch.setattr(server_process, "SILENCE", 0.3)
    server = play("echo prepared; read serve; echo alive; exec sleep 5")
    server.begin()

    assert server.wait() == -9
