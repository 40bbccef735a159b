"""References: looked up in their order, and remembered so that their change wakes who uses them."""

from typing import Any

import pytest

from imaging_operator.errors import MissingReference
from imaging_operator.kinds.common import Reference
from imaging_operator.references import ANY, ReferenceIndex, Resolved, Target, resolve
from imaging_operator.resources import Key, custom
from support.kubernetes_api import KubernetesApi

Json = dict[str, Any]
CUSTOMS = {"Fake": custom("Fake", "fakes")}
A, B = Key("Fake", "ns", "a"), Key("Fake", "ns", "b")
SECRET_A = Reference("one", "Secret", "a", "Missing One")
CONFIG_B = Reference("two", "ConfigMap", "b", "Missing Two")


def named(name: str, **more: Any) -> Json:
    return {"apiVersion": "v1", "kind": "Any", "metadata": {"name": name, "namespace": "ns"}, **more}


async def resolved(api: KubernetesApi, *references: Reference) -> Resolved:
    return await resolve(api.cluster(), CUSTOMS, "ns", references)


async def test_what_exists_is_found_by_key() -> None:
    api = KubernetesApi()
    api.put("secrets", named("a", data={"x": "eA=="}))
    api.put("configmaps", named("b"))
    it = await resolved(api, SECRET_A, CONFIG_B)
    it.raise_if_missing()
    assert it.found["one"]["data"] == {"x": "eA=="}
    assert set(it.found) == {"one", "two"}


async def test_the_first_missing_one_is_named_and_all_are_targets() -> None:
    it = await resolved(KubernetesApi(), SECRET_A, CONFIG_B)
    assert it.targets == [Target("Secret", "ns", "a"), Target("ConfigMap", "ns", "b")]
    with pytest.raises(MissingReference, match=r"^Missing One$"):
        it.raise_if_missing()


async def test_an_optional_one_may_be_absent_and_is_a_target() -> None:
    it = await resolved(KubernetesApi(), Reference("one", "Secret", "a", "", optional=True))
    it.raise_if_missing()
    assert it.found == {}
    assert it.targets == [Target("Secret", "ns", "a")]


async def test_a_needed_one_without_a_name_is_missing() -> None:
    it = await resolved(KubernetesApi(), Reference("one", "Secret", "", "Missing One"))
    assert (it.missing, it.targets) == ("Missing One", [])


async def test_the_oldest_match_is_taken_and_any_of_its_kind_is_a_target() -> None:
    api = KubernetesApi()
    for name, created, provider in (("z", "2026-01-01", "x"), ("y", "2026-01-02", "x"), ("a", "2025-01-01", "other")):
        document = named(name, spec={"provider": provider})
        document["metadata"]["creationTimestamp"] = created
        api.put("fakes", document)
    reference = Reference("web", "Fake", "", "Missing", matches=lambda it: it["spec"]["provider"] == "x")
    it = await resolved(api, reference)
    assert it.found["web"]["metadata"]["name"] == "z"
    assert it.targets == [Target("Fake", "ns", ANY)]


async def test_a_name_may_follow_from_what_was_found_before() -> None:
    api = KubernetesApi()
    api.put("secrets", named("a", next="c"))
    api.put("secrets", named("c"))
    follows = Reference("two", "Secret", "", "Missing Two", named_by=lambda found: found["one"].get("next", ""))
    it = await resolved(api, SECRET_A, follows)
    assert it.found["two"]["metadata"]["name"] == "c"
    api.objects["secrets", "ns", "a"].pop("next")
    it = await resolved(api, SECRET_A, follows)
    it.raise_if_missing()
    assert set(it.found) == {"one"}


def test_users_of_an_object_are_woken_also_while_it_is_absent() -> None:
    index = ReferenceIndex()
    index.remember(A, [Target("Secret", "ns", "s"), Target("Fake", "ns", ANY)])
    index.remember(B, [Target("Secret", "ns", "s")])
    assert index.users("Secret", "ns", "s") == {A, B}
    assert index.users("Secret", "elsewhere", "s") == set()
    assert index.users("Fake", "ns", "whatever") == {A}
    index.remember(A, [])
    assert index.users("Secret", "ns", "s") == {B}
    index.forget(B)
    index.forget(B)
    assert index.users("Secret", "ns", "s") == set()
