"""Two clients of one server: what they ask is counted together, what is known of the server is known to both."""

import asyncio

from fake_server import FakeServer, chat_reply

from harness.contract.settings import Requests, Sampling
from harness.endpoint.asked import Asked
from harness.endpoint.client import Endpoint

HELLO = [{"role": "user", "content": "Hello"}]


def test_a_client_with_another_seed_shares_what_is_counted_and_known(server: FakeServer) -> None:
    server.script(*[chat_reply(f"so </think> {n}") | {"system_fingerprint": f"f{n}"} for n in (1, 2)])

    async def both() -> tuple[Endpoint, Endpoint]:
        requests, sampling = Requests.model_validate({}), Sampling.model_validate({"max_tokens": 32, "seed": 7})
        one = Endpoint(
            server.url, "m", requests, sampling, thinking_opened=True, tokenizer_path="/t", fingerprints=["before"]
        )
        async with one, one.with_seed(8) as other:
            one.measured.update(bytes=15.0)
            await one.chat(HELLO)
            assert (await other.chat(HELLO)).text == "2"
            return one, other

    one, other = asyncio.run(both())
    assert [body["seed"] for _, body in server.posts] == [7, 8]
    assert one.asked == other.asked and (one.asked.requests, one.asked.budget) == (2, 64)
    assert one.fingerprints == other.fingerprints == {"before", "f1", "f2"}
    assert other.measured == {"bytes": 15.0} and other.tokenizer_path == "/t"


def test_what_a_benchmark_asked_is_added() -> None:
    asked = Asked(requests=3, budget=30, longest=50)
    asked.add(10, 200, 40)
    assert asked == Asked(13, 230, 50)
