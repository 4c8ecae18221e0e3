"""Speed: loads that are the same for both roles, a benchmark that is not believed, and counters that stay true."""

import asyncio
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import bench_stub
import psutil
import pytest
from fake_server import FakeServer, FakeVllm, Reply, ask
from verdict_samples import decided, measured

from harness.contract.errors import BadInput
from harness.contract.samples import Item, Sample
from harness.contract.settings import Requests, Sampling
from harness.endpoint.client import Asked, Endpoint, EndpointError
from harness.judging.resampling import ratio_interval
from harness.parity.steadiness import read_after, read_counters
from suites import speed
from suites.speed import METRICS, Load, Speed, SpeedConfig, bench_arguments, read_figures

SMALL = {"concurrency": (2,), "rounds": 1, "waves": 4, "warmups": 3, "input_tokens": 100, "output_tokens": 20}


def suite(folder: Path = Path("unused"), **config: Any) -> Speed:
    return Speed(SpeedConfig(**config), Sampling(), folder)


def items(**config: Any) -> list[Item]:
    return list(suite(**config).items(None))


class Stubbed:
    """A server, and a benchmark that does as it is told."""

    def __init__(self, server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.folder, self._patch = server, folder, monkeypatch
        self.vllm = FakeVllm()
        self.asked = Asked()
        server.handler = self.vllm
        monkeypatch.setattr(speed, "MODULE", bench_stub.__name__)
        monkeypatch.setattr(speed, "IMPORTS", ["--help"])
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(bench_stub.__file__).parent), *sys.path]))
        self.do()

    def do(self, **how: Any) -> None:
        self._patch.setattr(speed, "BENCH", [json.dumps(how)])

    def endpoint_ready(self, endpoint: Endpoint) -> None:
        endpoint.tokenizer_path = "/models/a"
        endpoint.asked = self.asked

    def answer(self, how: dict[str, Any] | None = None, **config: Any) -> Sample:
        self.do(**how or {})
        made = suite(self.folder, **SMALL | config)
        (item,) = made.items(None)

        async def run(endpoint: Endpoint) -> Sample:
            self.endpoint_ready(endpoint)
            try:
                return await made.answer(item, "candidate", endpoint)
            finally:
                await made.end()

        return ask(self.server.url, run)

    def seen(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "seen.json").read_text()))


@pytest.fixture
def bench(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stubbed:
    return Stubbed(server, tmp_path / "speed", monkeypatch)


# -- what is asked -----------------------------------------------------------------------------------------------


def test_an_item_is_a_round_of_one_concurrency() -> None:
    found = items()
    assert len(found) == 45 and {item.task for item in found} == {"c1", "c8", "c32"}
    assert [item.item for item in found if item.task == "c8"] == [f"r{i:02d}" for i in range(15)]
    load = Load(**next(item.data for item in found if item.task == "c8"))
    assert (load.concurrency, load.requests, load.input_tokens, load.output_tokens) == (8, 32, 512, 128)
    assert Speed.alternates and suite().context_needed >= 640


def test_items_stay_what_they_are() -> None:
    everything = {(item.task, item.item): item for item in items()}
    for fewer in (items(limit=2), items(rounds=3), items(concurrency=(32,)), items(concurrency=(8, 1))):
        assert fewer and all(everything[item.task, item.item] == item for item in fewer)
    assert len(items(limit=2)) == 6 and len(items(rounds=1, limit=9)) == 3
    assert items(seed=43)[0].prompt_sha256 != items()[0].prompt_sha256
    assert items(output_tokens=64)[0].prompt_sha256 != items()[0].prompt_sha256


@pytest.mark.parametrize("broken", [(), (1, 1), (0,), (-4, 2), (4097,)])
def test_numbers_of_requests_that_cannot_be_are_refused(broken: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="concurrency"):
        SpeedConfig(concurrency=broken)


def test_without_vllm_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    suite().require()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="vLLM is not installed here"):
        suite().require()


LOAD = Load(8, 32, 2, 512, 128, 7)


def command_of(sampling: Sampling, tokenizer: str = "/models/a", load: Load = LOAD) -> dict[str, str]:
    endpoint = Endpoint("http://127.0.0.1:9/", "quantgate", Requests(), sampling)
    endpoint.tokenizer_path = tokenizer
    flags = bench_arguments(load, endpoint, Path("runs/speed/c8-r00.candidate.json"))
    return dict(flag.removeprefix("--").split("=", 1) for flag in flags if flag.startswith("--") and "=" in flag)


