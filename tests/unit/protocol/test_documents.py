"""Documents between operator, workers and node plugin."""

import pytest

from forebay_protocol import control
from forebay_protocol.dataset import (
    Credentials,
    DatasetDocument,
    MountSpec,
    credentials_from_json,
    credentials_to_json,
)
from forebay_protocol.errors import InvalidRequest

DOCUMENT = DatasetDocument(
    uid="u", namespace="ns", name="d", refresh_seconds=None, file_mode=0o440,
    mounts=(MountSpec(name="m", source="s3://b/p", path="/", include=("*.bin",)),),
)  # fmt: skip
PROBLEM = control.Problem(reason="AccessDenied", message="check the key", mount="m")


def test_a_dataset_document_reads_back() -> None:
    """Also 'never refresh', which is not a number."""
    assert DatasetDocument.from_json(DOCUMENT.to_json()) == DOCUMENT


def test_the_revision_follows_the_content() -> None:
    """The same content has the same revision, any change another one."""
    changed = DatasetDocument.from_json({**DOCUMENT.to_json(), "refreshSeconds": 5})

    assert DatasetDocument.from_json(DOCUMENT.to_json()).revision() == DOCUMENT.revision()
    assert changed.revision() != DOCUMENT.revision()


@pytest.mark.parametrize("raw", [None, 1, {}, {"uid": "u"}, {**DOCUMENT.to_json(), "mounts": [{}]}])
def test_a_malformed_dataset_is_refused(raw: object) -> None:
    """With the protocol's own error."""
    with pytest.raises(InvalidRequest):
        DatasetDocument.from_json(raw)


def test_credentials_show_nothing_of_themselves() -> None:
    """Neither their repr nor a parse error contains a secret."""
    one = Credentials(access_key_id="AKIDEXAMPLE", secret_access_key="SECRETVALUE")

    assert credentials_from_json(credentials_to_json({"m": one})) == {"m": one}
    assert "AKID" not in repr(one)
    assert "SECRET" not in repr(one)
    with pytest.raises(InvalidRequest) as caught:
        credentials_from_json({"m": {"secretAccessKey": "SECRETVALUE"}})
    assert "SECRETVALUE" not in str(caught.value)


def test_a_worker_status_reads_back() -> None:
    """With problems at every level."""
    status = control.WorkerStatus(
        id="w", epoch=3, dataset_revision="r", cached_bytes=1, held_bytes=2, window_hit_bytes=3, window_miss_bytes=4,
        origin_bytes=5, peer_bytes=6, corrupt_chunks=7, problems=(PROBLEM,),
        index=control.IndexStatus(state=control.IndexState.FAILED, problems=(PROBLEM,)),
        tiers=(control.TierStatus(medium="SSD", capacity_bytes=9, used_bytes=8, problem=PROBLEM),),
    )  # fmt: skip

    assert control.WorkerStatus.from_json(status.to_json()) == status
    with pytest.raises(InvalidRequest):
        control.WorkerStatus.from_json({"id": "w"})


def test_a_load_reads_back() -> None:
    """Bits and all."""
    request = control.LoadRequest(paths=("/a/*",), generation=4)
    progress = control.LoadProgress(
        state=control.LoadState.RUNNING, complete_files=b"\xa0", total_files=3, problems=(PROBLEM,)
    )

    assert control.LoadRequest.from_json(request.to_json()) == request
    assert control.LoadProgress.from_json(progress.to_json()) == progress


def test_a_file_is_loaded_when_no_worker_misses_a_part_of_it() -> None:
    """Bits are combined over workers; reports of different selections are not comparable yet."""
    one = control.LoadProgress(state=control.LoadState.RUNNING, generation=1, total_files=3, complete_files=b"\xe0")
    two = control.LoadProgress(state=control.LoadState.RUNNING, generation=1, total_files=3, complete_files=b"\xa0")
    other = control.LoadProgress(state=control.LoadState.RUNNING, generation=2, total_files=3, complete_files=b"\xe0")

    assert control.loaded_files((one, two)) == 2
    assert control.loaded_files((one, other)) == 0
    assert control.loaded_files(()) == 0
