"""Which objects are watched: noise is left out, whatever a resource may name is not."""

import pytest

from imaging_operator import handlers
from imaging_operator.resources import CONFIG_MAP, DEPLOYMENT, SECRET, Resource
from imaging_operator.settings import OperatorSettings


def selectors(resource: Resource) -> tuple[str | None, str | None]:
    """Field and label selector of a kind."""
    watching = handlers._kopf_settings(OperatorSettings(), [resource]).watching
    where = resource.group, resource.version, resource.plural
    return watching.field_selectors.get(where), watching.label_selectors.get(where)


@pytest.mark.parametrize(
    ("secret_type", "watched"),
    [
        ("Opaque", True),
        ("kubernetes.io/tls", True),
        ("kubernetes.io/basic-auth", True),
        ("kubernetes.io/service-account-token", True),
        ("helm.sh/release.v1", False),
    ],
)
def test_any_secret_that_a_resource_may_name_is_watched(secret_type: str, watched: bool) -> None:
    fields, labels = selectors(SECRET)
    assert fields is not None
    terms = [term.split("!=") for term in fields.split(",")]
    assert all(name == "type" for name, _ in terms)
    assert all(value != secret_type for _, value in terms) is watched
    assert labels is None


def test_of_what_others_make_too_only_ours_is_watched() -> None:
    assert selectors(DEPLOYMENT) == (None, "app.kubernetes.io/managed-by=imaging-ingestion-operator")
    assert selectors(CONFIG_MAP) == (None, None)
