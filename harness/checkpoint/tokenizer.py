"""The model's own tokenizer, checked at the door: every prompt is counted with it and its chat template."""

from __future__ import annotations

from pathlib import Path

from harness.contract.chat import Tokenizer
from harness.contract.errors import BadInput
from harness.contract.text import quoted


def load_tokenizer(folder: str | Path, name: str) -> Tokenizer:
    """The tokenizer in a checkpoint folder; `name` is what the user calls the model. Code in the folder is never run.

    Raises:
        BadInput: it cannot be read, or has no chat template that can render one question.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise anything here, a bare Exception too
        raise BadInput(f"model {name}: its tokenizer cannot be read: {quoted(str(error), 200)}") from error
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            f"model {name} has no chat template, and every question is asked as chat; give the instruct model, "
            f"or put its chat_template.jinja into {folder}"
        )
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)
    except Exception as error:  # a template may fail with any error of Python or Jinja
        raise BadInput(f"model {name}: its chat template fails: {quoted(str(error), 200)}") from error
    return tokenizer
