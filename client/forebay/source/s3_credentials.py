"""With what keys a mount is read: its Secret's, those of the process's own surroundings, or none."""

import threading
from collections.abc import Callable
from typing import Any

from forebay.source.sigv4 import Keys
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import SourceDenied

KeyProvider = Callable[[], Keys | None]
"""Gives the keys of this moment; None: ask without."""


def given(credentials: Credentials) -> KeyProvider:
    """The keys of the mount's Secret; a changed Secret opens the source anew."""
    keys = Keys(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
    return lambda: keys


def anonymous() -> Keys | None:
    """No keys: public buckets."""
    return None


class Surroundings:
    """The AWS SDK's default chain: environment, web identity, pod identity, profile, instance; renewed by itself.

    The SDK is large, so it is loaded on the first use; most mounts bring their keys.
    """

    def __init__(self) -> None:
        """Nothing is looked up yet."""
        self._lock = threading.Lock()
        self._found: Any = None
        self._looked = False

    def __call__(self) -> Keys | None:
        """The keys of this moment; SourceDenied when the chain knows where to ask but is refused."""
        import botocore.exceptions
        import botocore.session

        try:
            with self._lock:
                if not self._looked:
                    self._found = botocore.session.Session().get_credentials()
                    self._looked = True
            if self._found is None:
                return None
            frozen = self._found.get_frozen_credentials()
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, OSError) as error:
            raise SourceDenied(
                f"the worker's own identity gives no credentials ({type(error).__name__}); check the role and the "
                "trust policy of its service account, or name a Secret in credentialsSecretRef"
            ) from error
        return Keys(frozen.access_key or "", frozen.secret_key or "", frozen.token or "")
