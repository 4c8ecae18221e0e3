"""GLM-5.2 as it is released, without its bytes: everything before the first weight is read fits a small machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hollow_checkpoint import released_shapes, write_hollow
from model_configs import GLM_5

PROGRAM = """
import json, sys
from pathlib import Path
from quantizers.checkpoint import fingerprint
from quantizers.mixed.groups import families, groups_of
from quantizers.modeling import build
from quantizers.plan import make_plan
from quantizers.recipe import load_recipe
from quantizers.sources import open_source

checkpoint = open_source(Path(sys.argv[1]))
fingerprint(checkpoint)
architecture = build(checkpoint)
plan = make_plan(checkpoint, architecture, load_recipe("glm-5.2-w4a16-mtp"))
groups, _ = groups_of(checkpoint, architecture, load_recipe("glm-5.2-mixed"))
print(json.dumps({
    "tensors": len(checkpoint.tensors),
    "linears": len(plan.schemes),
    "bytes": plan.output_bytes(),
    "open": [len(group.linears) for group in groups if len(group.nbytes) > 1],
    "measured at once": len(families(groups)),
    "ignored": [name for name in plan.ignore if name == "lm_head" or name.startswith("re:")],
    "peak": int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024,
}))
"""


@pytest.mark.long
def test_glm_5_2_is_opened_built_and_planned_in_little_memory(tmp_path: Path) -> None:
    shapes = released_shapes(GLM_5)
    try:
        stored = write_hollow(tmp_path / "glm", GLM_5, shapes)
    except OSError as error:
        pytest.skip(f"no files of that size can be made here: {error}")
    used = sum(file.stat().st_blocks * 512 for file in (tmp_path / "glm").iterdir())
    if used > 1e9:
        pytest.skip(f"files with holes take {used / 1e9:.3g} GB here")
    assert 1.5e12 < stored < 1.52e12
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "glm")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    assert ended.returncode == 0, ended.stderr[-800:]
    found = json.loads(ended.stdout)
    assert found.pop("peak") < 1400  # MiB; 870 on two cores
    assert sorted(found.pop("open")) == [1] * 75 * 256 + [2] * 75 * 256
    assert 407e9 < found.pop("bytes") < 408e9
    assert found == {
        "tensors": len(shapes),
        "linears": 58_224,
        "measured at once": 618,
        "ignored": ["lm_head", r"re:model\.layers\.78\..*"],
    }
