"""Settings of the study binding."""

from functools import cached_property
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import structlog
from pydantic import AliasChoices, Field, SecretStr, model_validator

from imaging_services.apps.study_binding.mapping import Mapping
from imaging_services.domain.errors import SettingsError
from imaging_services.subscription import SubscriptionSettings, exactly_one, require_url

log = structlog.get_logger(__name__)


class Settings(SubscriptionSettings):
    """Where study revisions go: FHIR_ENDPOINT or WEBHOOK_ENDPOINT."""

    FHIR_ENDPOINT: str = Field(default="", description="full URL of the ImagingStudy collection of a FHIR R4 server")
    FHIR_AUTH_USERNAME: str = Field(
        default="", description="user for HTTP basic, used when the password is set too and there is no token"
    )
    FHIR_AUTH_PASSWORD: SecretStr = Field(default=SecretStr(""), description="password for HTTP basic")
    FHIR_AUTH_TOKEN: SecretStr = Field(
        default=SecretStr(""), description="sent verbatim as Authorization; wins over HTTP basic"
    )
    IMAGINGSTUDY_ENDPOINT: str = Field(
        default="",
        validation_alias=AliasChoices("IMAGINGSTUDY_ENDPOINT", "IMAGING_STUDY_ENDPOINT"),
        description="replaces everything before /studies in the WADO addresses of the resource; also accepted as "
        "IMAGING_STUDY_ENDPOINT; empty: the addresses of the storage spaces",
    )
    FHIR_UPDATE_BY: Literal["identifier", "id"] = Field(
        default="identifier",
        description="identifier: conditional update on the Study Instance UID; id: PUT ImagingStudy/<Study Instance "
        "UID>, for servers without conditional update",
    )
    FHIR_TIME_ZONE: str = Field(
        default="",
        description="IANA zone of the images' times, such as Europe/Berlin, used when they do not say their offset; "
        "empty: such studies and series start on a date without a time",
    )
    FHIR_PATIENT_ID_SYSTEM: str = Field(default="", description="identifier system (URI) of Patient ID; empty: none")
    FHIR_ACCESSION_NUMBER_SYSTEM: str = Field(
        default="", description="identifier system (URI) of Accession Number; empty: none"
    )
    FHIR_CONTAINED_PATIENT: bool = Field(
        default=False, description="true: the resource also contains a Patient with name, birth date and sex"
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _ = self.mode, self.mapping
        for name in ("FHIR_ENDPOINT", "WEBHOOK_ENDPOINT", "IMAGINGSTUDY_ENDPOINT"):
            require_url(name, getattr(self, name))
        return self

    @cached_property
    def mode(self) -> str:
        """The setting that names the target. Raises ``SettingsError``."""
        targets = {"FHIR_ENDPOINT": self.FHIR_ENDPOINT, "WEBHOOK_ENDPOINT": self.WEBHOOK_ENDPOINT}
        return exactly_one(targets, "target of study revisions")

    @cached_property
    def mapping(self) -> Mapping:
        """What the site decides about the resource. Raises ``SettingsError`` for an unknown time zone."""
        try:
            zone = ZoneInfo(self.FHIR_TIME_ZONE) if self.FHIR_TIME_ZONE else None
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise SettingsError(f"FHIR_TIME_ZONE: {self.FHIR_TIME_ZONE!r} is not an IANA time zone") from None
        return Mapping(
            wado_base=self.IMAGINGSTUDY_ENDPOINT,
            time_zone=zone,
            patient_id_system=self.FHIR_PATIENT_ID_SYSTEM,
            accession_number_system=self.FHIR_ACCESSION_NUMBER_SYSTEM,
            contained_patient=self.FHIR_CONTAINED_PATIENT,
        )

    def basic(self) -> tuple[str, str] | None:
        """User and password when both are set. One alone is ignored: a Secret with a user and a token is in use."""
        user, password = self.FHIR_AUTH_USERNAME, self.FHIR_AUTH_PASSWORD.get_secret_value()
        if user and password:
            return user, password
        if (user or password) and not self.FHIR_AUTH_TOKEN.get_secret_value():
            present, absent = ("USERNAME", "PASSWORD") if user else ("PASSWORD", "USERNAME")
            log.warning(
                "FHIR requests go without credentials", ignored=f"FHIR_AUTH_{present}", missing=f"FHIR_AUTH_{absent}"
            )
        return None
