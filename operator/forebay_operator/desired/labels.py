"""The labels of the objects that we create."""

from forebay_operator.model import meta


def common(name: str) -> dict[str, str]:
    """Labels of every object that serves the Dataset or Runtime ``name``."""
    return {meta.LABEL_MANAGED_BY: meta.MANAGED_BY, meta.LABEL_NAME: meta.MANAGED_BY, meta.LABEL_DATASET: name}


def worker_selector(name: str) -> dict[str, str]:
    """Labels that select the workers of a Runtime. A StatefulSet's selector is immutable: never change these."""
    return {meta.LABEL_COMPONENT: meta.WORKER_COMPONENT, meta.LABEL_DATASET: name}


def selector_text(labels: dict[str, str]) -> str:
    """The labels as a selector string."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
