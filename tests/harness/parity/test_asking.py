"""What a server's log-probabilities tell of it: the dtype that its logits were made in."""

import numpy as np
import pytest
import torch

from harness.endpoint.answers import Scores
from harness.parity.asking import FAR_TOO_MANY, TOP, logits_dtype
from harness.parity.server_config import UNKNOWN


def scores(
    dtype: torch.dtype, *, scale: float = 4.0, shift: float = 8.0, top: int = TOP, positions: int = 40
) -> Scores:
    """As vLLM makes them: logits in the model's dtype, a log-softmax over them in float32."""
    draw = torch.Generator().manual_seed(7)
    logits = (scale * torch.randn(positions, 4096, generator=draw) + shift).to(dtype)
    best = logits.log_softmax(-1, dtype=torch.float32).topk(top)
    ids = best.indices.to(torch.int32).numpy()
    return Scores(ids[:, 0], best.values[:, 0].numpy(), ids, best.values.numpy())


@pytest.mark.parametrize("shift", [-40.0, 10.0, 30.0])
@pytest.mark.parametrize("scale", [1.5, 4.0])
def test_a_dtype_is_known_by_the_grid_of_its_logits(scale: float, shift: float) -> None:
    assert logits_dtype(scores(torch.bfloat16, scale=scale, shift=shift)) == "bfloat16"
    assert logits_dtype(scores(torch.float32, scale=scale, shift=shift)) == "float32"


def test_float16_is_known_where_the_likeliest_tokens_lie_apart() -> None:
    assert logits_dtype(scores(torch.float16, scale=9.0, positions=20)) == "float16"


@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0, 6.0])
@pytest.mark.parametrize("shift", [-20.0, 0.0, 8.0, 20.0])
def test_no_dtype_is_taken_for_another(scale: float, shift: float) -> None:
    """What cannot be told is not readable: logits of float16 that lie close together, small ones of bfloat16."""
    assert logits_dtype(scores(torch.float16, scale=scale, shift=shift, positions=12)) in ("float16", UNKNOWN)
    assert logits_dtype(scores(torch.bfloat16, scale=scale, shift=shift, positions=12)) in ("bfloat16", UNKNOWN)
    assert logits_dtype(scores(torch.float32, scale=scale, shift=shift, positions=12)) == "float32"


def test_what_tells_nothing_is_not_readable() -> None:
    nothing = np.full((4, TOP), -np.inf, np.float32)
    ids = np.zeros((4, TOP), np.int32)
    assert logits_dtype(Scores(ids[:, 0], nothing[:, 0], ids, nothing)) == UNKNOWN
    assert logits_dtype(scores(torch.float32, top=3)) == UNKNOWN
    assert logits_dtype(scores(torch.float32, positions=1)) == "float32"


def test_more_than_any_vocabulary_is_asked_for() -> None:
    assert FAR_TOO_MANY > 2**21  # of none that is served does a server send them all
