"""The one exception of this package."""


class QuantizeError(Exception):
    """The model, the recipe or the machine does not allow quantization.

    The message is one line: what is wrong, and the way out.
    """
