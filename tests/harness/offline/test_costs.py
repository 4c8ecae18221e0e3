"""`quantgate items`: the very bytes a gate run asks, what they cost, and a model that cannot be asked is one line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from offline_cases import NO_SYSTEM, POLICY, SEALED, TEMPLATE, save_model, tokens_of

from harness.checkpoint.tokenizer import load_tokenizer
from harness.contract.errors import BadInput
from harness.contract.items import read_items
from harness.contract.policy import parse_policy
from harness.contract.samples import Item
from harness.offline import costs
from harness.offline.costs import Cost, make_item_file, prompt_tokens, to_json
from harness.runs.folder import RunFolder
from harness.runs.progress import Reporter
from suites.base import made_items, make_item
from suites.registry import make_suites


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("suite", ["cot", "ruler", "divergence"])
def test_the_file_is_the_one_that_a_gate_run_stores(model: Path, tmp_path: Path, suite: str) -> None:
    from transformers import AutoTokenizer

    made = make_item_file(suite, str(model), SEALED, tmp_path / "mine" / "f.jsonl", Reporter())
    run = RunFolder(tmp_path / "run")
    (gates,) = (s for s in make_suites(SEALED.policy, run.path) if s.name == suite)
    sealed_into_the_run = run.write_items(suite, gates.items(AutoTokenizer.from_pretrained(model)))
    data = (tmp_path / "mine" / "f.jsonl").read_bytes()
    assert made.sha256 == sealed_into_the_run == hashlib.sha256(data).hexdigest()
    assert data == run.items_path(suite).read_bytes()


def test_the_cost_is_that_of_the_prompts_counted_by_hand(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.jsonl"
    made = make_item_file("ruler", str(model), SEALED, out, Reporter())
    prompts: dict[str, list[int]] = {}
    for item in read_items(out):
        prompts.setdefault(item.task, []).append(tokens_of(item.prompt))
    assert made.tasks == {task: Cost(len(n), sum(n), max(n), len(n) * 16) for task, n in prompts.items()}
    assert set(made.tasks) == {"niah_single_1@2048", "vt@2048"}
    every = [n for found in prompts.values() for n in found]
    assert made.one_role == Cost(6, sum(every), max(every), 6 * 16)
    assert made.both_roles == Cost(12, 2 * sum(every), max(every), 12 * 16)
    assert (made.suite, made.policy, made.policy_sha256) == ("ruler", "small", SEALED.sha256)


def test_json_says_all_of_it_in_ascii(model: Path, tmp_path: Path) -> None:
    made = make_item_file("ruler", str(model), SEALED, tmp_path / "日.jsonl", Reporter())
    text = to_json(made)
    found = json.loads(text)
    assert text.isascii() and found["sha256"] == made.sha256 and found["both_roles"]["items"] == 12
    assert found["tasks"]["vt@2048"]["most_answer_tokens"] == 3 * 16 and found["thinking_opened"] is False


def test_a_template_that_opens_the_thinking_is_told(tmp_path: Path) -> None:
    model = save_model(tmp_path / "m", TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}")
    assert make_item_file("cot", str(model), SEALED, tmp_path / "f.jsonl", Reporter()).thinking_opened


def test_tools_that_the_model_is_told_of_are_counted(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(save_model(tmp_path / "m", "{{ tools | tojson }}" + TEMPLATE), "M")
    messages = [{"role": "user", "content": "a"}]
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
    with_tools, without = make_item("t", "1", messages, tools=tools), make_item("t", "2", messages)
    assert prompt_tokens(tokenizer, without) == len("null") + tokens_of(messages)
    assert prompt_tokens(tokenizer, with_tools) == len(json.dumps(tools)) + tokens_of(messages)


class Broken:
    """A suite whose second item fails."""

    name = "ruler"
    max_tokens = 5

    def items(self, tokenizer: Any) -> Any:
        yield make_item("t", "1", [{"role": "user", "content": "a"}])
        raise BadInput("data is missing")


def test_a_file_is_whole_or_not_there(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "make_suite", lambda *_: Broken())
    out = tmp_path / "f.jsonl"
    with pytest.raises(BadInput, match="data is missing"):
        make_item_file("ruler", str(model), SEALED, out, Reporter())
    assert not out.exists()
    out.write_text("earlier", "utf-8")
    with pytest.raises(BadInput, match="data is missing"):
        make_item_file("ruler", str(model), SEALED, out, Reporter())
    assert out.read_text("utf-8") == "earlier"


class Server(Broken):
    """A suite that has no prompt and no budget: it measures the server alone."""

    max_tokens = None  # type: ignore[assignment]

    def items(self, tokenizer: Any) -> Any:
        yield Item(task="bytes", item="0", prompt=[], prompt_sha256="a")


def test_items_without_a_prompt_cost_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "make_suite", lambda *_: Server())
    made = make_item_file("footprint", str(model), SEALED, tmp_path / "f.jsonl", Reporter())
    assert made.tasks == {"bytes": Cost(1, 0, 0, None)} and made.both_roles == Cost(2, 0, 0, None)


class Lazy(Broken):
    """A suite whose items are only made when they are asked for."""

    def items(self, tokenizer: Any) -> Any:
        for i in range(5):
            alive.append(i)
            yield make_item("t", str(i), [{"role": "user", "content": "a"}])
            assert alive == [i], "an item was made before the one before it had been written"
            alive.clear()


alive: list[int] = []


def test_items_are_made_counted_and_written_one_at_a_time(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "make_suite", lambda *_: Lazy())
    assert make_item_file("ruler", str(model), SEALED, tmp_path / "f.jsonl", Reporter()).one_role.items == 5


# -- what cannot be asked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        ("needle", r"policy small names no suite 'needle'; it names cot, ruler, divergence$"),
        ("nosuch", r"policy small names no suite 'nosuch'; it names cot, ruler, divergence$"),
    ],
)
def test_a_suite_that_the_policy_does_not_name_is_refused(model: Path, tmp_path: Path, suite: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        make_item_file(suite, str(model), SEALED, tmp_path / "f.jsonl", Reporter())


def test_one_suite_of_a_policy_can_be_made_though_another_is_unknown(model: Path, tmp_path: Path) -> None:
    sealed = parse_policy(POLICY.replace("  divergence:", "  not_made_yet: {}\n  divergence:"))
    assert make_item_file("cot", str(model), sealed, tmp_path / "f.jsonl", Reporter()).one_role.items == 6
    with pytest.raises(BadInput, match="suite 'not_made_yet' is unknown; known: "):
        make_item_file("not_made_yet", str(model), sealed, tmp_path / "f.jsonl", Reporter())


def test_a_context_that_the_servers_cannot_hold_is_refused(model: Path, tmp_path: Path) -> None:
    sealed = parse_policy(POLICY.replace("max_model_len: 4096", "max_model_len: 2048"))
    with pytest.raises(BadInput, match=r"suite ruler needs 2064 tokens of context, serving.max_model_len is 2048"):
        make_item_file("ruler", str(model), sealed, tmp_path / "f.jsonl", Reporter())


def test_a_folder_is_no_file(model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is a folder; name a file"):
        make_item_file("cot", str(model), SEALED, tmp_path, Reporter())


def test_a_tokenizer_without_chat_template_is_one_line_that_names_the_model(tmp_path: Path) -> None:
    model = save_model(tmp_path / "base-model", None)
    with pytest.raises(
        BadInput, match=r"model .*base-model has no chat template, .*; give the instruct model"
    ) as found:
        make_item_file("cot", str(model), SEALED, tmp_path / "f.jsonl", Reporter())
    assert "\n" not in str(found.value) and not (tmp_path / "f.jsonl").exists()
    with pytest.raises(BadInput, match="model me/it has no chat template"):
        load_tokenizer(model, "me/it")


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}", "{{ raise_exception('\x1b[31mno\nuse') }}", "{{ 1 // 0 }}"]
)
def test_a_template_that_always_fails_is_one_printable_line(tmp_path: Path, template: str) -> None:
    with pytest.raises(BadInput, match="model M: its chat template fails: ") as found:
        load_tokenizer(save_model(tmp_path / "m", template), "M")
    assert str(found.value).isprintable()


def test_a_template_that_refuses_an_item_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Asks(Broken):
        def items(self, tokenizer: Any) -> Any:
            yield make_item("t", "1", [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])

    model = save_model(tmp_path / "m", NO_SYSTEM + TEMPLATE)
    monkeypatch.setattr(costs, "make_suite", lambda *_: Asks())
    with pytest.raises(BadInput, match=r"template of model .* refuses item t/1: no system  ?\[31mrole") as found:
        make_item_file("ruler", str(model), SEALED, tmp_path / "f.jsonl", Reporter())
    assert str(found.value).isprintable() and not (tmp_path / "f.jsonl").exists()


def test_a_template_that_refuses_while_items_are_made_names_the_suite(tmp_path: Path) -> None:
    class Counts(Broken):
        def items(self, tokenizer: Any) -> Any:
            tokenizer.apply_chat_template([{"role": "system", "content": "a"}])
            yield from ()

    tokenizer = load_tokenizer(save_model(tmp_path / "m", NO_SYSTEM + TEMPLATE), "M")
    with pytest.raises(BadInput, match="template of model M refuses an item of suite ruler: no system"):
        list(made_items(Counts(), tokenizer, "M"))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_broken_tokenizer_is_one_line(tmp_path: Path, name: str) -> None:
    model = save_model(tmp_path / "m")
    (model / name).write_text("{", "utf-8")
    with pytest.raises(BadInput, match="model M: its tokenizer cannot be read: ") as found:
        load_tokenizer(model, "M")
    assert str(found.value).isprintable()


def test_code_that_a_model_brings_is_never_run(tmp_path: Path) -> None:
    model = save_model(tmp_path / "m")
    config = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    config |= {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}}
    (model / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (model / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: pass\n", "utf-8")
    try:
        load_tokenizer(model, "M")
    except BadInput as error:
        assert "its tokenizer cannot be read" in str(error)
    assert not (tmp_path / "ran").exists()
