"""Groups of lm-eval: which tasks are judged together, and over what their mean is taken."""

from typing import Any

import pytest

from harness.offline.lm_eval_groups import KNOWN, Group, find_groups


def results(
    groups: dict[str, list[str]], sizes: dict[str, tuple[float, int]], numbers: dict[str, Any]
) -> dict[str, Any]:
    return {
        "group_subtasks": groups,
        "groups": {name: {"alias": name, "sample_len": 7, "acc_stderr,none": 0.01} | v for name, v in numbers.items()},
        "results": {task: {"acc,none": value} for task, (value, _) in sizes.items()} | numbers,
        "n-samples": {task: {"original": size, "effective": size} for task, (_, size) in sizes.items()},
    }


SIZES = {"a": (0.5, 100), "b": (0.9, 300), "c": (0.1, 100)}


@pytest.mark.parametrize(("number", "mean"), [(0.7 + 0.1 / 1, "items"), (0.7, "tasks"), (0.123, "items")])
def test_the_published_number_tells_what_it_is_a_mean_of(number: float, mean: str) -> None:
    found = find_groups([results({"g": ["a", "b"]}, SIZES, {"g": {"acc,none": number}})], "abc")
    assert found == [Group("g", frozenset("ab"), mean, ("acc",))]  # type: ignore[arg-type]


def test_the_outermost_group_is_judged_and_a_mere_list_is_none() -> None:
    numbers = {"mmlu": {"acc,none": 0.6}, "stem": {"acc,none": 0.8}}
    said = results({"all": ["mmlu", "c"], "mmlu": ["stem", "d"], "stem": ["a", "b"]}, SIZES, numbers)
    (group,) = find_groups([said], "abcd")
    assert (group.name, group.tasks) == ("mmlu", frozenset(("a", "b", "d")))
    assert find_groups([said], "ac") == [] and find_groups([], "abcd") == []


def test_a_task_is_in_one_group_and_of_one_nothing_is_pooled() -> None:
    said = results({"g": ["a", "b", "c"], "h": ["c", "d"]}, SIZES, {"g": {"acc,none": 0.6}, "h": {"acc,none": 0.5}})
    assert [(g.name, sorted(g.tasks)) for g in find_groups([said, said], "abcd")] == [("g", ["a", "b", "c"])]


@pytest.mark.parametrize(
    "change",
    [
        {"group_subtasks": {"g": ["g", "a", 7, None]}, "groups": {"g": {"acc,none": 1}}},
        {"group_subtasks": {"g": ["h"], "h": ["g"]}, "groups": {"g": {"acc,none": 1}}},
        {"group_subtasks": [], "groups": {"g": {"acc,none": 1}}},
        {"group_subtasks": {"../g": ["a", "b"]}, "groups": {"../g": {"acc,none": 1}}},
        {"group_subtasks": {"g": ["a", "b"]}, "groups": {"g": {"acc,none": float("nan")}}},
        {"group_subtasks": {"g": ["a", "b"]}, "groups": {"g": 7}},
    ],
)
def test_hostile_groups_are_none(change: dict[str, Any]) -> None:
    assert find_groups([change], "ab") == []


def test_the_reference_says_the_mean_before_the_candidate_does() -> None:
    same = {"a": (0.5, 100), "b": (0.5, 300)}
    of_reference = results({"g": ["a", "b"]}, same, {"g": {"acc,none": 0.5}})
    of_candidate = results({"g": ["a", "b"]}, SIZES, {"g": {"acc,none": 0.7}})
    assert find_groups([of_reference, of_candidate], "ab")[0].mean == "tasks"  # the reference's number fits both
    known = results({"g": ["a", "b"]}, SIZES, {"g": {"acc,none": 0.8}})
    assert find_groups([known, of_candidate], "ab")[0].mean == "items"


def test_without_results_the_names_tell() -> None:
    mmlu = ["mmlu_anatomy", "mmlu_professional_law", "mmlu_prehistory", "mmlu_pro_law", "mmlu_pro_math", "gsm8k"]
    found = {group.name: sorted(group.tasks) for group in find_groups([], mmlu)}
    assert found == {"mmlu": sorted(mmlu[:3]), "mmlu_pro": sorted(mmlu[3:5])}
    (ruler,) = find_groups([], ["niah_single_1", "ruler_vt", "hellaswag"])
    assert (ruler.name, ruler.mean) == ("ruler", "tasks")


def test_known_groups_are_those_of_lm_eval() -> None:
    """The table against the task files that are installed: name, tasks and mean."""
    import importlib.util
    import re
    from pathlib import Path

    from ruamel.yaml import YAML

    spec = importlib.util.find_spec("lm_eval")
    assert spec and spec.origin
    tasks = Path(spec.origin).parent / "tasks"
    places = {"mmlu": "mmlu/default/_mmlu.yaml", "mmlu_pro": "mmlu_pro/_mmlu_pro.yaml", "ruler": "ruler/ruler.yaml"}
    places |= {"leaderboard": "leaderboard/leaderboard.yaml", "blimp": "blimp/_blimp.yaml"}
    known = {name: (pattern, mean) for name, pattern, mean in KNOWN}
    for name, place in places.items():
        made = YAML(typ="safe", pure=True).load((tasks / place).read_text("utf-8"))
        assert made["group"] == name
        macro = {entry["weight_by_size"] for entry in made["aggregate_metric_list"]} == {False}
        assert known[name][1] == ("tasks" if macro else "items")
        for task in made["task"] if name != "mmlu" else ("mmlu_anatomy",):
            assert re.fullmatch(known[name][0], task), task
