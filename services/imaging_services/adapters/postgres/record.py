"""Recording a batch of events in one transaction by one statement (``record_batch`` in ``migrations``)."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from imaging_services.adapters.postgres.pool import Connection
from imaging_services.adapters.postgres.rows import event_row, instance_row, series_row, study_row
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.errors import Conflict
from imaging_services.domain.events.envelope import CloudEvent, is_urgent
from imaging_services.domain.manifest.deletion import object_deleted
from imaging_services.domain.manifest.recording import InstanceKey, Recording, superseded_by

Refusals = dict[int, Conflict]
"""By position in the batch."""

Wave = dict[int, Recording]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events by their position: instances to record, and others that are only queued, with their documents as they
    wait. ``source`` is that of the events made here, ``queued`` are the types that are to be published."""

    recordings: Mapping[int, Recording]
    others: Mapping[int, CloudEvent]
    documents: Mapping[int, bytes]
    source: str
    queued: Sequence[str]

    @property
    def lock_uids(self) -> list[str]:
        """What the transaction locks: its studies and series."""
        return list({uid for one in self.recordings.values() for uid in one.series_key})


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch with all that can be made ready before the database is spoken to. ``offers`` are its waves; ``doubles``
    are the positions of instances that occur again, with the first one's."""

    batch: Batch
    offers: "Sequence[_Offer]"
    doubles: Mapping[int, int]


class _Offer:
    """A wave, and others with the first: by their places as ``record_batch`` counts them, and as its parameters."""

    def __init__(self, batch: Batch, wave: Wave, others: Mapping[int, CloudEvent]) -> None:
        self.batch, self.wave, self.others = batch, wave, others
        self.places = dict(enumerate(sorted([*wave, *others]), 1))
        self.parameters = _parameters(batch, wave, others, self.places)

    def without(self, positions: Collection[int]) -> "_Offer":
        """What is left when these are taken out of the wave."""
        left = {position: one for position, one in self.wave.items() if position not in positions}
        return _Offer(self.batch, left, self.others)


def prepare(batch: Batch) -> Prepared:
    """The batch as ``record`` takes it."""
    waves, doubles = _waves(batch.recordings)
    offers = [_Offer(batch, wave, {} if number else batch.others) for number, wave in enumerate(waves or [{}])]
    return Prepared(batch, offers, doubles)


async def record(connection: Connection, prepared: Prepared) -> Refusals:
    """Record the batch: one statement, which commits by itself. Only a batch that holds different bytes of an instance,
    a series of two providers or urgent instances takes several, in a transaction around them."""
    offers, doubles = prepared.offers, prepared.doubles
    refused: Refusals = {}
    if len(offers) == 1 and not _urgent(offers[0].wave):
        await _record_wave(connection, offers[0], refused)
    else:
        async with connection.transaction():
            recorded = [await _record_wave(connection, offer, refused) for offer in offers]
            await _mark_urgent(connection, [one for wave in recorded for one in _urgent(wave)])
    return refused | {double: refused[first] for double, first in doubles.items() if first in refused}


def _urgent(wave: Wave) -> list[Recording]:
    return [one for one in wave.values() if is_urgent(one.event)]


async def _mark_urgent(connection: Connection, urgent: Sequence[Recording]) -> None:
    """The next revision of the studies in which one of these is news overtakes others."""
    if urgent:
        parameters = {
            "studies": [one.study_instance_uid for one in urgent],
            "series": [one.series_instance_uid for one in urgent],
            "instances": [one.sop_instance_uid for one in urgent],
            "names": [one.object_name for one in urgent],
        }
        await connection.execute(statement("change_is_urgent"), parameters)


