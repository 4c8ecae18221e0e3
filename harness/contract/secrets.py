"""What nobody may read in a run folder: passwords, tokens and keys, by the names and forms that they have.

A run folder is made to be shown. `hide_*` takes secrets out of what is written or printed; `secret_in` finds those of a
policy, which is sealed as it is and so is refused instead; `without_secrets` keeps them from servers that need none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "(hidden)"
_NAME = re.compile(
    r"(?<![a-z])token(?![a-z]|[-_](?:ids?|threshold|budget|length|limit)(?![a-z]))"
    r"|secret|passw|api[-_]?key|credential|authorization",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(?<=://)[^/?#\s]+(?=@)")
_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[opusr]_[A-Za-z0-9]{20,}"
    r"|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{20,}|AKIA[A-Z0-9]{16}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|nvapi-[A-Za-z0-9_-]{20,}|wandb_v1_[A-Za-z0-9_]{20,})(?![A-Za-z0-9])"
)
"""Keys that say what they are by how they begin: of Hugging Face, OpenAI and their like, GitHub, AWS, Slack …"""


def is_secret(name: str) -> bool:
    """Whether a name says that its value is a password, a token or a key."""
    return bool(_NAME.search(name))


def hide_secret(name: str, value: str) -> str:
    """`value`, or a remark in its place when `name` says that it is a password or a token."""
    return HIDDEN if value and is_secret(name) else hide_keys(value)


def hide_secrets(command: list[str]) -> list[str]:
    """A command line without its passwords and tokens (`--api-key x`, `--api-key=x`, `TOKEN=x`)."""
    return [_hide_in_word(word, before) for word, before in zip(command, ["", *command], strict=False)]


def hide_keys(text: str) -> str:
    """A text without what shows by its form alone: logins in URLs, and keys that say what they are."""
    return _KEY.sub(HIDDEN, _LOGIN.sub(HIDDEN, text))


def without_login(url: str) -> str:
    """A URL without `user:password@`."""
    return re.sub(r"(?<=://)[^/?#\s]+@", "", url)


def without_secrets(environment: Mapping[str, str], keep: str = "\0") -> dict[str, str]:
    """Environment variables but for secret ones, which a server of a local folder does not need. Names that begin with
    `keep` stay."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(keep) or not (is_secret(name) or _KEY.search(value))
    }


def secret_in(text: str, words: list[str]) -> str | None:
    """What in a policy's text, or in the arguments that it passes on, looks like a secret; None where nothing does.

    What is said names the kind and never the value.
    """
    if _LOGIN.search(text):
        return "a URL with a login (user:password@)"
    if _KEY.search(text):
        return "a key"
    for word, hidden in zip(words, hide_secrets(words), strict=True):
        if word != hidden:
            return f"the value of {_named(word, words)}"
    return None


def _named(word: str, words: list[str]) -> str:
    name, equals, _ = word.partition("=")
    return name if equals else words[max(words.index(word) - 1, 0)]


def _hide_in_word(word: str, before: str) -> str:
    """One argument without its secret; `before` is the argument before it, which may be its name."""
    name, equals, value = word.partition("=")
    if equals and value and is_secret(name):
        return f"{name}={HIDDEN}"
    if before.startswith("-") and "=" not in before and is_secret(before) and not word.startswith("-"):
        return HIDDEN
    if "authorization:" in word.lower():
        return f"authorization: {HIDDEN}"
    return hide_keys(word)
