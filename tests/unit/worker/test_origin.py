"""What a worker refuses to ask a store for."""

import pytest

from forebay.source import Grant
from forebay_protocol.dataset import Credentials, DatasetDocument, MountSpec
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import ObjectVersion
from forebay_worker.access import Access
from forebay_worker.metrics import Metrics
from forebay_worker.origin import Origin


@pytest.mark.parametrize(("mount", "key"), [("m", "private/x"), ("m", "data"), ("m", "database"), ("other", "data/x")])
def test_a_key_outside_of_its_mount_is_refused(mount: str, key: str) -> None:
    """The credentials may open the whole bucket; the dataset is only what its mounts show."""
    document = DatasetDocument(
        uid="uid", namespace="team", name="data", mounts=(MountSpec(name="m", source="s3://bucket/data", path="/"),)
    )
    credentials = {"m": Credentials(access_key_id="id", secret_access_key="secret")}
    origin = Origin(Metrics(), lambda: 1.0, Grant())
    origin.change(Access(dataset=document, credentials=credentials, keys=(b"key",)))

    with pytest.raises(InvalidRequest):
        origin.read_into(ObjectVersion("uid", mount, key, "v", 1), 0, memoryview(bytearray(1)), lambda _: None)
    origin.close()