def _waves(recordings: Mapping[int, Recording]) -> tuple[list[Wave], dict[int, int]]:
    """Almost always one. What contradicts an earlier recording (the same instance with other bytes or in another
    object, the same series of another provider) is recorded after it. An instance that occurs again with the same
    bytes shares the first one's fate (the second result: its position → the first one's), which counts as accepted
    when the last of them was."""
    waves: list[Wave] = []
    doubles: dict[int, int] = {}
    latest: dict[InstanceKey, tuple[int, int]] = {}
    providers: dict[str, tuple[int, str]] = {}
    for position, one in recordings.items():
        after, before = latest.get(one.key, (-1, position))
        if after >= 0 and _content(recordings[before]) == _content(one):
            doubles[position] = before
            waves[after][before] = _accepted_last(waves[after][before], one)
            continue
        turn, provider = providers.get(one.series_instance_uid, (0, one.provider))
        wave = max(after + 1, turn if provider == one.provider else turn + 1)
        waves += [{} for _ in range(wave + 1 - len(waves))]
        waves[wave][position] = one
        latest[one.key] = wave, position
        providers[one.series_instance_uid] = wave, one.provider
    return waves, doubles


def _accepted_last(first: Recording, again: Recording) -> Recording:
    if first.accepted_at is None or again.accepted_at is None:
        return replace(first, accepted_at=None)
    return replace(first, accepted_at=max(first.accepted_at, again.accepted_at))


def _content(recording: Recording) -> tuple[str, str, str]:
    return recording.provider, recording.identity, recording.object_name


async def _record_wave(connection: Connection, offer: _Offer, refused: Refusals) -> Wave:
    """Record a wave without superseded versions, which are refused; what belongs to a series of another provider or
    lies in an object of a deleted name is refused, and the rest, which is returned, offered again."""
    while offer.places:
        cursor = await connection.execute(statement("record_batch"), offer.parameters)
        rows = await cursor.fetchall()
        places, wave = offer.places, offer.wave
        refused |= {
            places[place]: superseded_by(wave[places[place]].sop_instance_uid, newer)
            for _, _, place, newer, late in rows
            if place is not None and late is None
        }
        deleted: dict[int, bool] = {places[place]: late for _, _, place, _, late in rows if late is not None}
        refused |= {
            position: object_deleted(wave[position].sop_instance_uid) for position, late in deleted.items() if not late
        }
        owners: dict[str, str] = {uid: owner for uid, owner, place, _, _ in rows if place is None}
        foreign = {
            position: Conflict(
                f"series {one.series_instance_uid} belongs to provider {owner!r}, not to {one.provider!r}"
            )
            for position, one in wave.items()
            if (owner := owners.get(one.series_instance_uid, one.provider)) != one.provider
        }
        refused |= foreign
        if not owners and not deleted:
            break
        offer = offer.without({*deleted, *foreign})
    return offer.wave


def _parameters(
    batch: Batch, wave: Wave, others: Mapping[int, CloudEvent], positions: Mapping[int, int]
) -> dict[str, Any]:
    places = {position: place for place, position in positions.items()}
    studies: dict[str, list[Recording]] = {}
    series: dict[tuple[str, str], list[Recording]] = {}
    for one in wave.values():
        studies.setdefault(one.study_instance_uid, []).append(one)
        series.setdefault(one.series_key, []).append(one)
    study_numbers = {uid: n for n, uid in enumerate(studies, 1)}
    series_numbers = {key: n for n, key in enumerate(series, 1)}
    instances = [
        instance_row(one, n, series=series_numbers[one.series_key], place=places[position])
        for n, (position, one) in enumerate(wave.items(), 1)
    ]
    return {
        "studies": _json(study_row(study_numbers[uid], uid, members) for uid, members in studies.items()),
        "series": _json(series_row(n, study_numbers[key[0]], series[key]) for key, n in series_numbers.items()),
        "instances": _json(instances),
        "others": _json(event_row(event, places[position]) for position, event in others.items()),
        "contents": [batch.documents[position] for position in places],
        "locks": batch.lock_uids,
        "source": batch.source,
        "queued": batch.queued,
    }


def _json(rows: Iterable[dict[str, Any]]) -> str:
    return orjson.dumps(list(rows)).decode()
