"""The demo's stage on this machine: two nodes, a store behind a 1 Gbit/s link, and the image of the working tree."""

from testkit import dataset, image
from testkit.cluster import Cluster
from testkit.demo import Stage
from testkit.progress import Progress
from testkit.store import DEFAULT_MBIT, PORT, Store

BUCKET = "demo"


def set_stage(progress: Progress) -> Stage:
    """Bring up what is missing; what runs already is kept."""
    cluster = Cluster(progress=progress)
    cluster.up()
    store = Store(cluster.settings, progress)
    store.up(DEFAULT_MBIT)
    with progress.step(f"demo data in s3://{BUCKET}"):
        data = dataset.seed(store, BUCKET, progress=progress)
    built = image.build(progress)
    with progress.step(f"image {built.name} on {', '.join(cluster.nodes)}"):
        cluster.load_image(built.archive)
    hint = "PYTHONPATH=tests/support python3 -m testkit kubectl"
    return Stage(
        cluster=cluster,
        nodes=tuple(cluster.nodes)[:2],
        image=built.name,
        store_address=store.address,
        store_port=PORT,
        bucket=BUCKET,
        access_key=store.access_key,
        secret_key=store.secret_key,
        data=data,
        link=f"The store's link to the cluster is limited to {DEFAULT_MBIT / 1000:g} Gbit/s (htb).",
        kubectl_hint=hint,
        removal_hint="make down",
    )
