"""The DataLoad, as crds/dataload.yaml defines it."""

from typing import ClassVar

from pydantic import Field

from forebay_operator.model.conditions import Condition
from forebay_operator.model.resource import Model, Resource


class Target(Model):
    """A part of the volume."""

    path: str


class DataLoadSpec(Model):
    """What to load."""

    dataset: str
    targets: tuple[Target, ...] | None = None
    min_cached_percent: int = 100
    ttl_seconds_after_finished: int | None = None


class DataLoadStatus(Model):
    """How far the load is."""

    observed_generation: int | None = None
    phase: str | None = None
    generation: int | None = None
    total_files: int | None = None
    total_bytes: int | None = None
    total_size: str | None = None
    loaded_files: int | None = None
    loaded_bytes: int | None = None
    loaded_size: str | None = None
    failed_files: int | None = None
    files: str | None = None
    percent: int | None = None
    bytes_per_second: int | None = None
    rate: str | None = None
    eta_seconds: int | None = None
    eta: str | None = None
    start_time: str | None = None
    completion_time: str | None = None
    conditions: tuple[Condition, ...] | None = None


class DataLoad(Resource):
    """A DataLoad."""

    KIND: ClassVar[str] = "DataLoad"
    spec: DataLoadSpec
    status: DataLoadStatus = Field(default_factory=DataLoadStatus)

    @property
    def finished(self) -> bool:
        """Whether it has been judged Complete or Failed, which is final."""
        return self.status.completion_time is not None
