"""Planted faults and healthy networks of the smallest family; benchmarks/checkup.py has the others."""

import importlib.util
import sys
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "checkup.py"
SPEC = importlib.util.spec_from_file_location("planted", PATH)
planted = importlib.util.module_from_spec(SPEC)
sys.modules["planted"] = planted
SPEC.loader.exec_module(planted)


@pytest.mark.parametrize("name", planted.FAULTS)
def test_the_cause_of_a_planted_fault_is_the_first_finding(name):
    plant, causes = planted.FAULTS[name]
    case = plant("mlp", 11) or plant("transformer", 11)
    found = case.check()
    assert found.causes[0] in causes, str(found)


@pytest.mark.parametrize("name", planted.HEALTHY)
def test_a_healthy_network_has_no_finding_above_a_note(name):
    found = planted.HEALTHY[name]("mlp", 11).check()
    assert found.healthy, str(found)
