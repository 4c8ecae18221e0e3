"""Which of lm-eval's files are read: layouts, packed and older files, and what is ambiguous or broken."""

import gzip
import json
import shutil
from pathlib import Path

import pytest
from foreign_results import FINE, STAMP, Record, older, records, summary, write

from harness.contract.errors import BadInput
from harness.offline import results
from harness.offline.lm_eval_files import Folder, has_lm_eval_files
from harness.offline.lm_eval_files import records as read
from harness.offline.lm_eval_samples import read_lm_eval

NAME = f"samples_{{}}_{STAMP}.jsonl"


def lay(path: Path, rows: list[Record] = FINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    "layout", ["org__m/{}", "{task}/org__m/{}", "{task}/{}", "{}", "deep/{task}/org__m/{}", "0shot/org__m/{}"]
)
def test_layouts_that_people_have(tmp_path: Path, layout: str) -> None:
    for task in ("gsm8k", "mmlu_anatomy"):
        lay(tmp_path / layout.format(NAME.format(task), task=task))
    assert has_lm_eval_files(tmp_path)
    folder = Folder(tmp_path)
    assert {task: file.task for task, file in folder.samples.items()} == {
        "gsm8k": "gsm8k",
        "mmlu_anatomy": "mmlu_anatomy",
    }
    assert folder.results("gsm8k") == {} and folder.results_path("gsm8k") is None


def test_each_call_has_its_own_results(tmp_path: Path) -> None:
    for task, model in (("gsm8k", "org/m"), ("aime", "org/m")):
        lay(tmp_path / task / "x" / NAME.format(task))
        summary(tmp_path, task, "x", model_name=model, of=task)
    folder = Folder(tmp_path)
    assert [folder.results(task)["of"] for task in ("gsm8k", "aime")] == ["gsm8k", "aime"]
    assert len(folder.summaries) == 2
    summary(tmp_path, "aime", "x", model_name="org/other")
    with pytest.raises(BadInput, match=r"two models, \S*aime/x and \S*gsm8k/x \('org/other' and 'org/m'\): name one"):
        Folder(tmp_path)


def test_two_models_are_ambiguous_also_where_one_of_them_has_no_results(tmp_path: Path) -> None:
    lay(tmp_path / "org__a" / NAME.format("gsm8k"))
    summary(tmp_path, "org__a", model_name="org/a")
    lay(tmp_path / "org__b" / NAME.format("aime"))
    with pytest.raises(BadInput, match=r"two models, \S*org__a and \S*org__b: name one"):
        Folder(tmp_path)


def test_two_runs_of_a_task_in_two_folders_are_named(tmp_path: Path) -> None:
    for name in ("monday", "tuesday"):
        lay(tmp_path / name / "org__m" / NAME.format("gsm8k"))
    with pytest.raises(
        BadInput, match=r"two runs of gsm8k, monday/org__m/\S+ and tuesday/\S+: keep one, or name one's"
    ):
        Folder(tmp_path)


def test_hidden_folders_and_other_files_are_passed_over(tmp_path: Path) -> None:
    lay(tmp_path / ".cache" / NAME.format("gsm8k"))
    (tmp_path / "notes.md").write_text("x")
    assert not has_lm_eval_files(tmp_path)
    with pytest.raises(BadInput, match="--log_samples"):
        Folder(tmp_path)


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "json.gz", "lines.json"])
def test_packed_and_older_files_are_the_same_samples(tmp_path: Path, form: str) -> None:
    """An array with lists and without hashes, as in 2024, beside lines of today: pairs are made by equal hashes."""
    rows = [row | {"doc": {"question": f"question {row['doc_id']}"}} for row in records([1, 0, 1])]
    plain = write(tmp_path / "r", [_hashed(row) for row in rows])
    packed = form.endswith(".gz")
    kept = older(rows) if "json" in form and "jsonl" not in form else [_hashed(row) for row in rows]
    text = json.dumps(kept, indent=2) if form.startswith("json") and "jsonl" not in form else _lines(kept)
    path = tmp_path / "c" / f"samples_gsm8k_{STAMP}.{form.removeprefix('lines.')}"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    found = read_lm_eval(plain, tmp_path / "c")
    assert [s.score for s in found.samples] == [1, 0, 1] * 2
    one, other = found.samples[:3], found.samples[3:]
    assert [(s.item, s.prompt_sha256) for s in one] == [(s.item, s.prompt_sha256) for s in other]


