"""Bad input is refused by the API server itself, with a sentence that says what to do."""

import json
from typing import Any

import pytest

from testkit.cluster import Cluster
from testkit.commands import CommandFailed
from testkit.image import Image
from testkit.workspace import Bucket, Workspace

pytestmark = pytest.mark.cluster

MOUNT = {"name": "a", "source": "s3://bucket", "path": "/a"}
TIER = {"medium": "SSD", "quota": "1Gi"}


def _mounts(*changes: dict[str, Any]) -> dict[str, Any]:
    return {"mounts": [{**MOUNT, **change} for change in changes]}


DATASETS = [
    ("unknown scheme", _mounts({"source": "gs://bucket/x"}), "write s3:// with endpoint for S3-compatible stores"),
    ("no URL", _mounts({"source": "bucket/x"}), "source must be a URL: write s3://bucket/prefix, pvc://claim/path"),
    ("no bucket", _mounts({"source": "s3:///x"}), "source is malformed: write s3://bucket/prefix"),
    ("capitals in the bucket", _mounts({"source": "s3://Bucket"}), "source is malformed"),
    ("a query", _mounts({"source": "s3://bucket/x?y=1"}), "put options into the fields endpoint"),
    ("a scheme of Hadoop", _mounts({"source": "s3a://bucket/x"}), "source has a scheme of Hadoop"),
    ("files of the worker", _mounts({"source": "fsspec+file:///etc"}), "source must not name files of the worker"),
    ("chained protocols", _mounts({"source": "fsspec+simplecache::gs://b"}), "source must be a URL"),
    ("no claim", _mounts({"source": "pvc:///x"}), "write pvc://claim/path, where claim is the name of"),
    ("a way out of a claim", _mounts({"source": "pvc://claim/x/../.."}), 'source must not have "." or ".." components'),
    ("its own claim", _mounts({"source": "pvc://data/x"}), "the Dataset's own PersistentVolumeClaim"),
    ("a password in a URL", _mounts({"source": "https://me:word@host/x"}), "without user and password"),
    ("keys for a web server", _mounts({"source": "https://host/x", "credentialsSecretRef": {"name": "k"}}),
     "are for s3:// sources: remove them"),
    ("a region for a claim", _mounts({"source": "pvc://claim", "region": "eu"}), "are for s3:// sources: remove them"),
    ("a manifest in a bucket", _mounts({"manifest": "files"}), "manifest is for http:// and https:// sources"),
    ("a manifest outside", _mounts({"source": "https://host/x", "manifest": "../f"}), "manifest must be a path below"),
    ("no certificate", _mounts({"caBundle": "sorry"}), "caBundle must hold certificates in PEM"),
    ("a certificate for a claim", _mounts({"source": "pvc://claim", "caBundle": "-----BEGIN CERTIFICATE-----"}),
     "caBundle is for stores that are reached by https"),
    ("same name", _mounts({}, {"path": "/b"}), "give each mount a name of its own"),
    ("same path", _mounts({}, {"name": "b"}), "give each mount a path of its own"),
    ("same path by default", {"mounts": [{"name": "b", "source": "s3://bucket"}, {**MOUNT, "path": "/b"}]},
     "give each mount a path of its own"),
    ("nested paths", _mounts({}, {"name": "b", "path": "/a/b"}), "choose paths that are not nested"),
    ("root beside others", _mounts({"path": "/"}, {"name": "b", "path": "/b"}), "choose paths that are not nested"),
    ("relative path", _mounts({"path": "a"}), "path must start with /"),
    ("dots in the path", _mounts({"path": "/a/../b"}), 'path must not have "." or ".." components'),
    ("malformed endpoint", _mounts({"endpoint": "minio:9000"}), "write http://host:port or https://host"),
    ("endpoint with a path", _mounts({"endpoint": "http://minio/x"}), "endpoint is malformed"),
    ("no bandwidth", _mounts({"limits": {"bandwidth": "fast"}}), "must be bytes per second such as 200Mi"),
    ("hardly any bandwidth", _mounts({"limits": {"bandwidth": "1k"}}), "limits.bandwidth must be at least 1Mi"),
    ("no requests", _mounts({"limits": {"requestsPerSecond": 0}}), "greater than or equal to 1"),
    ("no limit", _mounts({"limits": {}}), "at least 1 properties"),
    ("no duration", {**_mounts({}), "refresh": {"interval": "soon"}}, "must be a duration such as 60s, 5m or 1h30m"),
    ("no time at all", {**_mounts({}), "refresh": {"interval": "0s"}}, "use Never to list once"),
]  # fmt: skip


def _claim(**template: str) -> dict[str, Any]:
    return {"volume": {"volumeClaimTemplate": template}}


