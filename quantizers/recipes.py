"""The recipes that come with quantgate, by name."""

from __future__ import annotations

from typing import Any

JAPANESE_REASONING = {
    # The shipped texts hold 112 x 512 tokens of SmolLM2's vocabulary of 49k, 80 of Qwen2.5's of 152k: half of that, for
    # vocabularies that make fewer.
    "samples": 40,
    "length": 512,
    "sources": [
        {"shipped": "ja", "weight": 3},
        {"shipped": "reasoning", "weight": 3},
        {"shipped": "chat"},
        {"shipped": "dialogue"},
        {"shipped": "en"},
        {"shipped": "zh"},
        {"shipped": "code"},
        {"shipped": "math"},
    ],
}
RECIPES: dict[str, dict[str, Any]] = {
    "w4a16": {"name": "w4a16"},
    "w4a16-fast": {"name": "w4a16-fast", "tune": "fast"},
    "w4a16-folded": {"name": "w4a16-folded", "rotate": "folded"},
    "mixed": {"name": "mixed", "mix": ["vq1", "vq1.5", "vq2", "vq3"], "two_sided": True},
    "trellis-2bit": {"name": "trellis-2bit", "tier": "trellis2"},
    "vq-2bit": {"name": "vq-2bit", "tier": "vq2", "two_sided": True},
    "fp8-block": {"name": "fp8-block", "tier": "fp8"},
    "glm-5.2-w4a16-mtp": {"name": "glm-5.2-w4a16-mtp", "tune": "none", "calibration": JAPANESE_REASONING},
    "glm-5.2-mixed": {
        "name": "glm-5.2-mixed",
        "mix": ["vq1", "vq1.5", "vq2", "vq3"],
        # What every token goes through keeps 8 bits: 16 of 744 billion weights.
        "tiers": {
            r"re:.*\.self_attn\.": "int8",
            r"re:.*\.shared_experts\.": "int8",
            r"re:.*\.mlp\.(gate|up|down)_proj$": "int8",
        },
        "tune": "none",
        "calibration": JAPANESE_REASONING,
    },
}
