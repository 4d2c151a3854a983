"""`make demo`: from a bare machine to pods on two nodes that read a bucket at cache speed.

Brings up a cluster (or takes the current kubeconfig's), a store with data and the image, installs Forebay, applies
`examples/01-minimal`, shows the load's progress, reads from a pod on each node and ends with a table.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

from testkit import workloads
from testkit.dataset import Manifest
from testkit.install import ROOT, Kubectl, install
from testkit.progress import Progress

NAMESPACE = "forebay-demo"
EXAMPLE = ROOT / "examples" / "01-minimal"
LOAD_TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything that the demo needs to be there: a cluster, the image in it, and a bucket behind a link.

    ``store_address`` is an IPv4 address that pods reach on ``store_port``; ``link`` says in words how fast the way
    to it is.
    """

    cluster: Kubectl
    nodes: tuple[str, ...]
    image: str
    store_address: str
    store_port: int
    bucket: str
    access_key: str
    secret_key: str
    data: Manifest
    link: str
    kubectl_hint: str
    removal_hint: str


def bucket_service(stage: Stage) -> list[dict[str, Any]]:
    """A Service that gives the store a name within the cluster, so that the example needs no address."""
    port = {"name": "s3", "port": 9000, "protocol": "TCP"}
    labels = {"kubernetes.io/service-name": "bucket"}
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "bucket", "namespace": NAMESPACE},
            "spec": {"ports": [{**port, "targetPort": stage.store_port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "bucket", "namespace": NAMESPACE, "labels": labels},
            "addressType": "IPv4", "endpoints": [{"addresses": [stage.store_address]}],
            "ports": [{"name": "s3", "port": stage.store_port, "protocol": "TCP"}],
        },
    ]  # fmt: skip


def prepare_namespace(stage: Stage) -> None:
    """A fresh namespace with the bucket's name and credentials and the reader's files."""
    stage.cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", timeout=180)
    config = {
        "root": "/data",
        "bucket": stage.bucket,
        "endpoint": f"http://bucket.{NAMESPACE}.svc:9000",
        "threads": 4,
        "files": [[one.path, one.key, one.size, one.sha256] for one in stage.data.files],
    }
    keys = {"AWS_ACCESS_KEY_ID": stage.access_key, "AWS_SECRET_ACCESS_KEY": stage.secret_key}
    workloads.apply(
        stage.cluster,
        workloads.namespace(NAMESPACE),
        *bucket_service(stage),
        workloads.secret("bucket-credentials", NAMESPACE, keys),
        workloads.reader_files(NAMESPACE, "reader", config),
    )


def watch_load(stage: Stage, progress: Progress) -> float:
    """Show the three kinds while the load's percentage rises; give the seconds until it was complete."""
    begun = time.monotonic()
    shown = ""
    while True:
        done = stage.cluster.kubectl(
            "get", "dataload", "-n", NAMESPACE, "--ignore-not-found",
            "-o", "jsonpath={.items[*].status.conditions[?(@.type=='Complete')].status}",
        ).stdout == "True"  # fmt: skip
        table = stage.cluster.kubectl("get", "dataset,runtime,dataload", "-n", NAMESPACE).stdout
        if table != shown:
            progress.say(
                "kubectl get dataset,runtime,dataload\n" + "".join(f"    {line}\n" for line in table.splitlines())
            )
            shown = table
        if done:
            return time.monotonic() - begun
        if time.monotonic() - begun > LOAD_TIMEOUT:
            described = stage.cluster.kubectl("describe", "dataset,runtime,dataload", "-n", NAMESPACE).stdout
            raise RuntimeError(f"the load did not complete in {LOAD_TIMEOUT:.0f} s:\n{described}")
        time.sleep(0.5)


@dataclass(frozen=True)
class Row:
    """One line of the summary: what was read from where, how long it took and how much it was."""

    name: str
    seconds: float
    size: int

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.size / 1e6 / max(self.seconds, 1e-3)


