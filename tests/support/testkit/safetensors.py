"""Write the safetensors format by hand: eight bytes of length, a JSON header, the tensors one after the other."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

BYTES_PER_BF16 = 2


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of BF16 numbers."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return math.prod(self.shape) * BYTES_PER_BF16


def header(tensors: Sequence[Tensor]) -> bytes:
    """Length and header of a file that holds these tensors in this order."""
    document: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for tensor in tensors:
        document[tensor.name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [begin, begin + tensor.size],
        }
        begin += tensor.size
    text = json.dumps(document, separators=(",", ":")).encode()
    # The tensors begin at a multiple of eight; the format pads with spaces.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def layer(number: int, width: int) -> list[Tensor]:
    """The tensors of one transformer layer."""
    name = f"model.layers.{number}"
    square, wide = (width, width), (4 * width, width)
    return [
        *(Tensor(f"{name}.self_attn.{part}_proj.weight", square) for part in "qkvo"),
        Tensor(f"{name}.mlp.up_proj.weight", wide),
        Tensor(f"{name}.mlp.down_proj.weight", (width, 4 * width)),
        Tensor(f"{name}.input_layernorm.weight", (width,)),
    ]
