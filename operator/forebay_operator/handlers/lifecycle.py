"""How kopf logs in, and how it behaves."""

import kopf

from forebay_operator.kube.kinds import KINDS


def configure(settings: kopf.OperatorSettings) -> None:
    """No events, annotations or finalizers of kopf's own, bounded requests, dead watches noticed."""
    settings.posting.enabled = False
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.queueing.worker_limit = 64
    # A handler here takes no time: an idle worker that lingers only keeps its place from the next object.
    settings.queueing.idle_timeout = 0.05
    settings.execution.max_workers = 2
    for kind in KINDS.values():
        if kind.selector:
            settings.watching.label_selectors[kind.plural] = kind.selector


def register(registry: kopf.OperatorRegistry) -> None:
    """Log in without the Kubernetes library's synchronous half, which would cost much memory."""

    @kopf.on.login(registry=registry, id="login")
    def login(settings: kopf.OperatorSettings, **_: object) -> kopf.ConnectionInfo | None:
        return kopf.login_with_kubeconfig(settings=settings) or kopf.login_with_service_account(settings=settings)
