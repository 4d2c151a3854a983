"""The pydantic models and the CRDs describe the same fields, defaults and requirements."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from forebay_operator.model.dataload import DataLoad
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.resource import Resource
from forebay_operator.model.runtime import Runtime

CRDS = Path(__file__).parents[3] / "crds"


def shape_of_crd(schema: dict[str, Any]) -> Any:
    """Names, requirements, defaults and enums of a structural schema, without prose."""
    if "items" in schema:
        return [shape_of_crd(schema["items"])]
    if "properties" not in schema:
        return sorted(schema["enum"]) if "enum" in schema else None
    return {
        name: (name in schema.get("required", ()), child.get("default"), shape_of_crd(child))
        for name, child in schema["properties"].items()
    }


def shape_of_model(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """The same of the JSON schema that pydantic writes."""
    if "$ref" in schema:
        return shape_of_model(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        present = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return shape_of_model(present[0], definitions) if len(present) == 1 else None
    if "items" in schema:
        return [shape_of_model(schema["items"], definitions)]
    if "properties" not in schema:
        return sorted(schema["enum"]) if "enum" in schema else None
    return {
        name: (name in schema.get("required", ()), child.get("default"), shape_of_model(child, definitions))
        for name, child in schema["properties"].items()
    }


def without_filled_defaults(shape: Any) -> Any:
    """Nested defaults: the CRD writes ``{}`` and lets the children default, pydantic spells the children out."""
    if isinstance(shape, list):
        return [without_filled_defaults(shape[0])]
    if not isinstance(shape, dict):
        return shape
    return {
        name: (required, {} if isinstance(default, dict) else default, without_filled_defaults(child))
        for name, (required, default, child) in shape.items()
    }


def without_open_enums(shape: Any) -> Any:
    """Enums that the model leaves open because decisions do not look at them."""
    if isinstance(shape, list):
        return [without_open_enums(shape[0])]
    if isinstance(shape, dict):
        return {
            name: (required, default, None if name in ("operator", "effect", "status") and not isinstance(child, dict)
                   else without_open_enums(child))
            for name, (required, default, child) in shape.items()
        }  # fmt: skip
    return shape


@pytest.mark.parametrize(("kind", "model"), [("dataset", Dataset), ("runtime", Runtime), ("dataload", DataLoad)])
@pytest.mark.parametrize("part", ["spec", "status"])
def test_model_and_crd_agree(kind: str, model: type[Resource], part: str) -> None:
    """Every field of one is in the other, required and defaulted alike."""
    crd = yaml.safe_load((CRDS / f"{kind}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    described = model.model_json_schema(by_alias=True, mode="validation")
    definitions = described["$defs"]
    annotation = definitions[f"{model.__name__}{part.capitalize()}"]

    expected = without_open_enums(without_filled_defaults(shape_of_crd(schema)))
    found = without_open_enums(without_filled_defaults(shape_of_model(annotation, definitions)))

    assert found == expected


def descriptionless(schema: dict[str, Any], path: str) -> list[str]:
    """Paths of fields without a description."""
    missing = []
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if "description" not in child and name != "metadata":
            missing.append(here)
        missing += descriptionless(child.get("items", child), here)
    return missing


@pytest.mark.parametrize("kind", ["dataset", "runtime", "dataload"])
def test_every_field_is_described(kind: str) -> None:
    """``kubectl explain`` has a sentence for each field."""
    crd = yaml.safe_load((CRDS / f"{kind}.yaml").read_text())

    assert descriptionless(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind) == []
