"""CoreDNS as Kubernetes objects. No I/O."""

from typing import Any

from testkit.settings import Settings

PORT = 1053
"""Above 1024, so that it needs no capability."""

_COREFILE = f""".:{PORT} {{
    errors
    health :8080
    ready :8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    cache 5
    loop
    reload
}}
"""


def objects(settings: Settings, image: str) -> dict[str, Any]:
    """Everything that the cluster's DNS needs, as one list."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [*_access(), _config(), _deployment(image), _service(settings)],
    }


def _meta(name: str, *, namespaced: bool = True) -> dict[str, Any]:
    """The metadata that all have in common."""
    place = {"namespace": "kube-system"} if namespaced else {}
    return {"name": name, "labels": {"k8s-app": "kube-dns"}, **place}


def _access() -> list[dict[str, Any]]:
    """The right to watch Services and what is behind them."""
    rules = [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    role = "system:coredns"
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta("coredns")},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": _meta(role, namespaced=False), "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(role, namespaced=False),
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}],
        },
    ]


def _config() -> dict[str, Any]:
    """The server's configuration: the cluster's names only."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _meta("coredns"), "data": {"Corefile": _COREFILE}}


def _deployment(image: str) -> dict[str, Any]:
    """One server; a second would only cost memory here."""
    container = {
        "name": "coredns",
        "image": image,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [{"containerPort": PORT, "name": name, "protocol": name.upper()} for name in ("udp", "tcp")],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "10m", "memory": "20Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns", "readOnly": True}],
    }
    spec = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta("coredns"),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {"metadata": {"labels": {"k8s-app": "kube-dns"}}, "spec": spec},
        },
    }


def _service(settings: Settings) -> dict[str, Any]:
    """The address that the kubelets write into the pods' resolv.conf."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta("kube-dns"),
        "spec": {
            "clusterIP": str(settings.dns_address),
            "selector": {"k8s-app": "kube-dns"},
            "ports": [
                {"name": name, "port": 53, "targetPort": PORT, "protocol": name.upper()} for name in ("udp", "tcp")
            ],
        },
    }
