"""What a stranger's file or page could misuse: pickles, text taken for code, workflows with many rights."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SOURCES = [
    *(path for folder in ("lib", "tools", "benchmarks") for path in (ROOT / folder).rglob("*.py")),
    *(ROOT / "chapters").glob("*.ipynb"),
]
SCRIPTS = [*(ROOT / "lib").rglob("*.js"), *(ROOT / "assets").rglob("*.js")]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def code_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_files_are_loaded_without_running_what_is_in_them(path):
    """ruff forbids pickle and eval; it does not know `torch.load`, nor NumPy's and pandas' pickles.

    `sweep` sends experiments to its own workers by cloudpickle; that never is a file.
    """
    for call in (node for node in ast.walk(ast.parse(code_of(path))) if isinstance(node, ast.Call)):
        name, options = ast.unparse(call.func), {o.arg: ast.unparse(o.value) for o in call.keywords}
        if name == "torch.load":
            assert options.get("weights_only") == "True", f"{path.name}:{call.lineno}"
        assert options.get("allow_pickle", "False") == "False", f"{path.name}:{call.lineno}"
        assert not re.search(r"(^|\.)(read_pickle|joblib\.load|cloudpickle\.load)$", name), path.name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_of_ours_takes_text_for_code_or_reads_the_address(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\beval\(|\bFunction\(|document\.write|\blocation\.(search|hash|href)", text)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_the_least_rights_and_pinned_actions(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert set(job.get("permissions", {})) <= {"pages", "id-token"}, name
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: name the version in a comment"
    checkouts = [step for job in workflow["jobs"].values() for step in job["steps"]]
    for step in checkouts:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_binder_installs_everything_but_another_pytorch(tmp_path):
    """binder/postBuild, with a Python that writes down what pip is given."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "$@" >>"$LOG"\nfor a; do [ -f "$a" ] && cat "$a" >>"$LOG"; done; exit 0\n'
    )
    python.chmod(0o755)
    log = tmp_path / "log"
    environment = os.environ | {"LOG": str(log), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["bash", "binder/postBuild"], cwd=ROOT, env=environment, check=True)
    given = log.read_text().splitlines()
    wanted = "".join((ROOT / name).read_text() for name in ("requirements.txt", "constraints.txt"))
    pinned = [line for line in wanted.splitlines() if "==" in line]
    assert [line for line in pinned if line not in given] == [
        line for line in pinned if line[:7] == "torch=="
    ]
    assert given[-2].endswith("--no-deps --editable . --editable lib")
    assert "torch.version.cuda is None" in given[-1]