def read_on_each_node(stage: Stage, progress: Progress) -> list[Row]:
    """Run a reader pod on each node at the same time; all bytes are compared with the source."""
    pods = [
        workloads.ReaderPod(
            name=f"reader-{node}", namespace=NAMESPACE, node=node, image=stage.image, claim="demo",
            config="reader", credentials="bucket-credentials", steps=("direct", "read", "again", "verify"),
        )
        for node in stage.nodes
    ]  # fmt: skip
    for pod in pods:
        pod.start(stage.cluster)
    rows = []
    names = {"direct": "directly from S3", "read": "first read through the PVC", "again": "warm read"}
    for pod in pods:
        results = pod.results(stage.cluster)
        rows += [
            Row(f"{pod.node}: {name}", results[step]["seconds"], results[step]["bytes"]) for step, name in names.items()
        ]
        verified = results["verify"]
        progress.say(f"{pod.node}: {verified['files']:,} files have the source's SHA-256")
    return rows


def summary(stage: Stage, rows: list[Row], load_seconds: float, elapsed: float) -> str:
    """The table that the demo ends with, and what to try next."""
    width = max(len(row.name) for row in rows) + 2
    lines = [
        "",
        f"{'':{width}}{'time':>9}{'size':>10}{'rate':>12}",
        *(f"{row.name:{width}}{row.seconds:>7.2f} s{row.size / 1e6:>7.0f} MB{row.rate:>7.0f} MB/s" for row in rows),
        "",
        f"DataLoad: {stage.data.total_bytes / 1e6:.0f} MB in {load_seconds:.1f} s. {stage.link}",
        f"Every file on both nodes has the source's SHA-256. Whole demo: {elapsed:.0f} s.",
        "",
        "The cluster stays up. Try next:",
        f"  {stage.kubectl_hint} get datasets,runtimes,dataloads -n {NAMESPACE}",
        f"  {stage.kubectl_hint} describe dataset demo -n {NAMESPACE}",
        f"  {stage.kubectl_hint} explain runtime.spec.tiers",
        f"  {stage.kubectl_hint} scale runtime/demo -n {NAMESPACE} --replicas=1",
        f"  {stage.removal_hint}",
        "",
    ]
    return "\n".join(lines)


def show(stage: Stage, progress: Progress) -> None:
    """The main job on a stage that is set."""
    with progress.step("installing Forebay (kubectl apply -k manifests)"):
        install(stage.cluster, stage.image)
    with progress.step(f"preparing namespace {NAMESPACE} (Pod Security: restricted)"):
        prepare_namespace(stage)
    with progress.step("applying examples/01-minimal"):
        stage.cluster.kubectl("apply", "-n", NAMESPACE, "-k", str(EXAMPLE))
    load_seconds = watch_load(stage, progress)
    stage.cluster.kubectl("wait", "-n", NAMESPACE, "--for=condition=Ready", "dataset/demo", "--timeout=60s")
    with progress.step("reading every file from a pod on each node, directly and through the PVC"):
        rows = read_on_each_node(stage, progress)
    print(summary(stage, rows, load_seconds, progress.elapsed), flush=True)


def _stage(progress: Progress, options: argparse.Namespace) -> Stage:
    """The stage that the options ask for."""
    if options.cluster == "existing":
        from testkit import existing

        return existing.set_stage(progress, options.image, push=options.push == "yes")
    from testkit import local

    return local.set_stage(progress)


def main(argv: list[str]) -> int:
    """Set the stage and show the main job; a failure says how to go on."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--cluster", choices=("local", "existing"), default="local")
    parser.add_argument("--image", default="", help="with an existing cluster: where to push the image, name:tag")
    parser.add_argument("--push", choices=("yes", "no"), default="yes", help="no: the images are there already")
    options = parser.parse_args(argv[1:])
    progress = Progress()
    try:
        show(_stage(progress, options), progress)
    except (RuntimeError, OSError) as error:
        sys.stderr.write(
            f"\nThe demo stopped: {error}\n`make demo` goes on from here; `make down` removes everything.\n"
        )
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. `make demo` goes on from here; `make down` removes everything.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
