"""What all three custom resources share: immutable models in camel case, metadata, label selectors."""

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from forebay_operator.model import meta

Object = dict[str, Any]
"""An object as the API server shows it."""


class Model(BaseModel):
    """An immutable part of a custom resource. Unknown fields are dropped, as the API server drops them."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")

    def to_json(self) -> dict[str, Any]:
        """The part as the API server reads it: camel case, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Metadata(Model):
    """The part of an object's metadata that decisions look at."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    creation_timestamp: str = ""
    deletion_timestamp: str | None = None


class Resource(Model):
    """A custom resource with metadata."""

    KIND: ClassVar[str]
    metadata: Metadata

    @classmethod
    def read(cls, raw: dict[str, Any]) -> Self:
        """The resource of a body that the API server has validated."""
        return cls.model_validate(raw)

    @property
    def deleting(self) -> bool:
        """Whether someone has deleted it and it waits for finalizers."""
        return self.metadata.deletion_timestamp is not None

    @property
    def held(self) -> bool:
        """Whether our finalizer is on it."""
        return meta.FINALIZERS[self.KIND] in self.metadata.finalizers

    def reference(self) -> dict[str, Any]:
        """An owner reference: the object goes when the resource goes."""
        return {
            "apiVersion": meta.API_VERSION, "kind": self.KIND,
            "name": self.metadata.name, "uid": self.metadata.uid, "controller": True,
        }  # fmt: skip


class Toleration(Model):
    """A tolerated taint, as in a pod."""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None
    toleration_seconds: int | None = None


class NodeSelectorRequirement(Model):
    """One requirement on a node's label or field."""

    key: str
    operator: str
    values: tuple[str, ...] | None = None


class NodeSelectorTerm(Model):
    """Requirements that must all hold."""

    match_expressions: tuple[NodeSelectorRequirement, ...] | None = None
    match_fields: tuple[NodeSelectorRequirement, ...] | None = None


class NodeSelector(Model):
    """Alternatives, one of which must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...]


class NodeAffinity(Model):
    """Nodes that may be used."""

    required: NodeSelector | None = None
