"""Change sets from revision numbers (section 5.6 of the interface)."""

import pytest

from imaging_services.domain.manifest.revision import InstanceState, SeriesState, change_set


@pytest.mark.parametrize(
    ("revision", "initial", "modified", "deleted", "kind"),
    [
        (0, 0, None, None, "additions"),
        (0, 0, 0, None, "additions"),
        (1, 0, None, None, None),
        (1, 0, 1, None, "modifications"),
        (1, 1, 1, None, "additions"),
        (2, 0, 1, None, None),
        (1, 0, None, 1, "deletions"),
        (2, 0, None, 1, None),
        (1, 1, None, 1, None),
        (0, 0, None, 0, None),
    ],
)
def test_each_instance_is_in_its_change_set(revision, initial, modified, deleted, kind):
    instance = InstanceState("1.1.1", "1.2", 1, initial, modified, deleted)
    series = SeriesState("1.1", "CT", 1, "north", None, {}, (instance,))
    changes = change_set(revision, [series]).model_dump()
    assert changes == {name: ["1.1/1.1.1"] if name == kind else [] for name in changes}
