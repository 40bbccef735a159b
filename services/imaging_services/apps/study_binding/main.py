"""Wiring of the study binding: StudyRevisionEvents to FHIR ImagingStudy or to a webhook."""

from imaging_services.apps.study_binding.deliver import DeliverStudy, Subscriber, WebhookSubscriber
from imaging_services.apps.study_binding.fhir_study import FhirStudies
from imaging_services.apps.study_binding.settings import Settings
from imaging_services.domain.events.envelope import STUDY_REVISION
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.events.webhook import Webhook
from imaging_services.runtime import Lifecycle
from imaging_services.subscription import consumer_name, take_events


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Deliver until told to stop."""
    if settings.mode == "FHIR_ENDPOINT":
        url = settings.FHIR_ENDPOINT.rstrip("/")
        http = settings.http_target(url, settings.FHIR_AUTH_TOKEN, settings.basic())
    else:
        url = settings.WEBHOOK_ENDPOINT
        http = settings.http_target(url, settings.WEBHOOK_AUTH_TOKEN)
    async with http:
        subscriber: Subscriber = (
            FhirStudies(http, settings.mapping, settings.FHIR_UPDATE_BY)
            if settings.mode == "FHIR_ENDPOINT"
            else WebhookSubscriber(Webhook(http))
        )
        deliver = DeliverStudy(subscriber, Selector.parse(settings.SELECTOR), settings.pace())
        consumer = consumer_name(settings, "study-binding", url)
        await take_events(settings, lifecycle, consumer, frozenset({STUDY_REVISION}), deliver)
