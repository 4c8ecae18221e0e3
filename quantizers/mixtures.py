"""What is wrong with a mixture of experts although every tensor that its class asks for is stored in its shape."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import nn

from quantizers.checkpoint import CONFIG_FILE, Checkpoint
from quantizers.errors import QuantizeError
from quantizers.experts import Experts
from quantizers.schemes import Scheme, served

CHOSEN_KEY = "num_experts_per_tok"


def require_mixtures(layers: nn.ModuleList, prefix: str, checkpoint: Checkpoint, chosen: object) -> None:
    """Hold the experts of decoder layers (full name `prefix`) against config.json and against what else is stored.

    Args:
        chosen: the config's number of experts a token, if it says one.

    Raises:
        QuantizeError: routers would choose more experts than there are, or none; a tensor of an expert that the model
            does not have, or of a part that its experts do not have, by name. Such a tensor would be carried, and
            servers would ignore it or fail.
    """
    wanted: dict[str, set[str]] = {}
    for index, layer in enumerate(layers):
        for name, module in layer.named_modules():
            if not isinstance(module, Experts):
                continue
            wanted[f"{prefix}.{index}.{name}"] = set(module.state_dict())
            if isinstance(chosen, int) and not 1 <= chosen <= len(module):
                raise QuantizeError(
                    f"config.json says {CHOSEN_KEY} {chosen}, but {prefix}.{index}.{name} are {len(module)} experts: "
                    f"correct {CONFIG_FILE}"
                )
    pattern = re.compile(rf"({re.escape(prefix)}\.\d{{1,9}}\..*?experts)\.(\d{{1,9}}\..+)")
    for name in checkpoint.tensors:
        if (match := pattern.fullmatch(name)) and match[1] in wanted and match[2] not in wanted[match[1]]:
            raise QuantizeError(
                f"tensor {name} is stored in {checkpoint.folder}, but the model that {CONFIG_FILE} describes has no "
                f"such part: correct {CONFIG_FILE}, or remove the tensor"
            )


def require_one_format(linears: Iterable[str], schemes: Mapping[str, Scheme]) -> None:
    """Servers hold all experts of a layer in one tensor: where a recipe is for them, it quantizes all or none.

    Args:
        linears: full names, of those that are kept too.
        schemes: of those that are quantized, by full name.

    Raises:
        QuantizeError: a layer with some of each, by name. vLLM looks at the first expert and takes all for the same.
    """
    if not served({scheme.tier for scheme in schemes.values()}):
        return
    first: dict[str, str] = {}
    for name in linears:
        if match := re.match(r"(.*\.experts)\.\d+\.", name):
            other = first.setdefault(match[1], name)
            if (name in schemes) != (other in schemes):
                kept, quantized = (name, other) if other in schemes else (other, name)
                raise QuantizeError(
                    f"the recipe ignores {kept} but not {quantized}: servers hold all experts of a layer in one format"
                )
