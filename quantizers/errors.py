"""The one exception of this package."""

from __future__ import annotations


class QuantizeError(Exception):
    """The model, the recipe or the machine does not allow quantization.

    The message is one line: what is wrong, and the way out.
    """