RUNTIMES = [
    ("quota 0", {**TIER, "quota": "0"}, "quota must be at least 16Mi"),
    ("negative quota", {**TIER, "quota": "-1Gi"}, "quota must be at least 16Mi"),
    ("no quantity", {**TIER, "quota": "much"}, "quota must be a size such as 512Mi or 100Gi"),
    ("quota above the claim", {**TIER, **_claim(storage="512Mi")}, "lower quota or raise volumeClaimTemplate.storage"),
    ("quota above the folder", {**TIER, "volume": {"emptyDir": {"sizeLimit": "1M"}}}, "raise emptyDir.sizeLimit"),
    ("watermarks", {**TIER, "lowWatermark": 90, "highWatermark": 90}, "lowWatermark must be below highWatermark"),
    ("low above the default", {**TIER, "lowWatermark": 96}, "lowWatermark must be below highWatermark"),
    ("two volumes", {**TIER, "volume": {"emptyDir": {}, "hostPath": {"paths": ["/x"]}}}, "needs exactly one of"),
    (
        "memory in a folder",
        {**TIER, "medium": "Memory", "volume": {"hostPath": {"paths": ["/x"]}}},
        "choose the medium SSD",
    ),
    (
        "encrypted memory",
        {"medium": "Memory", "quota": "64Mi", "encryption": "Required"},
        "a Memory tier is on no disk",
    ),
    (
        "the node's root",
        {**TIER, "volume": {"hostPath": {"paths": ["/"]}}},
        "an absolute path of a folder other than /",
    ),
    ("a way up", {**TIER, "volume": {"hostPath": {"paths": ["/x/.."]}}}, "an absolute path of a folder other than /"),
]


@pytest.fixture(scope="module")
def drafts(cluster: Cluster, forebay: Image) -> Workspace:
    """For objects that are never made: no namespace of its own."""
    nowhere = Bucket(name="bucket", endpoint="http://store:9000", access_key="", secret_key="")
    return Workspace(cluster=cluster, namespace="default", bucket=nowhere, image=forebay.name)


def _refusal(workspace: Workspace, raw: dict[str, Any]) -> str:
    """What kubectl says when the API server refuses."""
    with pytest.raises(CommandFailed) as caught:
        workspace.cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(raw))
    return str(caught.value)


@pytest.mark.parametrize(("spec", "sentence"), [case[1:] for case in DATASETS], ids=[case[0] for case in DATASETS])
def test_datasets_that_cannot_be(drafts: Workspace, spec: dict[str, Any], sentence: str) -> None:
    """A Dataset's mistakes."""
    raw = drafts.dataset()
    raw["spec"] = spec

    assert sentence in _refusal(drafts, raw)


@pytest.mark.parametrize(("tier", "sentence"), [case[1:] for case in RUNTIMES], ids=[case[0] for case in RUNTIMES])
def test_runtimes_that_cannot_be(drafts: Workspace, tier: dict[str, Any], sentence: str) -> None:
    """A Runtime's mistakes."""
    assert sentence in _refusal(drafts, drafts.runtime(tiers=[tier]))


@pytest.mark.parametrize("name", ["a" * 46, "with.dot", "0start"])
def test_names_that_nothing_can_be_named_after(drafts: Workspace, name: str) -> None:
    """Pods and Service are named after the Runtime."""
    sentence = "metadata.name must have at most 45 characters"

    assert sentence in _refusal(drafts, drafts.dataset(name))
    assert sentence in _refusal(drafts, drafts.runtime(name))


def test_changes_that_cannot_take_effect(workspace: Workspace) -> None:
    """A StatefulSet's claims and a load's selection are fixed: changing them is refused, not ignored."""
    lasting = {**TIER, **_claim(storage="2Gi")}
    workspace.apply(workspace.runtime(replicas=0, tiers=[lasting]), workspace.dataload(targets=[{"path": "/a"}]))

    larger = workspace.runtime(replicas=0, tiers=[{**TIER, **_claim(storage="4Gi")}])
    assert "volumeClaimTemplate cannot change" in _refusal(workspace, larger)
    assert "tiers cannot be added or removed" in _refusal(
        workspace, workspace.runtime(replicas=0, tiers=[lasting, TIER])
    )
    encrypted = workspace.runtime(replicas=0, tiers=[lasting], tls="Required")
    assert "tls cannot change" in _refusal(workspace, encrypted)
    assert "targets cannot change" in _refusal(workspace, workspace.dataload(targets=[{"path": "/b"}]))
    assert "targets cannot change" in _refusal(workspace, workspace.dataload())
    assert "dataset cannot change" in _refusal(workspace, workspace.dataload(dataset="b", targets=[{"path": "/a"}]))
