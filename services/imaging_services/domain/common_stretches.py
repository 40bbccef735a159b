"""What texts that resemble each other have in common, as their pieces follow each other."""

from collections.abc import Iterable

_SHORTEST = 3  # pieces; less is not worth looking for


def common_stretches(
    pieces: Iterable[bytes], common: frozenset[bytes], starts: frozenset[bytes]
) -> tuple[list[list[bytes]], frozenset[bytes]]:
    """The stretches of ``pieces`` that are ``common`` to all texts so far, three pieces or longer, and all pieces that
    a stretch has begun with. One begins anew at each of ``starts``, those that earlier texts have told, so that a text
    with another piece in between has the same stretches."""
    runs: list[list[bytes]] = [[]]
    for piece in pieces:
        if piece not in common:
            runs.append([])
        elif piece in starts:
            runs.append([piece])
        else:
            runs[-1].append(piece)
    return [run for run in runs if len(run) >= _SHORTEST], starts.union(run[0] for run in runs if run)