def test_the_benchmark_is_told_the_load_and_the_policys_sampling() -> None:
    found = command_of(Sampling(temperature=0.6, top_p=0.95, max_tokens=9999))
    expected = {"base-url": "http://127.0.0.1:9", "model": "quantgate", "tokenizer": "/models/a", "seed": "7"}
    expected |= {"max-concurrency": "8", "num-prompts": "32", "num-warmups": "2", "random-output-len": "128"}
    assert {name: found[name] for name in expected} == expected
    body = json.loads(found["extra-body"])
    assert (body["temperature"], body["top_p"]) == (0.6, 0.95) and not {"seed", "max_tokens"} & body.keys()


def test_no_two_measurements_of_a_server_have_the_same_prompts() -> None:
    """A second one would find them in the prefix cache: rounds, concurrencies and the noise floor's other seed."""
    loads = [Load(**item.data) for item in items(rounds=4, concurrency=(1, 8, 4096))]
    seeds = {command_of(Sampling(seed=seed), load=load)["seed"] for load in loads for seed in (0, 1)}
    assert len(seeds) == 2 * len(loads) and all(0 <= int(seed) < 2**32 for seed in seeds)
    assert 0 <= int(command_of(Sampling(seed=-8))["seed"]) < 2**32  # numpy takes no negative one


def test_prompts_need_a_tokenizer() -> None:
    with pytest.raises(BadInput, match="tokenizer"):
        command_of(Sampling(), tokenizer="")


# -- what comes back ---------------------------------------------------------------------------------------------


def test_a_sample_has_the_benchmarks_figures(bench: Stubbed) -> None:
    sample = bench.answer()
    assert sample.metrics == {
        "tokens_per_second": 40.0,
        "total_tokens_per_second": 240.0,
        "requests_per_second": 2.0,
        "ttft_p50_ms": 90.5,
        "ttft_p99_ms": 180.25,
        "tpot_p50_ms": 26.5,
        "completed": 8.0,
        "failed": 0.0,
        "input_tokens": 800.0,
        "output_tokens": 160.0,
    }
    assert (sample.task, sample.item, sample.score, sample.error) == ("c2", "r00", None, None)
    assert (bench.folder / "c2-r00.candidate.json").exists() and "ready" in (bench.folder / "bench.log").read_text()


def test_the_child_asks_no_proxy_and_shows_no_key(bench: Stubbed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    bench.answer()
    environment = bench.seen()["env"]
    assert (environment["NO_PROXY"], environment["no_proxy"], environment["OPENAI_API_KEY"]) == ("*", "*", "none")


@pytest.mark.parametrize("name", sorted(METRICS.values()))
@pytest.mark.parametrize(
    "value", [None, "12.5", True, -1.0, float("nan"), float("inf"), 10**400, [3], {"a": 1}, "<b>" * 1000]
)
def test_a_figure_that_is_none_is_garbage(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(bench_stub.good_result(8, 100, 20) | {name: value}))
    with pytest.raises(EndpointError, match=f"^garbage: r.json: {name} is") as error:
        read_figures(path)
    assert len(str(error.value)) < 320


@pytest.mark.parametrize(
    "raw", ["", "{", "[]", "null", "7", '{"completed": 8}', "[" * 100_000, '{"completed": "\ud800"}']
)
def test_a_file_that_is_no_result_is_garbage(tmp_path: Path, raw: str) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(raw.encode("utf-8", "surrogatepass"))
    with pytest.raises(EndpointError, match=r"^garbage"):
        read_figures(path)
    with pytest.raises(EndpointError, match=r"^garbage"):
        read_figures(tmp_path / "none.json")


def test_an_old_result_is_never_taken_for_a_new_one(bench: Stubbed) -> None:
    bench.answer()
    with pytest.raises(EndpointError, match=r"^garbage"):
        bench.answer({"raw": ""})
    with pytest.raises(EndpointError, match=r"^server"):
        bench.answer({"exit": 3})
    assert not (bench.folder / "c2-r00.candidate.json").exists()


def test_a_failing_benchmark_says_why(bench: Stubbed) -> None:
    bench.answer({"says": "ValueError: of an earlier run"})
    noise = "Traceback (most recent call last):\nOSError: no such tokenizer\nnanobind: leaked 4 instances!"
    with pytest.raises(EndpointError, match=r"^server: .* ended with 1: OSError: no such tokenizer"):
        bench.answer({"exit": 1, "says": noise})
    with pytest.raises(EndpointError, match="no reason given"):
        bench.answer({"exit": 1, "says": "bye"})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"completed": 7, "failed": 1}, "^server: .* answered 7 of 8 requests"),
        ({"completed": 9}, "^server: .* answered 9 of 8 requests"),
        ({"total_output_tokens": 100}, "^budget: .* wrote 100 tokens in 8 answers of 20"),
    ],
)
def test_a_measurement_of_something_else_is_an_error(bench: Stubbed, result: dict[str, Any], message: str) -> None:
    with pytest.raises(EndpointError, match=message):
        bench.answer({"result": result})


