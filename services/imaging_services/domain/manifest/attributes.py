"""The attributes that the manifest records, at which level, and which of them can be searched by.

The levels follow the information entities of PS3.3; the defaults follow the response tables of PS3.18 section
10.6.3.3 (Study, Series and Instance Result Attributes). Of a few sequences the items are recorded, with the attributes
that worklists, reports and pathology are searched by (PS3.4 tables C.6-3 and C.6-4).
"""

from dataclasses import dataclass

from imaging_services.domain.manifest.query import Level

STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
SOP_INSTANCE_UID = "00080018"
SOP_CLASS_UID = "00080016"
PATIENT_ID = "00100020"
PATIENT_NAME = "00100010"
STUDY_DATE = "00080020"
STUDY_TIME = "00080030"
STUDY_ID = "00200010"
ACCESSION_NUMBER = "00080050"
MODALITY = "00080060"
SERIES_NUMBER = "00200011"
INSTANCE_NUMBER = "00200013"
MODALITIES_IN_STUDY = "00080061"
SOP_CLASSES_IN_STUDY = "00080062"
TRANSFER_SYNTAX_UID = "00020010"
AVAILABLE_TRANSFER_SYNTAX_UID = "00083002"
TIMEZONE_OFFSET_FROM_UTC = "00080201"
INSTANCE_AVAILABILITY = "00080056"
PATIENT_STUDIES = "00201200"
PATIENT_SERIES = "00201202"
PATIENT_INSTANCES = "00201204"
STUDY_SERIES = "00201206"
STUDY_INSTANCES = "00201208"
SERIES_INSTANCES = "00201209"

