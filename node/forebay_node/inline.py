"""Datasets that pods name in their own specification, without a claim.

All pods of a node that bring the same access share one mount, below the plugin's own folder; it goes when no pod has it
any more. The kubelet stages nothing for such volumes, and tells an id that is the pod's alone.
"""

import contextlib
import json
import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from hashlib import blake2b

from forebay_node.fuse.access import Access
from forebay_node.paths import NodePaths
from forebay_node.tier_folders import POD_NAMESPACE
from forebay_node.volumes import VolumeBusy, VolumeRequest, Volumes
from forebay_protocol.dataset import KEYS_FILE
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.provisioning import DatasetIdentity, attributes
from forebay_protocol.volume import DATASET

EPHEMERAL = "csi.storage.k8s.io/ephemeral"
"""What the kubelet adds to the attributes of a volume that is part of a pod."""

_PATIENCE = 60.0
"""Seconds for which a pod waits for others that are shown the same Dataset; the kubelet gives a call two minutes."""

_log = logging.getLogger(__name__)


def is_inline(context: Mapping[str, str]) -> bool:
    """Whether a volume is part of a pod."""
    return context.get(EPHEMERAL) == "true"


class InlineVolumes:
    """The mounts that pods share without a claim."""

    def __init__(self, paths: NodePaths, volumes: Volumes) -> None:
        """Nothing is touched yet."""
        self._paths = paths
        self._volumes = volumes
        self._turns: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def _turn(self, shared: str, patience: float) -> Iterator[None]:
        """One after the other: of pods that start together, none is sent away to try again later."""
        with self._guard:
            lock = self._turns[shared]
        if not lock.acquire(timeout=patience):
            raise VolumeBusy("another pod waits for the same Dataset; try again")
        try:
            yield
        finally:
            lock.release()

    def publish(self, context: Mapping[str, str], secrets: Mapping[str, str], target_path: str) -> None:
        """Show a pod the Dataset that it names; InvalidRequest unless that is of the pod's own namespace."""
        name, namespace = context.get(DATASET, ""), context.get(POD_NAMESPACE, "")
        if not name:
            raise InvalidRequest(f"the volume's attribute {DATASET} is missing: it names a Dataset of the namespace")
        if not secrets:
            raise InvalidRequest(f"the volume's nodePublishSecretRef is missing: name the Secret {name}-forebay-access")
        document = Access.parse(secrets).document
        if (document.name, document.namespace) != (name, namespace):
            raise InvalidRequest(f"the Secret is not the access Secret of the Dataset {name} of this namespace")
        # Whoever does not have the keys must not be shown what is mounted for those who have.
        proof = json.dumps([namespace, name, document.uid, secrets[KEYS_FILE]])
        shared = blake2b(proof.encode(), digest_size=16).hexdigest()
        request = VolumeRequest(
            volume_id=shared, staging_path=str(self._paths.inline / shared), secrets=secrets,
            context=attributes(DatasetIdentity(uid=document.uid, namespace=namespace, name=name)),
        )  # fmt: skip
        with self._turn(shared, _PATIENCE):
            self._volumes.publish(request, target_path)

    def collect(self) -> None:
        """Take the mounts away that no pod has any more."""
        for path in sorted(self._paths.inline.glob("*")):
            with contextlib.suppress(VolumeBusy), self._turn(path.name, 0.0):
                try:
                    self._volumes.unstage_unused(path.name, str(path))
                except OSError as error:
                    _log.warning("cannot take away the unused mount at %s: %s", path, error.strerror)
