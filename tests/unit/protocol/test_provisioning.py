"""Volumes made on demand: names, ids, access modes, parameters."""

import pytest

from forebay_protocol import provisioning
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.provisioning import DatasetIdentity
from forebay_protocol.volume import DATASET_NAMESPACE, WORKER_SERVICE

UID = "11111111-2222-3333-4444-555555555555"
DATASET = DatasetIdentity(uid=UID, namespace="team", name="data")


def test_a_name_is_one_volume_however_often_it_is_made() -> None:
    """The same name and Dataset give the same id, anything else another one, and the id tells the Dataset."""
    first = provisioning.volume("pvc-1", DATASET)

    assert provisioning.volume("pvc-1", DATASET) == first
    assert provisioning.volume("pvc-2", DATASET).id != first.id
    assert provisioning.dataset_uid(first.id) == UID
    assert first.attributes[DATASET_NAMESPACE] == "team"
    assert first.attributes[WORKER_SERVICE] == "data-worker.team.svc"


@pytest.mark.parametrize(
    "foreign", ["", "vol", UID[:-1], f"{UID}.", f"{UID}.xyz", f"{UID}.0123456789abcdef0", f"{UID}\n"]
)
def test_what_is_no_id_names_no_volume(foreign: str) -> None:
    """Only ids that could have been made here are known."""
    assert provisioning.dataset_uid(foreign) is None
    assert provisioning.dataset_uid(UID) == UID, "the volume that each Dataset has without a class"


def test_a_volume_needs_a_name_and_a_real_uid() -> None:
    """Both are refused otherwise."""
    for name, uid in (("", UID), ("pvc", "../../etc")):
        with pytest.raises(InvalidRequest):
            provisioning.volume(name, DatasetIdentity(uid=uid, namespace="team", name="data"))


def test_modes_that_promise_shared_writing_are_refused() -> None:
    """One of them among others suffices, and so does none at all."""
    provisioning.refuse_writing(["MULTI_NODE_READER_ONLY", "SINGLE_NODE_WRITER"])
    for modes in (["MULTI_NODE_MULTI_WRITER"], ["MULTI_NODE_READER_ONLY", "SINGLE_NODE_MULTI_WRITER"], ["99"], []):
        with pytest.raises(InvalidRequest):
            provisioning.refuse_writing(modes)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"datset": "x"}, "no parameter 'datset'"),
        ({"dataset": "x", "source": "s3://b"}, "stands alone"),
        ({"dataset": "../x"}, "name of a Dataset"),
        ({"dataset": ""}, "name of a Dataset"),
        ({"endpoint": "http://x"}, "'endpoint' belongs to a 'source'"),
        ({"source": "s3://b"}, "needs a 'quota'"),
        ({"source": "s3://b", "quota": "1Gi", "replicas": "many"}, "are a number"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, str], sentence: str) -> None:
    """What is unknown, contradictory or no name."""
    with pytest.raises(InvalidRequest) as caught:
        provisioning.check_parameters(parameters)
    assert sentence in caught.value.message


def test_parameters_of_provisioners_are_not_ours() -> None:
    """Those that tell of Secrets and claims are left aside."""
    given = {"csi.storage.k8s.io/pvc/name": "claim", "source": "s3://bucket", "quota": "1Gi"}

    assert provisioning.check_parameters(given) == {"source": "s3://bucket", "quota": "1Gi"}
    assert provisioning.check_parameters({}) == {}
