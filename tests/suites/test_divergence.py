"""Divergence: bounds that hold for every pair of distributions, and trajectories that both roles score alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_server import FakeServer, ask, chat_reply, score_reply
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.endpoint import EndpointError, Scores
from harness.errors import BadInput
from harness.policy import Sampling
from harness.samples import Item
from suites.base import make_item
from suites.divergence import CONFIDENT, Divergence, DivergenceConfig, compare, read_scores, write_scores

Array = NDArray[np.float64]


def top(logprobs: Array, k: int, tokens: NDArray[np.int32] | None = None) -> Scores:
    """What a server returns of full log-probabilities [n, V]: the k likeliest of each row."""
    order = np.argsort(-logprobs, axis=1, kind="stable")[:, :k]
    n = len(logprobs)
    ids = np.zeros(n, np.int32) if tokens is None else tokens
    return Scores(
        ids,
        logprobs[np.arange(n), ids].astype(np.float32),
        order.astype(np.int32),
        np.take_along_axis(logprobs, order, 1).astype(np.float32),
    )


def log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def exact_kl(p: Array, q: Array) -> Array:
    return np.asarray((np.exp(p) * (p - q)).sum(axis=1))


def draw(seed: int, n: int = 4, vocabulary: int = 24) -> tuple[Array, Array]:
    """Two next-token distributions at n positions: from nearly equal to unrelated, from flat to sharp."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=rng.uniform(0.1, 6), size=(n, vocabulary))
    noise = rng.normal(scale=10 ** rng.uniform(-3, 0.7), size=(n, vocabulary))
    return log_softmax(logits), log_softmax(logits + noise)


SEEDS = st.integers(0, 2**32)


@given(SEEDS)
def test_with_the_whole_vocabulary_the_lower_bound_is_the_kl(seed: int) -> None:
    p, q = draw(seed)
    found = compare(top(p, 24), top(q, 24))
    assert found.kl_lower == pytest.approx(exact_kl(p, q), rel=1e-4, abs=2e-5)
    assert found.captured == pytest.approx(1.0, abs=1e-5)


@given(SEEDS, st.integers(1, 23))
@example(30, 23)  # rounding made the bound too high by 5e-4 here
@settings(max_examples=300)
def test_with_the_likeliest_tokens_the_lower_bound_never_exceeds_the_kl(seed: int, k: int) -> None:
    p, q = draw(seed)
    found = compare(top(p, k), top(q, k))
    assert (found.kl_lower <= exact_kl(p, q) + 2e-5 + 1e-4 * found.kl_lower).all()
    assert (found.kl_lower >= 0).all() and (found.kl_upper >= found.kl_lower).all()
    assert (found.captured >= 0).all() and (found.captured <= 1).all()


def test_a_mass_lost_to_rounding_is_no_proof() -> None:
    # q leaves 1e-9 outside the list: in float32 that is anything between nothing and 1e-7.
    rest = 1e-9
    p, q = np.log([[0.5, 0.4, 0.05, 0.05]]), np.log([[0.5, 0.5 - 2 * rest, rest, rest]])
    found = compare(top(p, 2), top(q, 2))
    assert 0.1 * np.log(0.1 / 1e-4) < found.kl_lower[0] < exact_kl(p, q)[0]
    assert found.kl_lower[0] < 0.4 * np.log(0.4 / 0.5) + 0.1 * np.log(0.1 / 1e-5) + 1e-3


@given(SEEDS, st.integers(1, 22))
def test_longer_lists_never_prove_less(seed: int, k: int) -> None:
    p, q = draw(seed)
    shorter, longer = compare(top(p, k), top(q, k)), compare(top(p, k + 1), top(q, k + 1))
    assert (longer.captured >= shorter.captured - 1e-6).all()


