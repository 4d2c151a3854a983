"""When a server that has ended is started again."""

from forebay_node.restarts import FREE, LONGEST_PAUSE, PATIENCE, SHORT_LIFE, Restarts


def test_a_server_that_served_for_a_while_is_replaced_at_once() -> None:
    """However often: somebody kills it, or its node has little memory."""
    restarts = Restarts()

    assert {restarts.ended(100.0 * number, 100.0 * number + SHORT_LIFE) for number in range(50)} == {0.0}
    assert restarts.short_lives == 0


def test_one_that_ends_at_once_again_and_again_is_given_growing_pauses() -> None:
    """A few times without a pause, then longer and longer ones up to a bound; a long life begins anew."""
    restarts = Restarts()

    pauses = [restarts.ended(0.0, 0.1) for _ in range(FREE + 8)]

    assert pauses[:FREE] == [0.0] * FREE
    assert pauses[FREE:] == sorted(pauses[FREE:])
    assert len(set(pauses[FREE : FREE + 4])) == 4
    assert pauses[-1] == LONGEST_PAUSE
    assert restarts.ended(0.0, SHORT_LIFE) == 0.0
    assert restarts.ended(0.0, 0.1) == 0.0


def test_a_mount_without_a_server_is_given_up_in_time() -> None:
    """Tries go on while the next one would begin within the patience that readers are asked for; not one later."""
    restarts = Restarts()
    now = 1000.0
    now += restarts.ended(now - 50.0, now)
    tries = 0
    while (pause := restarts.failed(now)) is not None:
        assert now + pause - restarts.ended_at < PATIENCE
        tries, now = tries + 1, now + pause + 0.1

    assert tries > FREE
    assert PATIENCE - LONGEST_PAUSE - 1 < now - restarts.ended_at < PATIENCE
