"""Where the driver's files are, and which paths the kubelet may name."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from forebay_protocol.errors import InvalidRequest
from forebay_protocol.volume import DRIVER_NAME


@dataclass(frozen=True, slots=True)
class NodePaths:
    """Everything below the kubelet's folder that is this driver's."""

    kubelet: Path

    @property
    def plugin(self) -> Path:
        """The driver's own folder."""
        return self.kubelet / "plugins" / DRIVER_NAME

    @property
    def socket(self) -> Path:
        """Where CSI is served."""
        return self.plugin / "csi.sock"

    @property
    def registration_socket(self) -> Path:
        """Where the kubelet looks for plugins."""
        return self.kubelet / "plugins_registry" / f"{DRIVER_NAME}-reg.sock"

    @property
    def pods(self) -> Path:
        """Where the kubelet keeps the volumes of pods."""
        return self.kubelet / "pods"

    @property
    def volumes(self) -> Path:
        """One folder for each staged volume."""
        return self.plugin / "volumes"

    @property
    def inline(self) -> Path:
        """Where datasets are mounted that pods name without a claim."""
        return self.plugin / "inline"

    def state(self, volume_id: str) -> Path:
        """The folder of one volume; its name does not depend on what characters the id has."""
        return self.volumes / hashlib.blake2b(volume_id.encode(), digest_size=16).hexdigest()

    def checked(self, text: str) -> Path:
        """A staging or target path of a request: absolute, below the kubelet's folder, and through no symlink.

        Pods can write into volumes below that folder; a symlink there must not redirect a mount. The last
        component is not touched when something may be mounted on it; it is checked before it is used.
        """
        path = Path(os.path.normpath(text))
        if not text or not path.is_absolute():
            raise InvalidRequest(f"a path of the request is missing or not absolute: {text!r}")
        if self.kubelet not in path.parents:
            raise InvalidRequest(f"{path} is not below the kubelet's folder {self.kubelet}; check --kubelet-dir")
        # The kubelet's folder itself may lie behind a symlink; what follows it may not.
        below = path.parent.relative_to(self.kubelet)
        if Path(os.path.realpath(path.parent)) != Path(os.path.realpath(self.kubelet)) / below:
            raise InvalidRequest(f"{path} leads through a symlink; refusing to mount there")
        return path