def test_the_upper_bound_holds_where_its_assumption_does() -> None:
    held = 0
    for seed in range(400):
        k = 2 + seed % 12
        p, q = draw(seed)
        upper, exact = compare(top(p, k), top(q, k)).kl_upper, exact_kl(p, q)
        for row in range(len(p)):
            mine, others = np.argsort(-p[row])[:k], np.argsort(-q[row])[:k]
            shared = np.intersect1d(mine, others)
            outside = np.setdiff1d(np.arange(p.shape[1]), shared)
            left_out = np.setdiff1d(mine, others)
            known = [*(p - q)[row, shared], *(p[row, left_out] - q[row, others].min())]
            if (p - q)[row, outside].max() <= max(known):
                held += 1
                assert upper[row] >= exact[row] - 2e-5
    assert held > 200


def test_one_bucket_by_hand() -> None:
    # p = (0.7, 0.2, 0.1), q = (0.5, 0.1, 0.4); lists of two: p's {0, 1}, q's {0, 2}. Shared: 0.
    p, q = np.log([[0.7, 0.2, 0.1]]), np.log([[0.5, 0.1, 0.4]])
    found = compare(top(p, 2), top(q, 2))
    assert found.kl_lower[0] == pytest.approx(0.7 * np.log(0.7 / 0.5) + 0.3 * np.log(0.3 / 0.5), abs=1e-5)
    assert found.kl_upper[0] == pytest.approx(0.7 * np.log(0.7 / 0.5) + 0.3 * np.log(0.7 / 0.5), abs=1e-6)
    assert found.captured[0] == pytest.approx(0.7, abs=1e-6)


def test_a_token_that_the_candidate_left_out_is_at_least_as_bad_as_its_last_one() -> None:
    # Lists of two: p's {0, 1}, q's {0, 2}. Token 1 has 0.3 of p and at most 0.14 of q; all else is equal in sum.
    p, q = np.log([[0.4, 0.3, *[0.3 / 8] * 8]]), np.log([[0.4, 0.01, 0.14, *[0.45 / 7] * 7]])
    found = compare(top(p, 2), top(q, 2))
    assert found.kl_lower[0] == pytest.approx(0, abs=1e-6)
    assert found.kl_upper[0] == pytest.approx(0.6 * np.log(0.3 / 0.14), abs=1e-6)


@given(SEEDS, st.integers(1, 24))
def test_a_model_does_not_diverge_from_itself(seed: int, k: int) -> None:
    p, _ = draw(seed)
    found = compare(top(p, k), top(p, k))
    assert found.kl_lower == pytest.approx(0, abs=1e-6) and found.kl_upper == pytest.approx(0, abs=1e-6)
    assert not found.flips.any() and not found.confident_flips.any()


def test_lists_without_a_common_token_prove_what_they_can() -> None:
    p, q = np.log([[0.97, 0.01, 0.01, 0.01]]), np.log([[0.01, 0.01, 0.01, 0.97]])
    found = compare(top(p, 1), top(q, 1))
    assert found.captured[0] == 0 and found.flips[0] and found.confident_flips[0]
    assert 0 <= found.kl_lower[0] <= exact_kl(p, q)[0] and np.isfinite(found.kl_upper[0])


def test_a_flip_is_another_likeliest_token_and_counts_as_confident_when_the_reference_was_sure() -> None:
    p = np.log([[0.95, 0.04, 0.01], [0.5, 0.4, 0.1], [0.95, 0.04, 0.01], [0.5, 0.4, 0.1]])
    q = np.log([[0.90, 0.09, 0.01], [0.4, 0.5, 0.1], [0.04, 0.95, 0.01], [0.6, 0.3, 0.1]])
    assert 0.5 < CONFIDENT < 0.95
    found = compare(top(p, 2), top(q, 2))
    assert found.flips.tolist() == [False, True, True, False]
    assert found.confident_flips.tolist() == [False, False, True, False]
    totals = found.totals()
    assert (totals["positions"], totals["flips"], totals["confident_flips"]) == (4.0, 2.0, 1.0)
    assert totals["kl_lower_sum"] == pytest.approx(found.kl_lower.sum())
    assert totals["kl_lower_sum"] <= totals["kl_upper_sum"]


