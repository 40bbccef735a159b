"""Conditions of a search as SQL over the manifest's tables: ``st`` study, ``se`` series, ``i`` instance."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import orjson

from imaging_services.adapters.postgres.moments import between, in_spans
from imaging_services.domain.manifest import attributes as known
from imaging_services.domain.manifest.alternatives import Between, Empty, Equal, Name, NameWords, Wildcard
from imaging_services.domain.manifest.attributes import Attribute
from imaging_services.domain.manifest.matching import Condition, Filter, ItemFilter, split_by_level
from imaging_services.domain.manifest.moments import Moments
from imaging_services.domain.manifest.query import Level
from imaging_services.domain.manifest.values import MAX_KEY

_COLUMNS = {
    known.STUDY_INSTANCE_UID: "st.study_instance_uid",
    known.STUDY_ID: "st.study_id",
    known.STUDY_DATE: "st.study_date",
    known.STUDY_TIME: "st.study_time",
    known.ACCESSION_NUMBER: "st.accession_number",
    known.PATIENT_ID: "st.patient_id",
    "00100030": "st.patient_birth_date",
    known.SERIES_INSTANCE_UID: "se.series_instance_uid",
    known.MODALITY: "se.modality",
    known.SOP_INSTANCE_UID: "i.sop_instance_uid",
    known.SOP_CLASS_UID: "i.sop_class_uid",
    known.TRANSFER_SYNTAX_UID: "i.transfer_syntax_uid",
    known.AVAILABLE_TRANSFER_SYNTAX_UID: "i.transfer_syntax_uid",
}
_NUMBERS = {known.SERIES_NUMBER: "se.number", known.INSTANCE_NUMBER: "i.number"}
_LISTS = {known.MODALITIES_IN_STUDY: "sp.modalities", known.SOP_CLASSES_IN_STUDY: "sp.sop_class_uids"}
_NAME_COLUMNS = ("st.patient_name", "st.patient_name_ideographic", "st.patient_name_phonetic")
_ALIASES = {Level.PATIENT: "st", Level.STUDY: "st", Level.SERIES: "se", Level.IMAGE: "i"}
_CANONICAL = {"DA": "dicom_date", "TM": "dicom_time", "DT": "dicom_date_time"}
_NEVER_EMPTY = frozenset(_COLUMNS) - {
    known.STUDY_ID,
    known.STUDY_DATE,
    known.STUDY_TIME,
    known.ACCESSION_NUMBER,
    known.PATIENT_ID,
    known.MODALITY,
    "00100030",
}
_ZONE = f"dicom_zone(st.attributes -> '{known.TIMEZONE_OFFSET_FROM_UTC}' ->> 0)"


class Conditions:
    """Collects conditions and their parameters."""

    def __init__(self, provider: str | None = None) -> None:
        self.parameters: dict[str, Any] = {}
        self._provider = provider
        self._terms: list[str] = []

    def add(self, term: str) -> None:
        """One more condition that has to hold."""
        self._terms.append(term)

    def bind(self, value: Any) -> str:
        """A placeholder for the value."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f"%({name})s"

    @property
    def sql(self) -> str:
        """All conditions together."""
        return " AND ".join(self._terms) or "true"

    def add_all(self, conditions: Iterable[Condition], level: Level) -> None:
        """The conditions of a search at that level. Those on levels below hold when one series or instance meets
        them all."""
        above, below = split_by_level(conditions, level)
        for one in above:
            self.add(self._term(one))
        if below:
            self.add(self._exists_below(level, below))

    def _exists_below(self, level: Level, below: Iterable[Condition]) -> str:
        terms = [self._term(one) for one in below]
        instances = any(one.level is Level.IMAGE for one in below)
        if level is Level.SERIES:
            return f"EXISTS (SELECT FROM dicom_instance i WHERE i.series_id = se.id AND {' AND '.join(terms)})"
        tables = "dicom_series se JOIN dicom_instance i ON i.series_id = se.id" if instances else "dicom_series se"
        if self._provider is not None:
            terms.append(f"se.provider = {self.bind(self._provider)}")
        return f"EXISTS (SELECT FROM {tables} WHERE se.study_id = st.id AND {' AND '.join(terms)})"

    def _term(self, one: Condition) -> str:
        if isinstance(one, Moments):
            return in_spans(self.bind, one, _text_of(one.date), _text_of(one.time), _ZONE)
        return self._items(one) if isinstance(one, ItemFilter) else self._filter(one)

    def _filter(self, one: Filter) -> str:
        tag = one.attribute.tag
        if Empty() in one.alternatives:
            others = tuple(alternative for alternative in one.alternatives if alternative != Empty())
            empty = self._empty(one.attribute)
            return f"({empty} OR {self._filter(Filter(one.attribute, others))})" if others else empty
        if tag in _LISTS:
            return self._of_study(one, _LISTS[tag])
        if tag in _NUMBERS:
            numbers = [int(alternative.value) for alternative in one.alternatives if isinstance(alternative, Equal)]
            return f"{_NUMBERS[tag]} = ANY({self.bind(numbers)}::int[])"
        if tag == known.PATIENT_NAME:
            return self._any(one, self._patient_name)
        if tag in _COLUMNS:
            return self._column(one, _COLUMNS[tag])
        return self._any(one, lambda alternative: self._recorded(one.attribute, alternative))

    def _empty(self, attribute: Attribute) -> str:
        if attribute.tag in _LISTS:
            return f"NOT {self._has_study(f'cardinality({_LISTS[attribute.tag]}) > 0')}"
        if attribute.tag in _NEVER_EMPTY:
            return "false"
        return f"NOT {_ALIASES[attribute.level]}.attributes ? '{attribute.tag}'"

    def _any(self, one: Filter, condition: Callable[[Any], str]) -> str:
        return "(" + " OR ".join(condition(alternative) for alternative in one.alternatives) + ")"

    def _column(self, one: Filter, column: str) -> str:
        equal = [alternative.value for alternative in one.alternatives if isinstance(alternative, Equal)]
        terms = [f"{column} = ANY({self.bind(equal)}::text[])"] if equal else []
        for alternative in one.alternatives:
            if isinstance(alternative, Wildcard):
                terms.append(f"{column} LIKE {self._pattern(alternative)}")
            elif isinstance(alternative, Between):
                canonical = column if alternative.vr == "DA" else f"dicom_time({column})"
                terms.append(between(self.bind, canonical, alternative.low, alternative.high))
        return "(" + " OR ".join(terms) + ")"

    def _patient_name(self, alternative: Name | NameWords) -> str:
        if isinstance(alternative, NameWords):
            query = " & ".join(f"'{word[:MAX_KEY]}':*" for word in alternative.words)  # words hold no quotes
            return f"st.patient_name_words @@ {self.bind(query)}::tsquery"
        groups = [self._name_group(group) for group in alternative.groups]
        return "(" + " AND ".join(groups) + ")" if groups else "true"

    def _name_group(self, group: Equal | Wildcard) -> str:
        if isinstance(group, Wildcard):
            operation = f"LIKE {self._pattern(group)}"
        else:
            operation = f"= {self.bind(group.value[:MAX_KEY])}"
        return "(" + " OR ".join(f"{column} {operation}" for column in _NAME_COLUMNS) + ")"

    def _recorded(self, attribute: Attribute, alternative: Any) -> str:
        """A condition on an attribute that has no column of its own."""
        alias, tag = _ALIASES[attribute.level], attribute.tag
        recorded = f"{alias}.attributes -> '{tag}'"
        if isinstance(alternative, Equal):  # containment, so that the index over all attributes serves
            return f"{alias}.attributes @> {self._json({tag: [alternative.value]})}"
        if isinstance(alternative, Wildcard):
            return _some(recorded, f"LIKE {self._pattern(alternative)}")
        if isinstance(alternative, Between):
            value = f"{_CANONICAL[alternative.vr]}(one.value)"
            if alternative.zone is not None:
                shift = f"{self.bind(alternative.zone)}::int - coalesce(dicom_zone(one.value), {_ZONE})"
                value = f"coalesce(dicom_moved({value}, {shift}), CASE WHEN {shift} IS NULL THEN {value} END)"
            return _exists(recorded, between(self.bind, value, alternative.low, alternative.high))
        names = f"{alias}.names -> '{tag}'"
        if isinstance(alternative, NameWords):
            words = [
                _exists(f"{names} -> 'w'", f"starts_with(one.value, {self.bind(word)})") for word in alternative.words
            ]
            return "(" + " AND ".join(words) + ")"
        groups = [self._recorded_group(f"{names} -> 'k'", group) for group in alternative.groups]
        return "(" + " AND ".join(groups) + ")" if groups else "true"

    def _recorded_group(self, keys: str, group: Equal | Wildcard) -> str:
        if isinstance(group, Wildcard):
            return _some(keys, f"LIKE {self._pattern(group)}")
        return f"coalesce({keys} @> {self._json([group.value])}, false)"

    def _items(self, one: ItemFilter) -> str:
        """A condition on the items of a sequence; containment where it serves, for the index over all attributes."""
        alias, tag = _ALIASES[one.level], one.sequence.tag
        equal = [
            each for each in one.filters if len(each.alternatives) == 1 and isinstance(each.alternatives[0], Equal)
        ]
        if len(equal) == len(one.filters):
            item: dict[str, list[str]] = {}
            for each in equal:
                values = [alternative.value for alternative in each.alternatives if isinstance(alternative, Equal)]
                item.setdefault(each.attribute.own_tag, []).extend(values)
            return f"{alias}.attributes @> {self._json({tag: [item]})}"
        terms = [self._any(each, partial(self._in_item, each)) for each in one.filters]
        items = f"jsonb_array_elements({alias}.attributes -> '{tag}') AS item (value)"
        return f"EXISTS (SELECT FROM {items} WHERE {' AND '.join(terms)})"

    def _in_item(self, one: Filter, alternative: Any) -> str:
        tag = one.attribute.own_tag
        if isinstance(alternative, Equal):
            return f"item.value @> {self._json({tag: [alternative.value]})}"
        if isinstance(alternative, Wildcard):
            return _some(f"item.value -> '{tag}'", f"LIKE {self._pattern(alternative)}")
        return f"NOT item.value ? '{tag}'"

    def _of_study(self, one: Filter, column: str) -> str:
        """A condition on what the provider (or any) has of the study."""
        equal = [alternative.value for alternative in one.alternatives if isinstance(alternative, Equal)]
        terms = [f"{column} && {self.bind(equal)}::text[]"] if equal else []
        terms += [
            f"EXISTS (SELECT FROM unnest({column}) AS one (value) WHERE one.value LIKE {self._pattern(alternative)})"
            for alternative in one.alternatives
            if isinstance(alternative, Wildcard)
        ]
        return self._has_study(f"({' OR '.join(terms)})")

    def _has_study(self, term: str) -> str:
        scope = f"sp.provider = {self.bind(self._provider)} AND " if self._provider is not None else ""
        return f"EXISTS (SELECT FROM dicom_study_provider sp WHERE sp.study_id = st.id AND {scope}{term})"

    def _pattern(self, wildcard: Wildcard) -> str:
        special = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
        return self.bind("".join(special.get(character, character) for character in wildcard.pattern))

    def _json(self, value: Any) -> str:
        return f"{self.bind(orjson.dumps(value).decode())}::jsonb"


def _text_of(attribute: Attribute) -> str:
    """The first recorded value of an attribute."""
    recorded = f"{_ALIASES[attribute.level]}.attributes -> '{attribute.tag}' ->> 0"
    return _COLUMNS.get(attribute.tag) or (f"dicom_date({recorded})" if attribute.vr == "DA" else f"({recorded})")


def _some(recorded: str, operation: str) -> str:
    return _exists(recorded, f"one.value {operation}")


def _exists(recorded: str, condition: str) -> str:
    return f"EXISTS (SELECT FROM jsonb_array_elements_text({recorded}) AS one (value) WHERE {condition})"
