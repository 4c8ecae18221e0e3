"""Real tokenizers, without a network: one trained here, and the demo model's where the cache has it."""

from typing import Any

import pytest

from harness.checkpoint.models import DEMO_NAME
from harness.contract.whole_files import cache_folder

TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def trained() -> Any:
    """A byte-level BPE tokenizer of a few thousand tokens, trained on words like those of the prompts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from suites.materials.haystack import NOISE, running_text
    from suites.materials.needle_phrases import english

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbered = [f"{i}. {word}" for i, word in enumerate(english("noun"))]
    noise = [" ".join(sentences) for sentences in NOISE.values()]
    tokenizer.train_from_iterator([*noise, " ".join(numbered), running_text("en").text(2000)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=TEMPLATE)


@pytest.fixture(scope="session", params=["trained here", "of the demo model"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    if request.param == "trained here":
        return trained()
    folder = cache_folder() / "models" / DEMO_NAME
    if not (folder / "tokenizer.json").exists():
        pytest.skip("the demo model is not in the cache (`make gate` fetches it)")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