def test_prompts_that_the_server_knew_are_refused(bench: Stubbed) -> None:
    hits = iter([1000.0, 1000.0 + 3 * 100 + 80, 5000.0, 5000.0 + 3 * 100 + 81])

    def serve(path: str, body: dict[str, Any]) -> Any:
        if path != "/metrics":
            return bench.vllm(path, body)
        return Reply(f"vllm:prefix_cache_hits_total {next(hits)}\n".encode(), headers={"content-type": "text/plain"})

    bench.server.handler = serve
    assert bench.answer().metrics["cached_tokens"] == 380.0  # three warm-ups, and a tenth of the eight prompts
    with pytest.raises(EndpointError, match=r"^refused: 381 prompt tokens .* came out of the prefix cache"):
        bench.answer()


# -- counters and children ---------------------------------------------------------------------------------------


def test_the_benchmarks_requests_are_counted_as_ours(bench: Stubbed) -> None:
    """As test_steadiness.py does it: what the server has counted is what the endpoint says it asked."""

    async def before_and_after(endpoint: Endpoint) -> dict[str, str]:
        bench.endpoint_ready(endpoint)
        before = await read_counters(endpoint)
        await asyncio.to_thread(bench.answer)
        bench.vllm.requests += 8 + 3
        bench.vllm.budget += (8 + 3) * 20
        await endpoint.chat([{"role": "user", "content": "Hi"}], 48)
        return await read_after(endpoint, before)

    found = ask(bench.server.url, before_and_after)
    assert found["run.budget"] == f"arrives as asked ({11 * 20 + 48} tokens in 12 requests)"
    assert bench.asked.longest == 120


def test_requests_of_a_failed_measurement_are_counted_too(bench: Stubbed) -> None:
    with pytest.raises(EndpointError, match="answered 7 of 8"):
        bench.answer({"result": {"completed": 7, "failed": 1, "total_output_tokens": 140}})
    assert (bench.asked.requests, bench.asked.budget) == (10, 200)


@pytest.mark.slow
def test_a_benchmark_that_hangs_is_ended(bench: Stubbed) -> None:
    with pytest.raises(EndpointError, match=r"^timeout: .* took more than 1 s"):
        bench.answer({"sleeps": 60}, timeout_seconds=1.0)
    assert not psutil.pid_exists(bench.seen()["pid"])


def test_measurements_share_what_was_imported_and_nothing_else(bench: Stubbed) -> None:
    made = suite(bench.folder, **SMALL | {"rounds": 2})

    async def both(endpoint: Endpoint) -> list[dict[str, Any]]:
        bench.endpoint_ready(endpoint)
        found = []
        for item in made.items(None):
            await made.answer(item, "candidate", endpoint)
            found.append(bench.seen())
        await made.end()
        return found

    first, second = ask(bench.server.url, both)
    assert first["parent"] == second["parent"] != os.getpid() and first["pid"] != second["pid"]
    assert not psutil.pid_exists(first["parent"])


def test_a_cancelled_measurement_leaves_no_child(bench: Stubbed) -> None:
    bench.do(sleeps=60)
    made = suite(bench.folder, **SMALL)
    (item,) = made.items(None)

    async def cancel(endpoint: Endpoint) -> None:
        bench.endpoint_ready(endpoint)
        task = asyncio.create_task(made.answer(item, "candidate", endpoint))
        while not (bench.folder / "seen.json").exists():
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    ask(bench.server.url, cancel)
    assert not any(psutil.pid_exists(bench.seen()[who]) for who in ("pid", "parent"))


# -- the check ---------------------------------------------------------------------------------------------------


def test_the_default_rounds_can_decide() -> None:
    """A candidate exactly as fast: what the docstring of `rounds` says that n pairs can show."""
    for n, margin in ((8, 0.68), (15, 0.8), (30, 0.9)):
        assert margin < ratio_interval([50.0] * n, [50.0] * n).lower < margin + 0.03
    rows = [({"tokens_per_second": 50.0 + i % 3}, {"tokens_per_second": 50.5 + i % 2}) for i in range(15)]
    samples = measured(rows, "speed/c8")
    assert len(rows) == SpeedConfig().rounds
    assert decided({"metric": "speed_ratio", "on": "speed", "min": 0.8}, samples).verdict == "PASS"
    slow = measured([(fast, {"tokens_per_second": 30.0}) for fast, _ in rows], "speed/c8")
    assert decided({"metric": "speed_ratio", "on": "speed", "min": 0.8}, slow).verdict == "FAIL"
    near = measured([(fast, {"tokens_per_second": 30.0 + i * 2}) for i, (fast, _) in enumerate(rows)], "speed/c8")
    undecided = decided({"metric": "speed_ratio", "on": "speed", "min": 0.8}, near)
    assert undecided.verdict == "INCONCLUSIVE" and "measurements" in undecided.reason
