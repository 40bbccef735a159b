"""Filters as SQL conditions over the manifest's tables: ``st`` study, ``se`` series, ``i`` instance."""

from collections.abc import Callable
from typing import Any

import orjson

from imaging_services.domain.manifest import attributes as known
from imaging_services.domain.manifest.matching import Between, Equal, Filter, Name, NameWords, Wildcard
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


class Conditions:
    """Collects conditions and their parameters."""

    def __init__(self) -> None:
        self.parameters: dict[str, Any] = {}
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

    def add_filter(self, one: Filter, provider: str | None) -> None:
        """The condition of a filter."""
        tag = one.attribute.tag
        if tag in _LISTS:
            self.add(self._of_study(one, _LISTS[tag], provider))
        elif tag in _NUMBERS:
            numbers = [int(alternative.value) for alternative in one.alternatives if isinstance(alternative, Equal)]
            self.add(f"{_NUMBERS[tag]} = ANY({self.bind(numbers)}::int[])")
        elif tag == known.PATIENT_NAME:
            self.add(self._any(one, self._patient_name))
        elif tag in _COLUMNS:
            self.add(self._column(one, _COLUMNS[tag]))
        else:
            self.add(self._any(one, lambda alternative: self._recorded(one, alternative)))

    def _any(self, one: Filter, condition: Callable[[Any], str]) -> str:
        return "(" + " OR ".join(condition(alternative) for alternative in one.alternatives) + ")"

    def _column(self, one: Filter, column: str) -> str:
        equal = [alternative.value for alternative in one.alternatives if isinstance(alternative, Equal)]
        terms = [f"{column} = ANY({self.bind(equal)}::text[])"] if equal else []
        for alternative in one.alternatives:
            if isinstance(alternative, Wildcard):
                terms.append(f"{column} LIKE {self._pattern(alternative)}")
            elif isinstance(alternative, Between):
                terms.append(self._between(column if alternative.vr == "DA" else f"dicom_time({column})", alternative))
        return "(" + " OR ".join(terms) + ")"

    def _between(self, canonical: str, between: Between) -> str:
        terms = []
        if between.low is not None:
            terms.append(f"{canonical} >= {self.bind(between.low)}")
        if between.high is not None:
            terms.append(f"{canonical} <= {self.bind(between.high)}")
        return "(" + " AND ".join(terms) + ")"

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

    def _recorded(self, one: Filter, alternative: Any) -> str:
        """A condition on an attribute that has no column of its own."""
        alias, tag = _ALIASES[one.attribute.level], one.attribute.tag
        recorded = f"{alias}.attributes -> '{tag}'"
        if isinstance(alternative, Equal):  # containment, so that the index over all attributes serves
            return f"{alias}.attributes @> {self._json({tag: [alternative.value]})}"
        if isinstance(alternative, Wildcard):
            return _some(recorded, f"LIKE {self._pattern(alternative)}")
        if isinstance(alternative, Between):
            value = f"{_CANONICAL[alternative.vr]}(one.value)"
            return _exists(recorded, self._between(value, alternative))
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

    def _of_study(self, one: Filter, column: str, provider: str | None) -> str:
        """A condition on what the provider (or any) has of the study."""
        equal = [alternative.value for alternative in one.alternatives if isinstance(alternative, Equal)]
        terms = [f"{column} && {self.bind(equal)}::text[]"] if equal else []
        terms += [
            f"EXISTS (SELECT FROM unnest({column}) AS one (value) WHERE one.value LIKE {self._pattern(alternative)})"
            for alternative in one.alternatives
            if isinstance(alternative, Wildcard)
        ]
        scope = f"sp.provider = {self.bind(provider)} AND " if provider is not None else ""
        return (
            f"EXISTS (SELECT FROM dicom_study_provider sp WHERE sp.study_id = st.id AND {scope}({' OR '.join(terms)}))"
        )

    def _pattern(self, wildcard: Wildcard) -> str:
        special = {"*": "%", "?": "_", "%": r"\%", "_": r"\_", "\\": r"\\"}
        return self.bind("".join(special.get(character, character) for character in wildcard.pattern))

    def _json(self, value: Any) -> str:
        return f"{self.bind(orjson.dumps(value).decode())}::jsonb"


def _some(recorded: str, operation: str) -> str:
    return _exists(recorded, f"one.value {operation}")


def _exists(recorded: str, condition: str) -> str:
    return f"EXISTS (SELECT FROM jsonb_array_elements_text({recorded}) AS one (value) WHERE {condition})"
