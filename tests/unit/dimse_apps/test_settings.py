"""Settings of both DIMSE services: names of the specification, and what stops the start."""

import pytest

from imaging_services.apps.dimse_ingestion.settings import Settings as Ingestion
from imaging_services.apps.dimse_proxy.settings import Settings as Proxy
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import load_settings

SPECIFIED = [
    "DIMSE_HOST",
    "DIMSE_PORT",
    "DIMSE_AE",
    "DIMSE_DEVICE",
    "DIMSE_TARGET_HOST",
    "DIMSE_TARGET_PORT",
    "DIMSE_TARGET_AE",
    "DIMSE_TARGET_DEVICE",
    "DIMSE_CONFIG_PATH",
    "DIMSE_NATS_URL",
    "DIMSE_NATS_TLS_ENABLED",
    "DIMSE_NATS_AUTH_TOKEN",
    "DIMSE_NATS_SUBJECT_ROOT",
    "DIMSE_NATS_SUBJECT_CHANNEL",
    "DIMSE_NATS_REPLY_TIMEOUTSECONDS",
    "DIMSE_NATS_CHUNK_SIZE",
    "DIMSE_NATS_MAXCONTROLLINE",
    "DIMSE_NATS_TRACECONNECTION",
    "DIMSE_TLS_ENABLED",
    "DIMSE_TLS_KEYSTORE",
    "DIMSE_TLS_TRUSTSTORE",
    "DIMSE_TLS_KEYSTORE_TYPE",
    "DIMSE_TLS_TRUSTSTORE_TYPE",
    "DIMSE_TLS_KEYSTORE_PASSWORD",
    "DIMSE_TLS_TRUSTSTORE_PASSWORD",
    "DIMSE_TLS_PROTOCOL_VERSIONS",
    "DIMSE_TLS_CIPHER_SUITES",
]
INGESTION_ONLY = [
    "DIMSE_NATS_DISABLED",
    "K_SINK",
    "BUCKET_CONFIG_PATH",
    "BUCKET_SECRET_PATH",
    "PROVIDER_NAME",
    "WADO_INTERNAL_ENDPOINT",
    "WADO_EXTERNAL_ENDPOINT",
    "QUERY_ENDPOINT",
    "EVENT_SOURCE",
]


def test_every_specified_name_is_there_and_described():
    assert set(SPECIFIED) <= set(Proxy.model_fields)
    assert set(SPECIFIED + INGESTION_ONLY) <= set(Ingestion.model_fields)
    for field in [*Proxy.model_fields.values(), *Ingestion.model_fields.values()]:
        assert field.description


def test_specified_defaults():
    proxy, ingestion = Proxy(), Ingestion()
    assert (proxy.DIMSE_HOST, proxy.DIMSE_PORT) == ("0.0.0.0", 11112)
    assert (proxy.DIMSE_AE, ingestion.DIMSE_AE) == ("DIMSE", "DIMSE_INGESTION")
    assert (proxy.DIMSE_NATS_SUBJECT_CHANNEL, ingestion.DIMSE_NATS_SUBJECT_CHANNEL) == ("A", "B")
    assert (proxy.DIMSE_NATS_SUBJECT_ROOT, proxy.DIMSE_NATS_REPLY_TIMEOUTSECONDS) == ("DIMSE", 60)
    assert proxy.DIMSE_DELIVERY_MODE == "durable"


def test_empty_variables_are_as_absent(monkeypatch):
    for name in SPECIFIED:
        monkeypatch.setenv(name, "")
    assert load_settings(Proxy) == Proxy()


def test_the_targets_title_is_answered_too():
    assert Proxy(DIMSE_AE="OWN", DIMSE_TARGET_AE="PACS").admission().own_titles == {"OWN", "PACS"}


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Proxy(DIMSE_TLS_ENABLED=True), "DIMSE_TLS_KEYSTORE=.*cannot be read"),
        (Proxy(DIMSE_TLS_ENABLED=True, DIMSE_TLS_KEYSTORE_TYPE="JKS"), "DIMSE_TLS_KEYSTORE_TYPE=JKS.*keytool"),
        (Proxy(DIMSE_TARGET_TLS_ENABLED=True, DIMSE_TARGET_TLS_VERIFY="ca"), "DIMSE_TARGET_TLS_CA_FILE"),
        (Proxy(DIMSE_USERS_FILE="/nowhere"), "DIMSE_USERS_FILE"),
        (Proxy(DIMSE_TARGET_HOST="pacs"), "DIMSE_TARGET_PORT"),
        (Ingestion(PROVIDER_NAME="p", DIMSE_TLS_ENABLED=True), "DIMSE_TLS_KEYSTORE"),
        (Ingestion(), "PROVIDER_NAME"),
        (Ingestion(PROVIDER_NAME="p", DIMSE_NATS_SUBJECT_CHANNEL="A"), "DIMSE_NATS_SUBJECT_CHANNEL"),
    ],
)
def test_what_stops_the_start(settings, named):
    with pytest.raises(SettingsError, match=named):
        settings.check()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Proxy(), "DIMSE_NATS_URL"),
        (Proxy(DIMSE_NATS_URL="nats:4222", DIMSE_NATS_SUBJECT_CHANNEL="C"), "DIMSE_NATS_SUBJECT_CHANNEL"),
        (Proxy(DIMSE_NATS_URL="nats:4222", DIMSE_NATS_SUBJECT_ROOT="a b"), "root"),
    ],
)
def test_a_relay_that_cannot_be(settings, named):
    with pytest.raises(SettingsError, match=named):
        settings.relay("name", 1)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        ({}, 8 * 1024 * 1024),
        ({"DIMSE_NATS_SEND_DOMAIN": "north"}, 1024 * 1024),
        ({"DIMSE_NATS_SEND_DOMAIN": "north", "DIMSE_INLINE_LIMIT": 8 * 1024 * 1024}, 8 * 1024 * 1024),
    ],
    ids=["near", "far", "as given"],
)
def test_messages_of_a_far_domain_are_shorter(given, limit):
    assert Proxy(DIMSE_NATS_URL="nats:4222", **given).relay("name", 1).inline_limit == limit
