"""When the NATS server of an edge is started again."""

from imaging_services.local.edge import ServerWatch

ILL = 3  # looks


def looks(watch: ServerWatch, pid: int | None, *states: bool | None) -> list[bool]:
    """What each look says: True answers, False does not, None does not either, and the disk is full."""
    return [watch.is_ill(pid, answers=bool(state), has_room=state is not None) for state in states]


def test_a_server_that_has_answered_is_ill_after_three_looks_without() -> None:
    watch = ServerWatch(None)
    assert looks(watch, 7, True, False, False) == [False] * ILL
    assert looks(watch, 7, True, False, False, False) == [False, False, False, True]


def test_one_that_reads_its_spool_is_left_alone_however_long_it_takes() -> None:
    watch = ServerWatch(7)
    assert looks(watch, 7, False, False) == [False, False]
    assert looks(watch, None, False) == [False]
    assert not any(looks(watch, 8, *[False] * 100))
    assert looks(watch, 8, True, False, False, False) == [False, False, False, True]
    assert not any(looks(watch, 8, False, False)), "it is told once, and then given time to end"


def test_one_that_was_ready_when_the_watch_began_need_not_answer_again() -> None:
    assert looks(ServerWatch(7), 7, False, False, False) == [False, False, True]


def test_it_is_left_alone_while_the_disk_is_full() -> None:
    watch = ServerWatch(7)
    assert looks(watch, 7, False, False, None, None, False, False, False) == [False] * 6 + [True]
