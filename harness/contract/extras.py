"""How the optional parts of the distribution are installed."""

from __future__ import annotations

MODAL_EXTRA = "pip install -e '.[modal]'"