_ORDER = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of the manifest.

    ``default``: returned unless something else is asked. ``computed``: not from the header but from what is recorded.
    An attribute of a sequence's items has both tags and both keywords, joined by a dot as in PS3.18 section 8.3.4.1.
    """

    tag: str
    keyword: str
    vr: str
    level: Level
    default: bool = False
    computed: bool = False

    @property
    def sequence(self) -> str | None:
        """The tag of the sequence whose items hold this attribute."""
        return self.tag[:8] if "." in self.tag else None

    @property
    def own_tag(self) -> str:
        """The tag within the item, or the tag."""
        return self.tag[-8:]


# A star marks what is returned by default, a plus what is computed, ``>`` the attributes of the sequence's items.
_TABLES = {
    Level.PATIENT: """
        00100010 PN PatientName *
        00100020 LO PatientID *
        00100021 LO IssuerOfPatientID
        00100030 DA PatientBirthDate *
        00100032 TM PatientBirthTime
        00100040 CS PatientSex *
        00101000 LO OtherPatientIDs
        00101002 SQ OtherPatientIDsSequence
        >00100020 LO PatientID
        >00100021 LO IssuerOfPatientID
        00104000 LT PatientComments
        00201200 IS NumberOfPatientRelatedStudies +
        00201202 IS NumberOfPatientRelatedSeries +
        00201204 IS NumberOfPatientRelatedInstances +
    """,
    Level.STUDY: """
        00080020 DA StudyDate *
        00080030 TM StudyTime *
        00080050 SH AccessionNumber *
        00080051 SQ IssuerOfAccessionNumberSequence
        >00400031 UT LocalNamespaceEntityID
        >00400032 UT UniversalEntityID
        >00400033 CS UniversalEntityIDType
        00080056 CS InstanceAvailability *+
        00080061 CS ModalitiesInStudy *+
        00080062 UI SOPClassesInStudy *+
        00080090 PN ReferringPhysicianName *
        00080201 SH TimezoneOffsetFromUTC *
        00081030 LO StudyDescription *
        00081032 SQ ProcedureCodeSequence
        >00080100 SH CodeValue
        >00080102 SH CodingSchemeDesignator
        >00080104 LO CodeMeaning
        00081048 PN PhysiciansOfRecord
        00081060 PN NameOfPhysiciansReadingStudy
        00081080 LO AdmittingDiagnosesDescription
        00101010 AS PatientAge
        00101020 DS PatientSize
        00101030 DS PatientWeight
        0020000D UI StudyInstanceUID *
        00200010 SH StudyID *
        00201206 IS NumberOfStudyRelatedSeries *+
        00201208 IS NumberOfStudyRelatedInstances *+
    """,
    Level.SERIES: """
        00080021 DA SeriesDate
        00080031 TM SeriesTime
        00080060 CS Modality *
        00080070 LO Manufacturer
        00080080 LO InstitutionName
        00081010 SH StationName
        00081040 LO InstitutionalDepartmentName
        0008103E LO SeriesDescription *
        00081050 PN PerformingPhysicianName
        00081070 PN OperatorsName
        00081090 LO ManufacturerModelName
        00180015 CS BodyPartExamined *
        00181000 LO DeviceSerialNumber
        00181020 LO SoftwareVersions
        00181030 LO ProtocolName
        00185100 CS PatientPosition
        0020000E UI SeriesInstanceUID *
        00200011 IS SeriesNumber *
        00200052 UI FrameOfReferenceUID
        00200060 CS Laterality
        00201209 IS NumberOfSeriesRelatedInstances *+
        00400009 SH ScheduledProcedureStepID *
        00400244 DA PerformedProcedureStepStartDate *
        00400245 TM PerformedProcedureStepStartTime *
        00400253 SH PerformedProcedureStepID
        00400254 LO PerformedProcedureStepDescription
        00400260 SQ PerformedProtocolCodeSequence
        >00080100 SH CodeValue
        >00080102 SH CodingSchemeDesignator
        >00080104 LO CodeMeaning
        00400275 SQ RequestAttributesSequence *
        >00080050 SH AccessionNumber
        >0020000D UI StudyInstanceUID
        >00321060 LO RequestedProcedureDescription
        >00400007 LO ScheduledProcedureStepDescription
        >00400009 SH ScheduledProcedureStepID
        >00401001 SH RequestedProcedureID
        00401001 SH RequestedProcedureID *
    """,
    Level.IMAGE: """
        00020010 UI TransferSyntaxUID +
        00080008 CS ImageType
        00080016 UI SOPClassUID *
        00080018 UI SOPInstanceUID *
        00080022 DA AcquisitionDate
        00080023 DA ContentDate
        0008002A DT AcquisitionDateTime
        00080032 TM AcquisitionTime
        00080033 TM ContentTime
        00082218 SQ AnatomicRegionSequence
        >00080100 SH CodeValue
        >00080102 SH CodingSchemeDesignator
        >00080104 LO CodeMeaning
        00083002 UI AvailableTransferSyntaxUID *+
        00180050 DS SliceThickness
        00200012 IS AcquisitionNumber
        00200013 IS InstanceNumber *
        00200032 DS ImagePositionPatient
        00200037 DS ImageOrientationPatient
        00201041 DS SliceLocation
        00280002 US SamplesPerPixel
        00280004 CS PhotometricInterpretation
        00280008 IS NumberOfFrames *
        00280010 US Rows *
        00280011 US Columns *
        00280030 DS PixelSpacing
        00280100 US BitsAllocated *
        00280101 US BitsStored
        00280103 US PixelRepresentation
        00281050 DS WindowCenter
        00281051 DS WindowWidth
        00281052 DS RescaleIntercept
        00281053 DS RescaleSlope
        00400512 LO ContainerIdentifier
        00400560 SQ SpecimenDescriptionSequence
        >00400551 LO SpecimenIdentifier
        >00400554 UI SpecimenUID
        0040A032 DT ObservationDateTime
        0040A043 SQ ConceptNameCodeSequence
        >00080100 SH CodeValue
        >00080102 SH CodingSchemeDesignator
        >00080104 LO CodeMeaning
        0040A491 CS CompletionFlag
        0040A493 CS VerificationFlag
        0040A504 SQ ContentTemplateSequence
        >00080105 CS MappingResource
        >0040DB00 CS TemplateIdentifier
        00420010 ST DocumentTitle
        00700080 CS ContentLabel
        00700081 LO ContentDescription
        30060002 SH StructureSetLabel
        300A0002 SH RTPlanLabel
    """,
}


def _rows(level: Level, table: str) -> list[Attribute]:
    rows: list[Attribute] = []
    sequence: Attribute | None = None
    for line in table.split("\n"):
        if line.strip():
            tag, vr, keyword, *marks = line.split()
            mark = "".join(marks)
            if tag.startswith(">") and sequence is not None:
                tag, keyword = f"{sequence.tag}.{tag[1:]}", f"{sequence.keyword}.{keyword}"
            row = Attribute(tag, keyword, vr, level, default="*" in mark, computed="+" in mark)
            rows.append(row)
            sequence = row if vr == "SQ" else sequence
    return rows


ATTRIBUTES: dict[str, Attribute] = {row.tag: row for level, table in _TABLES.items() for row in _rows(level, table)}
"""Every attribute by its tag; those of sequence items by both tags, ``00400275.00400009``."""

SEQUENCE_TAGS = frozenset(tag for tag, row in ATTRIBUTES.items() if row.vr == "SQ")
"""The sequences whose items are recorded."""

_MATCHED_THOUGH_COMPUTED = {
    MODALITIES_IN_STUDY,
    SOP_CLASSES_IN_STUDY,
    TRANSFER_SYNTAX_UID,
    AVAILABLE_TRANSFER_SYNTAX_UID,
}


def levels_down_to(level: Level) -> tuple[Level, ...]:
    """The level and those above it, topmost first."""
    return _ORDER[: _ORDER.index(level) + 1]


def _tags_down_to(level: Level) -> frozenset[str]:
    above = levels_down_to(level)
    return frozenset(tag for tag, row in ATTRIBUTES.items() if row.level in above and row.sequence is None)


RETURNABLE_TAGS: dict[Level, frozenset[str]] = {level: _tags_down_to(level) for level in Level}
"""What ``Query.include`` may name at each level: the level's own attributes and those of the levels above."""

MATCHED_TAGS = (
    frozenset(tag for tag, row in ATTRIBUTES.items() if not row.computed) | _MATCHED_THOUGH_COMPUTED
) - SEQUENCE_TAGS
"""What ``Query.filters`` may name, at any level: a study matches by an attribute of a lower level when one of its
series or instances does. Sequences are matched by the attributes of their items."""

SEARCHABLE_TAGS: dict[Level, frozenset[str]] = {
    level: frozenset(tag for tag in MATCHED_TAGS if ATTRIBUTES[tag].level in levels_down_to(level)) for level in Level
}
"""Those of them that are the level's own or belong to a level above."""

UNIQUE_KEYS: dict[Level, tuple[str, ...]] = {
    Level.PATIENT: (PATIENT_ID,),
    Level.STUDY: (STUDY_INSTANCE_UID,),
    Level.SERIES: (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID),
    Level.IMAGE: (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID),
}
"""Always returned (PS3.4 section C.6: the unique key of the level and of those above it)."""


def default_tags(level: Level) -> frozenset[str]:
    """What is returned when nothing else is asked. The study level brings its patient's attributes along."""
    own = {level, Level.PATIENT} if level is Level.STUDY else {level}
    return frozenset(tag for tag, row in ATTRIBUTES.items() if row.level in own and row.default)


def is_below(level: Level, other: Level) -> bool:
    """Whether ``level`` is below the other."""
    return _ORDER.index(level) > _ORDER.index(other)
