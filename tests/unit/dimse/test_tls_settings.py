"""TLS of associations: which settings stop the start, and with which sentence."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from imaging_services.adapters.dimse.tls_settings import ListenerTlsVariables, TargetTlsVariables
from imaging_services.domain.errors import SettingsError
from support.tls import Authority, an_authority, as_pkcs12


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return an_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def keystore(authority: Authority) -> Path:
    return as_pkcs12(authority.certificate, authority.key, "horse")


def listening(authority: Authority, **more: Any) -> ListenerTlsVariables:
    pem = {
        "DIMSE_TLS_CERT_FILE": authority.certificate,
        "DIMSE_TLS_KEY_FILE": authority.key,
        "DIMSE_TLS_CA_FILE": authority.ca_file,
    }
    return ListenerTlsVariables(**{"DIMSE_TLS_ENABLED": True, **pem, **more})


async def test_off_by_default() -> None:
    assert ListenerTlsVariables().listener_tls() is None
    assert TargetTlsVariables().target_tls() is None


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"DIMSE_TLS_CERT_FILE": "/nowhere"}, "DIMSE_TLS_CERT_FILE=/nowhere: /nowhere cannot be read: No such file"),
        ({"DIMSE_TLS_KEY_FILE": "/nowhere"}, "DIMSE_TLS_CERT_FILE=.*/nowhere cannot be read: No such file"),
        ({"DIMSE_TLS_KEY_FILE": None}, "DIMSE_TLS_CERT_FILE=.*no certificate with a key that fits"),
        ({"DIMSE_TLS_CERT_FILE": None}, "DIMSE_TLS_KEYSTORE=/etc.*cannot be read"),
        ({"DIMSE_TLS_CA_FILE": __file__}, "DIMSE_TLS_CA_FILE=.*neither PEM nor PKCS12"),
        ({"DIMSE_TLS_CA_FILE": None}, "DIMSE_TLS_TRUSTSTORE="),
        ({"DIMSE_TLS_TRUSTSTORE_TYPE": "JKS"}, "DIMSE_TLS_TRUSTSTORE_TYPE=JKS.*keytool -importkeystore"),
        ({"DIMSE_TLS_PROTOCOL_VERSIONS": "TLSv1.1,TLSv1.2"}, "DIMSE_TLS_PROTOCOL_VERSIONS: TLSv1.1"),
        ({"DIMSE_TLS_CIPHER_SUITES": "TLS_RSA_WITH_AES_128_CBC_SHA"}, "DIMSE_TLS_CIPHER_SUITES: TLS_RSA_WITH_AES"),
    ],
)
def test_wrong_settings_of_a_listener(authority: Authority, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        listening(authority, **more).listener_tls()


def test_a_key_of_another_certificate(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"DIMSE_TLS_CERT_FILE=.*no certificate with a key that fits"):
        listening(authority, DIMSE_TLS_KEY_FILE=an_authority(tmp_path).key).listener_tls()


@pytest.mark.parametrize("by_file", [True, False])
async def test_pkcs12(authority: Authority, keystore: Path, tmp_path: Path, by_file: bool) -> None:
    password = tmp_path / "password"
    password.write_text("horse\n" if by_file else "never read\n")
    said = {"DIMSE_TLS_KEYSTORE_PASSWORD_FILE": password} if by_file else {"DIMSE_TLS_KEYSTORE_PASSWORD": "horse"}
    tls = listening(authority, DIMSE_TLS_CERT_FILE=None, DIMSE_TLS_KEYSTORE=keystore, **said).listener_tls()
    assert tls is not None
    names = {suite["name"] for suite in (await tls.current()).get_ciphers()}
    assert {"TLS_AES_128_GCM_SHA256", "ECDHE-RSA-AES256-GCM-SHA384"} <= names
    assert not any("CBC" in name or "RC4" in name or name.startswith("AES") for name in names)


def test_a_wrong_password_is_not_repeated(authority: Authority, keystore: Path) -> None:
    wrong = listening(
        authority, DIMSE_TLS_CERT_FILE=None, DIMSE_TLS_KEYSTORE=keystore, DIMSE_TLS_KEYSTORE_PASSWORD="p9x"
    )
    with pytest.raises(SettingsError, match=r"DIMSE_TLS_KEYSTORE=.*password") as raised:
        wrong.listener_tls()
    assert "p9x" not in str(raised.value)
    assert "p9x" not in repr(wrong)


def test_towards_targets(authority: Authority) -> None:
    with pytest.raises(SettingsError, match="DIMSE_TARGET_TLS_CERT_FILE=/nowhere"):
        TargetTlsVariables(DIMSE_TARGET_TLS_ENABLED=True, DIMSE_TARGET_TLS_CERT_FILE=Path("/nowhere")).target_tls()
    with pytest.raises(SettingsError, match="DIMSE_TARGET_TLS_VERIFY=ca"):
        TargetTlsVariables(DIMSE_TARGET_TLS_VERIFY="ca").client_tls()
    with pytest.raises(ValidationError):
        TargetTlsVariables(DIMSE_TARGET_TLS_VERIFY="no")  # type: ignore[arg-type]
