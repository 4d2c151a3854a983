"""etcd, API server, controller manager and scheduler, on the host's address on the bridge."""

import json
from collections.abc import Sequence

from testkit.cluster.api import Api
from testkit.cluster.machine import Machine
from testkit.processes import Daemon, attempts

ROLES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane:
    """The four daemons."""

    def __init__(self, machine: Machine, api: Api) -> None:
        self._machine = machine
        self._api = api
        self.audit_log = machine.settings.data_dir / "log" / "audit.log"

    def up(self) -> None:
        """Start what does not run, and wait for the API server."""
        self.start("etcd")
        self.start("kube-apiserver")
        self.await_ready()
        self.start("kube-controller-manager")
        self.start("kube-scheduler")

    def start(self, role: str) -> None:
        """Start one of the four."""
        commands = {
            "etcd": self._etcd,
            "kube-apiserver": self._apiserver,
            "kube-controller-manager": self._controller_manager,
            "kube-scheduler": self._scheduler,
        }
        m = self._machine
        m.processes.start(Daemon(role=role, argv=commands[role](), log=m.log(role)))

    def await_ready(self, seconds: float = 60.0) -> None:
        """Wait until the API server is ready; say where to look when it ends or does not come."""
        for _ in attempts(seconds):
            if self._api.ready():
                return
            for role in ("etcd", "kube-apiserver"):
                if self._machine.processes.identity(role) is None:
                    raise RuntimeError(f"{role} ended; see {self._machine.log(role)}")
        raise RuntimeError(
            f"the API server is not ready after {seconds:.0f} s; see {self._machine.log('kube-apiserver')}"
        )

    def restart_apiserver(self) -> None:
        """End the API server and start it again."""
        # Open watches keep it from ending by itself for long.
        self._machine.processes.stop("kube-apiserver", grace_seconds=3)
        self.start("kube-apiserver")
        self.await_ready()

    def _etcd(self) -> Sequence[str]:
        """The command line of etcd; no fsync, since nobody needs this cluster after a power failure."""
        s, c = self._machine.settings, self._machine.certificates
        client, peer = f"https://{s.bridge_address}:{s.etcd_port}", f"http://{s.bridge_address}:{s.etcd_port + 1}"
        return [
            str(self._machine.binaries.etcd),
            "--name=default",
            f"--data-dir={s.data_dir / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--cert-file={c.path('etcd.crt')}",
            f"--key-file={c.path('etcd.key')}",
            f"--trusted-ca-file={c.path('ca.crt')}",
            "--client-cert-auth",
            "--unsafe-no-fsync",
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=10m",
            "--logger=zap",
            "--log-level=warn",
        ]

    def _apiserver(self) -> Sequence[str]:
        """The command line of the API server."""
        s, c = self._machine.settings, self._machine.certificates
        policy = s.state_dir / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        self.audit_log.parent.mkdir(parents=True, exist_ok=True)
        return [
            str(self._machine.binaries.kubernetes / "kube-apiserver"),
            f"--bind-address={s.bridge_address}",
            f"--advertise-address={s.bridge_address}",
            f"--secure-port={s.api_port}",
            f"--service-cluster-ip-range={s.service_cidr}",
            f"--etcd-servers=https://{s.bridge_address}:{s.etcd_port}",
            f"--etcd-cafile={c.path('ca.crt')}",
            f"--etcd-certfile={c.path('admin.crt')}",
            f"--etcd-keyfile={c.path('admin.key')}",
            f"--tls-cert-file={c.path('kube-apiserver.crt')}",
            f"--tls-private-key-file={c.path('kube-apiserver.key')}",
            f"--client-ca-file={c.path('ca.crt')}",
            f"--kubelet-client-certificate={c.path('apiserver-kubelet-client.crt')}",
            f"--kubelet-client-key={c.path('apiserver-kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={c.path('service-account.key')}",
            f"--service-account-signing-key-file={c.path('service-account.key')}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--requestheader-client-ca-file={c.path('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={c.path('front-proxy-client.crt')}",
            f"--proxy-client-key-file={c.path('front-proxy-client.key')}",
            "--enable-aggregator-routing",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,PodSecurity",
            "--allow-privileged",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
        ]

    def _controller_manager(self) -> Sequence[str]:
        """The command line of the controller manager."""
        s, c = self._machine.settings, self._machine.certificates
        kubeconfig = c.path("controller-manager.kubeconfig")
        return [
            str(self._machine.binaries.kubernetes / "kube-controller-manager"),
            *self._component(kubeconfig),
            f"--service-account-private-key-file={c.path('service-account.key')}",
            f"--root-ca-file={c.path('ca.crt')}",
            f"--cluster-signing-cert-file={c.path('ca.crt')}",
            f"--cluster-signing-key-file={c.path('ca.key')}",
            "--use-service-account-credentials",
            f"--horizontal-pod-autoscaler-sync-period={s.hpa_sync_seconds}s",
        ]

    def _scheduler(self) -> Sequence[str]:
        """The command line of the scheduler."""
        kubeconfig = self._machine.certificates.path("scheduler.kubeconfig")
        return [str(self._machine.binaries.kubernetes / "kube-scheduler"), *self._component(kubeconfig)]

    def _component(self, kubeconfig: str) -> list[str]:
        """What controller manager and scheduler have in common."""
        s = self._machine.settings
        return [
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--bind-address={s.bridge_address}",
            f"--cert-dir={s.state_dir / 'serving'}",
            "--leader-elect=false",
        ]
