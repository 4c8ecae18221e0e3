"""Flags out of /server_info: every setting that counts is a named fact, and nothing else is."""

import json
import math
from typing import Any

import pytest
from fake_server import server_info

from harness.parity.server_config import MOST_SETTINGS, READABLE, UNKNOWN, config_facts, served_quantization, short
from harness.parity.vllm_flags import FLAGS


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_settings_become_facts_by_section_and_name() -> None:
    assert config_facts(server_info()) == {
        "config": READABLE,
        "config.model.dtype": "torch.bfloat16",
        "config.model.seed": "0",
        "config.model.enforce_eager": "true",
        "config.cache.block_size": "16",
        "config.cache.kv_cache_memory_bytes": "1073741824",
        "config.parallel.tensor_parallel_size": "1",
        "config.parallel.eplb_config.window_size": "1000",
        "config.parallel.eplb_config.policy": "default",
        "config.scheduler.max_num_seqs": "16",
        "config.scheduler.max_num_batched_tokens": "2048",
        "config.compilation.custom_ops": '["all"]',
        "config.compilation.pass_config.eliminate_noops": "true",
        "config.optimization_level": "2",
        "env.VLLM_CPU_INT4_W4A8": "true",
    }


@pytest.mark.parametrize(
    "sections",
    [
        {"model_config": {"model": "/models/b", "tokenizer": "/models/b", "quantization": "compressed-tensors"}},
        {"model_config": {"served_model_name": "b", "hf_token": "hf_other", "tokenizer_revision": "main"}},
        {"quant_config": "<vllm.CompressedTensorsConfig object at 0x7ff788364e90>"},
        {"instance_id": "2"},
        {"cache_config": {"num_gpu_blocks": 400, "kv_cache_size_tokens": 51200, "kv_cache_max_concurrency": 12.5}},
        {"parallel_config": {"master_port": 1, "data_parallel_master_ip": "10.0.0.1", "rank": 3, "_coord_port": 7}},
        {"parallel_config": {"assigned_physical_gpu_ids": [1], "numa_bind_nodes": [1], "data_parallel_rank_local": 1}},
        {"compilation_config": {"custom_ops": ["all", "+quant_fp8"], "pass_config": {"eliminate_noops": True}}},
        {"compilation_config": {"cache_dir": "/tmp/x", "local_cache_dir": "/y", "compilation_time": 3.2}},
        {"observability_config": {"otlp_traces_endpoint": "http://x"}, "logging_config": {"log_level": "DEBUG"}},
        {"kv_transfer_config": {"engine_id": "f00", "kv_ip": "127.0.0.2", "kv_port": 1}},
    ],
)
def test_what_must_differ_between_two_servers_is_left_out(sections: dict[str, Any]) -> None:
    assert config_facts(server_info(**sections)) == config_facts(server_info())


@pytest.mark.parametrize(
    ("sections", "name", "value"),
    [
        ({"model_config": {"dtype": "torch.float16"}}, "config.model.dtype", "torch.float16"),
        ({"model_config": {"seed": 1}}, "config.model.seed", "1"),
        ({"model_config": {"hf_overrides": {"rope_theta": 1e6}}}, "config.model.hf_overrides.rope_theta", "1000000.0"),
        ({"cache_config": {"block_size": 32}}, "config.cache.block_size", "32"),
        ({"parallel_config": {"tensor_parallel_size": 2}}, "config.parallel.tensor_parallel_size", "2"),
        ({"scheduler_config": {"async_scheduling": True}}, "config.scheduler.async_scheduling", "true"),
        ({"attention_config": {"backend": "FLASHINFER"}}, "config.attention.backend", "FLASHINFER"),
        ({"a_new_section_config": {"level": 3}}, "config.a_new_section.level", "3"),
        ({"performance_mode": "throughput"}, "config.performance_mode", "throughput"),
        ({"speculative_config": {"method": "mtp"}}, "config.speculative.method", "mtp"),
    ],
)
def test_one_flag_that_differs_is_the_difference_found(sections: dict[str, Any], name: str, value: str) -> None:
    before, after = config_facts(server_info()), config_facts(server_info(**sections))
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == {name}
    assert after[name] == value


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_what_is_off_is_not_kept(value: Any) -> None:
    assert config_facts(server_info(lora_config={"x": value})) == config_facts(server_info())