@pytest.mark.parametrize("model", ["pretrained__org__m-1.1,dtype__float", "pretrained=org__m_easy,dtype=float"])
@pytest.mark.parametrize("packed", [False, True])
def test_names_of_0_4_0_to_0_4_2_end_in_their_task(tmp_path: Path, model: str, packed: bool) -> None:
    rows = [row | {"doc": {"question": f"question {row['doc_id']}"}} for row in records([1, 0, 1])]
    plain = write(tmp_path / "r", [_hashed(row) for row in rows], task="arc_easy")
    write(tmp_path / "r", [_hashed(row) for row in rows], task="easy")
    for task in ("arc_easy", "easy"):
        text = json.dumps(older(rows), indent=2).encode()
        path = tmp_path / "c" / f"{model}_{task}.jsonl{'.gz' if packed else ''}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text) if packed else text)
    assert has_lm_eval_files(tmp_path / "c")
    with pytest.raises(BadInput, match="beside it names this task: put it there, or rename the file"):
        read_lm_eval(plain, tmp_path / "c")
    (tmp_path / "c" / "results.json").write_text(json.dumps({"configs": {"easy": {}, "arc_easy": {}}}))
    found = read_lm_eval(plain, tmp_path / "c")
    assert {(s.role, s.task, s.score) for s in found.samples} == {
        (role, f"{task} (exact_match)", score)
        for role in ("reference", "candidate")
        for task in ("easy", "arc_easy")
        for score in (0, 1)
    }


def _lines(rows: list[Record]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _hashed(row: Record) -> Record:
    """With the hashes that lm-eval makes of a record's own content."""
    from hashlib import sha256

    of = {
        "doc_hash": json.dumps(row["doc"], indent=2, ensure_ascii=False),
        "prompt_hash": row["arguments"]["gen_args_0"]["arg_0"],
        "target_hash": row["target"],
    }
    return row | {key: sha256(text.encode()).hexdigest() for key, text in of.items()}


def test_records_of_two_filters_without_their_names_are_two_filters(tmp_path: Path) -> None:
    sides = []
    for name, second in (("r", 0), ("c", 1)):
        path = tmp_path / name / "samples_gsm8k_2024-06-01T00-00-00.000001.json"
        path.parent.mkdir()
        path.write_text(json.dumps(older(records([1] * 4)) + older(records([second] * 4))))
        sides.append(path.parent)
    found = read_lm_eval(sides[0], sides[1])
    scores = {(s.task, s.role): s.score for s in found.samples}
    assert scores == {
        ("gsm8k (filter 1, exact_match)", "reference"): 1,
        ("gsm8k (filter 1, exact_match)", "candidate"): 1,
        ("gsm8k (filter 2, exact_match)", "reference"): 0,
        ("gsm8k (filter 2, exact_match)", "candidate"): 1,
    }


def test_a_long_array_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"n": i, "text": "\n é 厳密 ] , [" * (1 if i % 7 else 30_000)} for i in range(40)]
    path = tmp_path / "samples_x.json"
    path.write_text(json.dumps(rows, indent=2, ensure_ascii=False), "utf-8")
    assert [row for _, row in read(path)] == rows
    assert next(iter(read(path)))[0] == f"{path}: record 1"
    monkeypatch.setattr(results, "MAX_BYTES", 1000)
    path.write_text(json.dumps([{"text": "x" * 5_000_000}]))
    with pytest.raises(BadInput, match="record 1: longer than"):
        list(read(path))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'[{"a": 1}, {"a": ', "record 2: not JSON"),
        (b'[{"a": 1}, 7]', "record 2: expected an object, found int"),
        (b"[" * 100_000, "record 1: not JSON"),
        (b'[{"a": "\xff"}]', "record 1: not JSON"),
        (b'[{"a": 1}', "record 2: not JSON"),
    ],
)
def test_a_broken_array_is_named(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "samples_x.json"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=says):
        list(read(path))


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples_x.jsonl.gz"
    whole = gzip.compress(_lines(FINE).encode() * 50)
    for data in (whole[:-20], b"no archive", whole[:40] + b"\x00" * 30 + whole[70:], whole[:10]):
        path.write_bytes(data)
        with pytest.raises(BadInput, match=r"samples_x\.jsonl\.gz: cannot be unpacked"):
            list(read(path))


def test_a_bomb_is_refused_at_the_longest_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_BYTES", 2**20)
    path = tmp_path / "samples_x.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 2**24))
    with pytest.raises(BadInput, match=r":1: longer than 1 MiB"):
        list(read(path))


def test_a_results_file_that_is_broken_is_named(tmp_path: Path) -> None:
    write(tmp_path / "r", FINE)
    shutil.copytree(tmp_path / "r", tmp_path / "c")
    summary(tmp_path / "c").write_text("{")
    with pytest.raises(BadInput, match=rf"results_{STAMP}\.json: not JSON"):
        read_lm_eval(tmp_path / "r", tmp_path / "c")
