"""A good server: what it answers is a pure function of role and request, so that an undisturbed run has one verdict.

python -m tests.endurance.good_server ROLE PORT
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from typing import Any

from fake_server import FakeServer, FakeVllm, chat_reply, logprobs_of, score_reply

from harness.contract.samples import Role
from suites.materials.word_problems import word_problems

PROBLEMS = {row["question"]: row["answer"].rpartition("#### ")[2] for row in word_problems(200)}
RIGHT = {"reference": 80, "candidate": 76}
"""Of a hundred questions."""


class GoodModel(FakeVllm):
    """Solves most word problems; the candidate misses a few more, and its log-probabilities are a little other ones."""

    def __init__(self, role: Role, delay: float = 0.0) -> None:
        """`delay`: seconds that an answer takes."""
        super().__init__()
        self.models = [{"id": "quantgate", "max_model_len": 4096}]
        self.started, self.requests, self.budget = time.time(), 0, 0.0
        self.role, self.delay = role, delay
        self.answered = 0
        self._lock = threading.Lock()

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if body:
            time.sleep(self.delay)
        with self._lock:
            self.answered += bool(body)
            return super().__call__(path, body)

    def _answer(self, body: dict[str, Any]) -> Any:
        reply = super()._answer(body)
        if not isinstance(reply, dict):
            return reply
        if "prompt_logprobs" in body:
            ids, shift = body["prompt"], int(self.role == "candidate")
            entries = logprobs_of([0] * shift + ids, body["prompt_logprobs"], self.logit_bits)[shift:]
            return score_reply([None, *entries[1:]])
        text = said(self.role, body["messages"][-1]["content"])
        ids = list(text.encode())[: body["max_tokens"]]
        made = chat_reply(text, prompt_ids=reply["prompt_token_ids"], token_ids=ids, completion_tokens=len(ids))
        made["usage"]["prompt_tokens"] = len(reply["prompt_token_ids"])
        return made | {"system_fingerprint": self.fingerprint}


def said(role: Role, prompt: str) -> str:
    """The answer to a prompt: right for most word problems, and another text for every other prompt."""
    digest = int(hashlib.sha256(prompt.encode()).hexdigest(), 16)
    question = max(PROBLEMS, key=prompt.rfind)
    if question not in prompt:
        return f"I would say {digest % 10**6}."
    wrong = digest % 100 >= RIGHT[role]
    return f"The answer is {int(PROBLEMS[question]) + wrong}."


def main(role: Role, port: int, delay: float = 0.02) -> None:
    """Serve until the process is ended."""
    server = FakeServer(port)
    server.handler = GoodModel(role, delay)
    with server:
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main("candidate" if sys.argv[1] == "candidate" else "reference", int(sys.argv[2]))
