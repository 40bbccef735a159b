"""What associations negotiate besides presentation contexts: our items and pynetdicom's are the same."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu_items import (
    AsynchronousOperationsWindowSubItem,
    SCP_SCU_RoleSelectionSubItem,
    SOPClassCommonExtendedNegotiationSubItem,
    SOPClassExtendedNegotiationSubItem,
    UserIdentitySubItemRQ,
    UserInformationItem,
)

from imaging_services.adapters.dimse.associate import decode_request, encode_request
from imaging_services.adapters.dimse.contexts import Capabilities, choose_contexts
from imaging_services.adapters.dimse.negotiation import accepted_information, both, operations_of_requestor
from imaging_services.adapters.dimse.pdu import ProtocolViolation
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.user_information import (
    UserInformation,
    Window,
    decode_user_information,
    encode_user_information,
)
from imaging_services.domain.dicom.dimse import Negotiated, ProposedContext, Role, UserIdentity
from support.dimse import CT, EXPLICIT, MR, STUDY_ROOT_FIND

PRIVATE = "1.2.276.0.7230010.3.1.0.1"
ALL = UserInformation(
    max_pdu_length=4096,
    window=Window(8, 1),
    roles={CT: Role(scu=False, scp=True)},
    extended={STUDY_ROOT_FIND: b"\x01\x00\x01"},
    related_general={PRIVATE: (CT, MR)},
    user_identity=UserIdentity(2, True, b"anna", b"secret"),
)


def test_pynetdicom_reads_ours() -> None:
    encoded = encode_user_information(ALL)
    theirs = UserInformationItem()
    theirs.decode(b"\x50\x00" + len(encoded).to_bytes(2, "big") + encoded)
    found = {type(sub_item): sub_item for sub_item in theirs.user_data}
    window = found[AsynchronousOperationsWindowSubItem]
    assert (window.max_operations_invoked, window.max_operations_performed) == (8, 1)
    role = found[SCP_SCU_RoleSelectionSubItem]
    assert (role.uid, role.scu, role.scp) == (CT, 0, 1)
    extended = found[SOPClassExtendedNegotiationSubItem]
    assert (extended.uid, extended.app_info) == (STUDY_ROOT_FIND, b"\x01\x00\x01")
    common = found[SOPClassCommonExtendedNegotiationSubItem]
    assert common.related_general_sop_class_identification == [CT, MR]
    assert (common.sop_class_uid, common.service_class_uid) == (PRIVATE, "1.2.840.10008.4.2")
    identity = found[UserIdentitySubItemRQ]
    assert (identity.id_type, identity.id_type_str) == (2, "Username/Password")
    assert (identity.primary, identity.secondary, identity.response_requested) == (b"anna", b"secret", 1)


def test_it_comes_back() -> None:
    decoded = decode_user_information(encode_user_information(ALL))
    assert decoded.window == ALL.window
    assert decoded.roles == ALL.roles
    assert decoded.extended == ALL.extended
    assert decoded.related_general == ALL.related_general
    assert decoded.user_identity == ALL.user_identity
    assert "secret" not in repr(decoded)


@given(st.binary(max_size=64))
def test_what_is_broken_is_refused_and_nothing_else_is_raised(value: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        decode_user_information(value)


@pytest.mark.parametrize("cut", range(4, len(encode_user_information(ALL)), 7))
def test_a_cut_item_is_refused_or_shorter(cut: int) -> None:
    encoded = encode_user_information(ALL)
    with contextlib.suppress(ProtocolViolation):
        assert decode_user_information(encoded[:cut]) != decode_user_information(encoded)


def test_related_general_sop_classes_come_with_their_contexts() -> None:
    proposed = (ProposedContext(1, PRIVATE, (EXPLICIT,), (CT, MR)), ProposedContext(3, CT, (EXPLICIT,)))
    assert decode_request(encode_request("A", "B", proposed, UserInformation())[6:]).contexts == proposed


def test_a_private_storage_class_is_accepted_as_one_of_its_general_kind() -> None:
    capabilities = Capabilities(frozenset({MR}), (EXPLICIT,))
    proposed = [
        ProposedContext(1, PRIVATE, (EXPLICIT,), (CT, MR)),
        ProposedContext(3, PRIVATE, (EXPLICIT,), (CT,)),
        ProposedContext(5, PRIVATE, (EXPLICIT,)),
    ]
    assert choose_contexts(proposed, capabilities) == Negotiated({1: EXPLICIT}, {3: 3, 5: 3})


@pytest.mark.parametrize(
    ("asked", "answered"),
    [(None, None), (Window(0, 0), Window(4, 1)), (Window(2, 5), Window(2, 1)), (Window(9, 1), Window(4, 1))],
)
def test_the_window_is_never_wider_than_either_side_wants(asked: Window | None, answered: Window | None) -> None:
    request = decode_request(encode_request("A", "B", (), UserInformation(window=asked))[6:])
    answer = accepted_information(request, Negotiated(), AssociationLimits(max_operations=4), authenticated=False)
    assert answer.window == answered
    assert operations_of_requestor(answer) == (answered.invoked if answered else 1)


def test_only_what_was_asked_for_is_answered() -> None:
    asked = UserInformation(roles={CT: Role(scu=False, scp=True)}, user_identity=UserIdentity(1, False, b"anna"))
    request = decode_request(encode_request("A", "B", (), asked)[6:])
    decision = Negotiated(
        roles={CT: Role(scu=True, scp=True), MR: Role(scu=True, scp=True)}, extended={STUDY_ROOT_FIND: b"\x01"}
    )
    answer = accepted_information(request, decision, AssociationLimits(), authenticated=True)
    assert answer.roles == {CT: Role(scu=False, scp=True)}
    assert answer.extended == {}
    assert answer.identity_response is None
    assert both({CT: Role(scu=True, scp=True)}, {}) == {}
