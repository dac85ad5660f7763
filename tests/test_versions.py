"""The oldest versions that pyproject.toml promises are those that the workflow tests."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_the_oldest_promised_versions_are_the_tested_ones():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = dict(
        need.split(">=") for need in project["dependencies"] + project["optional-dependencies"]["plots"]
    )
    tested = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "tests/oldest.txt").read_text(), re.MULTILINE))
    for name, version in promised.items():
        assert (tested[name] + ".").startswith(version + "."), name

    job = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]["oldest"]
    (python,) = (
        step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")
    )
    assert project["requires-python"] == f">={python}"
    assert any("--constraint tests/oldest.txt" in step.get("run", "") for step in job["steps"])