def test_zero_is_a_value() -> None:
    assert config_facts(server_info(lora_config={"x": 0, "y": 0.0})).items() >= {
        ("config.lora.x", "0"),
        ("config.lora.y", "0.0"),
    }


def test_a_draft_that_lies_in_the_checkpoint_is_the_same_for_both_roles() -> None:
    def speculating(model: str, draft: str) -> dict[str, str]:
        target, runs_on = {"model": model, "seed": 0}, {"tensor_parallel_size": 1, "rank": 0}
        speculative = {
            **{"method": "mtp", "num_speculative_tokens": 2, "model": draft, "quantization": None},
            **{"target_model_config": target, "target_parallel_config": runs_on},
            **{"draft_model_config": target, "draft_parallel_config": runs_on, "draft_load_config": {"device": "x"}},
        }
        return config_facts(server_info(speculative_config=speculative, model_config={"model": model}))

    one = speculating("/models/a", "/models/a")
    assert {name: value for name, value in one.items() if name.startswith("config.speculative")} == {
        "config.speculative.method": "mtp",
        "config.speculative.num_speculative_tokens": "2",
        "config.speculative.model": "its own",
    }
    assert speculating("/models/b", "/models/b") == one
    assert speculating("/models/b", "/models/draft")["config.speculative.model"] == "/models/draft"


def test_addresses_of_python_objects_are_no_settings() -> None:
    one, other = (
        config_facts(server_info(model_config={"logits_processors": [f"<function f at 0x7ff788{i}64e90>"]}))
        for i in "12"
    )
    assert one == other and one["config.model.logits_processors"] == '["<function f>"]'


def test_long_values_become_hashes() -> None:
    found = config_facts(server_info(compilation_config={"splitting_ops": [f"vllm::attention_{i}" for i in range(9)]}))
    assert found["config.compilation.splitting_ops"].startswith("sha256 ")
    assert max(len(value) for value in found.values()) <= 80


@pytest.mark.parametrize(
    "info",
    [
        None,
        {},
        {"vllm_config": "model='/models/a', seed=0"},  # the text that vLLM gives without config_format=json
        {"vllm_config": None},
        {"vllm_config": []},
        {"vllm_config": {}},
        {"vllm_config": {"model_config": {f"a{i}": i + 1 for i in range(MOST_SETTINGS + 1)}}},
    ],
)
def test_what_is_no_configuration_is_not_readable(info: Any) -> None:
    assert config_facts(info) == {"config": UNKNOWN, **dict.fromkeys(FLAGS, UNKNOWN)}
    assert served_quantization(info) is None


@pytest.mark.parametrize(
    "config",
    [
        {"model_config": 7, "x": [1]},
        {"model_config": {"a b\n": 1, "<script>": 2}},
        {"model_config": {"a": {"b": {"c": {"d": {"e": "\x1b[2J"}}}}}},
        {"\n": 1, "é" * 500: 2},
        {"model_config": {"x": math.nan, "y": math.inf, "z": 10**400}},
        {"x_config": deep(500)},
        {"model_config": {"x": "\ud800" * 3, "y": "line\nline"}},
        {"model_config": {"x": [[[[]]]], "y": [None], "z": "y" * 10**6}},
    ],
)
def test_hostile_configurations_give_short_printable_facts(config: dict[str, Any]) -> None:
    found = config_facts({"vllm_config": config, "vllm_env": {"VLLM_MARLIN_\n": 1, "VLLM_MARLIN_A": "\n"}})
    for name, value in found.items():
        assert name.isprintable() and value.isprintable() and len(value) <= 80 and len(name) < 300
    json.dumps(found).encode("utf-8")


@pytest.mark.parametrize(("quantization", "expected"), [(None, None), ("", None), ("gptq_marlin", "gptq_marlin")])
def test_the_quantization_that_is_served(quantization: Any, expected: str | None) -> None:
    assert served_quantization(server_info(model_config={"quantization": quantization})) == expected


@pytest.mark.parametrize(
    ("value", "text"), [("a", "a"), ("", ""), (1, "1"), (0.95, "0.95"), (None, "null"), ("a\n", '"a\\n"'), ([1], "[1]")]
)
def test_short(value: Any, text: str) -> None:
    assert short(value) == text