def test_other_tokens_are_not_compared() -> None:
    p, q = draw(1)
    with pytest.raises(ValueError, match="scored different tokens"):
        compare(top(p, 4), top(q, 4, np.array([0, 0, 0, 1], np.int32)))


# -- parquet -------------------------------------------------------------------------------------------------


def assert_same(one: Scores, other: Scores) -> None:
    for name in ("token_ids", "logprobs", "top_ids", "top_logprobs"):
        a, b = getattr(one, name), getattr(other, name)
        assert a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b), name


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 3), (2000, 64)])
def test_scores_are_read_back_bit_for_bit(tmp_path: Path, n: int, k: int) -> None:
    rng = np.random.default_rng(0)
    scores = top(log_softmax(rng.normal(size=(n, 80))), k, rng.integers(0, 80, n).astype(np.int32))
    path = tmp_path / "deep" / "x.reference.parquet"
    write_scores(path, [5, 0, 151_000], scores)
    prompt_ids, found = read_scores(path)
    assert prompt_ids == [5, 0, 151_000]
    assert_same(found, scores)
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def write_plain(path: Path) -> None:
    pq.write_table(pa.table({"token_id": [1]}), path)


def write_other_lists(path: Path) -> None:
    columns = {"token_id": [1], "logprob": [0.5], "top_ids": [3], "top_logprobs": [0.5]}
    pq.write_table(pa.table(columns).replace_schema_metadata({"prompt_ids": "[1]"}), path)


def write_cut(path: Path) -> None:
    write_scores(path, [1], top(draw(1)[0], 4))
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: None,
        lambda p: p.write_bytes(b""),
        lambda p: p.write_bytes(b"PAR1 and then nothing"),
        lambda p: p.mkdir(),
        write_plain,
        write_other_lists,
        write_cut,
    ],
)
def test_what_is_no_trajectory_is_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "x.reference.parquet"
    damage(path)
    with pytest.raises(BadInput, match=r"x\.reference\.parquet: not a stored trajectory"):
        read_scores(path)


# -- the suite -----------------------------------------------------------------------------------------------

K, VOCABULARY = 4, 24
PROMPT, ANSWER = [3, 1, 4], [1, 5, 9, 2, 6]


