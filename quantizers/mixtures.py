"""What is wrong with a mixture of experts although every tensor that its class asks for is stored in its shape."""

from __future__ import annotations

import re

from torch import nn

from quantizers.checkpoint import CONFIG_FILE, Checkpoint
from quantizers.errors import QuantizeError
from quantizers.experts import Experts

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