class Model:
    """A server's next-token distributions along PROMPT + ANSWER."""

    def __init__(self, logprobs: Array) -> None:
        self.logprobs = logprobs  # [len(PROMPT) + len(ANSWER), V]; row i is of the token at position i

    def __call__(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/chat/completions"):
            return chat_reply("text", prompt_ids=PROMPT, token_ids=ANSWER, completion_tokens=len(ANSWER))
        entries: list[Any] = [None]
        for row, token in zip(self.logprobs[1:], body["prompt"][1:], strict=True):
            kept = {*np.argsort(-row)[: body["prompt_logprobs"]].tolist(), token}
            entries.append({str(i): {"logprob": float(row[i]), "rank": 1} for i in kept})
        return score_reply(entries)


@pytest.fixture
def suite(tmp_path: Path) -> Divergence:
    config = DivergenceConfig(trajectories=1, max_tokens=16, top_logprobs=K)
    return Divergence(config, Sampling(max_tokens=99), tmp_path / "divergence")  # type: ignore[call-arg]


@pytest.fixture
def item() -> Item:
    return make_item("chat-en", "chat-en-01", [{"role": "user", "content": "Hello"}])


def test_both_roles_score_the_trajectory_of_the_reference(
    server: FakeServer, suite: Divergence, item: Item, tmp_path: Path
) -> None:
    p, q = draw(11, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    server.handler = Model(p)
    reference = ask(server.url, lambda e: suite.answer(item, "reference", e))
    chat, scored = server.posts
    assert chat[1]["max_tokens"] == 16 and chat[1]["messages"] == item.prompt
    assert scored[1]["prompt"] == PROMPT + ANSWER and scored[1]["prompt_logprobs"] == K
    assert reference.metrics == {"positions": 5.0, "looped": 0.0, "unterminated": 0.0}
    assert reference.score is None and reference.error is None

    server.handler = Model(q)
    candidate = ask(server.url, lambda e: suite.answer(item, "candidate", e))
    assert server.posts[2] == scored and len(server.posts) == 3  # the candidate writes nothing of its own
    assert candidate.answer == reference.answer  # the same trajectory
    assert (candidate.finish_reason, candidate.completion_tokens) == (None, None)
    assert candidate.prompt_sha256 == reference.prompt_sha256 == item.prompt_sha256

    tail = slice(len(PROMPT), None)
    tokens = np.array(ANSWER, np.int32)
    expected = compare(top(p[tail], K, tokens), top(q[tail], K, tokens))
    assert candidate.metrics == pytest.approx(expected.totals())
    assert candidate.metrics["kl_lower_sum"] <= exact_kl(p[tail], q[tail]).sum() + 1e-4
    for role, rows in (("reference", p), ("candidate", q)):
        prompt_ids, stored = read_scores(tmp_path / "divergence" / f"chat-en-01.{role}.parquet")
        assert prompt_ids == PROMPT
        assert stored.token_ids.tolist() == ANSWER
        assert stored.logprobs == pytest.approx(rows[tail][np.arange(5), tokens], abs=1e-5)


def test_an_identical_server_shows_no_divergence(server: FakeServer, suite: Divergence, item: Item) -> None:
    p, _ = draw(12, n=len(PROMPT) + len(ANSWER), vocabulary=VOCABULARY)
    server.handler = Model(p)
    ask(server.url, lambda e: suite.answer(item, "reference", e))
    metrics = ask(server.url, lambda e: suite.answer(item, "candidate", e)).metrics
    assert (metrics["positions"], metrics["flips"], metrics["confident_flips"]) == (5.0, 0.0, 0.0)
    assert metrics["kl_lower_sum"] == pytest.approx(0, abs=1e-5)
    assert metrics["kl_upper_sum"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("ids", [{"prompt_ids": []}, {"token_ids": []}])
def test_a_server_that_tells_no_ids_has_no_trajectory(
    server: FakeServer, suite: Divergence, item: Item, ids: dict[str, Any]
) -> None:
    server.script(chat_reply(**ids))
    with pytest.raises(EndpointError, match="does not return token ids"):
        ask(server.url, lambda e: suite.answer(item, "reference", e))


def test_without_the_references_trajectory_nothing_is_compared(
    server: FakeServer, suite: Divergence, item: Item
) -> None:
    with pytest.raises(BadInput, match="not a stored trajectory"):
        ask(server.url, lambda e: suite.answer(item, "candidate", e))
    assert server.posts == []


def test_the_shipped_prompts_are_all_different_and_speak_three_languages(tmp_path: Path) -> None:
    def items(count: int) -> list[Item]:
        config = DivergenceConfig(trajectories=count)  # type: ignore[call-arg]
        return list(Divergence(config, Sampling(), tmp_path).items(None))  # type: ignore[arg-type, call-arg]

    default = DivergenceConfig().trajectories  # type: ignore[call-arg]
    made = items(default)
    assert len(made) == default == len({item.item for item in made}) == len({item.prompt_sha256 for item in made})
    assert {item.task.split("-")[1] for item in made} == {"en", "ja", "zh"}
    assert {item.task.split("-")[0] for item in made} == {"chat", "reasoning", "code"}
    assert items(5) == made[:5]  # a shorter list is the beginning of a longer one
    assert len({item.task for item in items(16)}) >= 6  # and few prompts are already of many kinds
    with pytest.raises(BadInput, match="10000 trajectories asked"):
        items(10_000)


def test_the_suite_wants_the_reference_first(suite: Divergence) -> None:
    assert suite.reference_first and suite.context_needed > 16
