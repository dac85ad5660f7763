"""The Makefile in other hands: strange paths, two at once, interrupted, an old environment, wrong Pythons.

Each test works in a copy of the project; see `checkout`. What is tested is when the Makefile makes, renews
and keeps an environment, not pip.
"""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from urllib.parse import unquote

import pytest
from checkout import Checkout, outside_make

NEEDED = ("make", "bash", "flock")

pytestmark = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in NEEDED), reason=f"needs {', '.join(NEEDED)}"
)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path / "a checkout – Übung [1] #2 50% o'clock")


def said(done: subprocess.CompletedProcess) -> str:
    """The one sentence of an error: all that is printed, but for make's own last line."""
    lines = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]
    assert done.returncode != 0 and len(lines) == 1, (done.returncode, lines)
    return lines[0]


def test_the_environment_is_made_once_and_kept(checkout):
    assert checkout.make("env").returncode == 0
    assert checkout.calls == ["venv", "pip", "pip"]
    again = checkout.make("env")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert checkout.calls == ["venv", "pip", "pip"]


def test_changed_requirements_update_the_environment(checkout):
    checkout.make("env")
    with open(checkout.folder / "requirements.txt", "a") as file:
        file.write("# another one\n")
    done = checkout.make("env")
    assert "Updating" in done.stdout and checkout.calls == ["venv", "pip", "pip", "pip", "pip"]


@pytest.mark.parametrize("what", ["the link to python is broken", "the folder was moved", "another python"])
def test_an_environment_that_cannot_work_is_made_anew(checkout, what):
    checkout.make("env")
    if what == "the link to python is broken":
        (checkout.folder / ".venv/bin/python").unlink()
        (checkout.folder / ".venv/bin/python").symlink_to("/nowhere/python3.11")
    elif what == "the folder was moved":
        checkout.folder = checkout.folder.rename(checkout.folder.with_name("elsewhere"))
    else:
        (checkout.folder / ".venv/home").write_text(f"{checkout.folder} Python 3.10.0\n")
    done = checkout.make("env")
    assert done.returncode == 0, done.stderr
    assert checkout.calls[3:] == ["venv", "pip", "pip"]
    assert checkout.make("env").returncode == 0 and len(checkout.calls) == 6


def test_two_at_once_make_one_environment(checkout):
    both = [checkout.start("env", PIP_TAKES="1") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
    assert checkout.calls == ["venv", "pip", "pip"]


def interrupt(process: subprocess.Popen, with_signal: int) -> None:
    os.killpg(process.pid, with_signal)
    process.communicate(timeout=300)
    assert process.returncode != 0


@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_installation_is_done_again(checkout, with_signal):
    process = checkout.start("env", PIP_TAKES="60")
    until(lambda: "pip" in checkout.calls)
    interrupt(process, with_signal)
    assert checkout.make("env").returncode == 0
    assert checkout.calls == ["venv", "pip", "venv", "pip", "pip"]


def until(condition, seconds=300):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.05)


def test_a_missing_python_is_one_sentence(checkout):
    sentence = said(checkout.make("PYTHON=/nowhere/python", "book"))
    assert "Python 3.11 or newer is needed" in sentence and "make PYTHON=" in sentence


def test_an_old_python_is_one_sentence(checkout):
    old = checkout.folder.parent / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    assert "found: Python 3.9.2" in said(checkout.make(f"PYTHON={old}", "env"))


def test_a_failed_installation_says_what_to_do(checkout):
    checkout.python.write_text(checkout.python.read_text().replace("sleep", "exit 1; sleep"))
    done = checkout.make("env")
    assert done.returncode != 0 and "run make again" in done.stderr.splitlines()[-2]
    checkout.python.write_text(checkout.python.read_text().replace("exit 1; sleep", "sleep"))
    assert checkout.make("env").returncode == 0


@pytest.mark.parametrize("name", ["$HOME", "a{b}"])
def test_a_folder_that_setuptools_refuses_is_one_sentence(checkout, name):
    checkout.folder = checkout.folder.rename(checkout.folder.with_name(name))
    assert "rename it" in said(checkout.make("env")) and checkout.calls == []


def test_what_a_user_has_set_for_other_projects_changes_nothing(checkout, tmp_path):
    """Some shells set PYTHONPATH for all; with CDPATH, `cd tools/..` may lead home."""
    home = tmp_path / "home"
    (home / "tools").mkdir(parents=True)
    (home / ".venv").mkdir()
    (home / ".venv" / "precious").touch()
    log = 'echo "${PYTHONPATH-}${PIP_TARGET-}${PIP_USER-}" >>settings\n'
    checkout.python.write_text(checkout.python.read_text().replace("case", log + "case", 1))
    strange = {"CDPATH": str(home), "PYTHONPATH": str(home), "PIP_TARGET": str(home), "PIP_USER": "1"}
    done = checkout.make("env", **strange)
    assert done.returncode == 0, done.stderr
    assert checkout.calls == ["venv", "pip", "pip"] and (home / ".venv" / "precious").exists()
    assert set((checkout.folder / "settings").read_text().split()) == {"0"}


def test_an_unknown_recording_is_one_sentence(checkout):
    checkout.make("env")
    sentence = said(checkout.make("record", "NAME=nonsense"))
    assert "nonsense" in sentence and "deep-linear" in sentence


@pytest.mark.parametrize(
    ("tool", "there", "missing"),
    [
        ("lighthouse.py chapters/none", (), "the book has no page chapters/none"),
        ("lighthouse.py", (), "no Chromium on this machine"),
        ("lighthouse.py", ("chromium",), "npm is missing"),
        ("print_book.py", (), "no Chromium on this machine"),
    ],
)
def test_a_missing_program_or_page_is_one_sentence(checkout, tmp_path, tool, there, missing):
    for name in there:
        (tmp_path / name).touch(mode=0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CHROME_PATH"}
    name, *arguments = tool.split()
    done = subprocess.run(
        [sys.executable, checkout.folder / "tools" / name, *arguments],
        env=environment | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert missing in said(done)


def test_the_book_is_built_here_again_after_an_interruption_and_by_two_at_once(checkout):
    """One test, since each build takes its seconds."""
    checkout.keep_titles_only()
    page = checkout.folder / "_build/html/index.html"
    earlier = page.with_name("a page of an earlier book.html")
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    process = checkout.start("book")
    until(lambda: (checkout.folder / "_build/new/_build/html/_static").exists())
    interrupt(process, signal.SIGKILL)
    assert list(page.parent.iterdir()) == [earlier], "the earlier book stays until there is a new one"

    both = [checkout.start("book") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        address = out.split("The book: ")[1].strip()
        assert address.isascii() and " " not in address
        assert unquote(address) == f"file://{page}"
    assert len(list(page.parent.glob("chapters/*.html"))) >= 20 and not earlier.exists()


def as_owner_without_rights(command: list[str]) -> list[str]:
    """Root writes where nobody may; without this capability it obeys the permissions like everyone."""
    if os.geteuid():
        return command
    return ["setpriv", "--bounding-set=-dac_override", "--", *command]


@pytest.mark.skipif(not os.geteuid() and not shutil.which("setpriv"), reason="root, and no setpriv")
def test_a_checkout_that_nobody_may_write_can_be_used(checkout):
    checkout.make("env")
    use = """if True:
        import torch, bnlab
        from course import recordings
        columns, manifest = recordings.load("recordings/deep-linear")
        images, labels = torch.randn(8, 784), torch.arange(8)
        net = torch.nn.Linear(784, 10)
        bnlab.probe(net, lambda net: torch.nn.functional.cross_entropy(net(images), labels), step_sizes=[0.1])
        print(bnlab.__file__)
    """
    before = sorted(checkout.folder.rglob("*"))
    paths = [checkout.folder, *before]
    modes = [(path, path.stat().st_mode) for path in paths]
    try:
        for path, mode in modes:
            path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        command = as_owner_without_rights([str(checkout.folder / ".venv/bin/python"), "-c", use])
        used = subprocess.run(command, cwd=checkout.folder, capture_output=True, text=True, timeout=120)
        refused = subprocess.run(
            as_owner_without_rights(["make", f"PYTHON={checkout.python}", "book"]),
            cwd=checkout.folder,
            env=outside_make(),
            capture_output=True,
            text=True,
        )
    finally:
        for path, mode in modes:
            path.chmod(mode)
    assert used.returncode == 0, used.stderr
    assert used.stdout.strip() == str(checkout.folder / "lib/bnlab/__init__.py")
    assert sorted(checkout.folder.rglob("*")) == before
    assert "cannot be written" in said(refused)


# Here the commands of the parts only say that they ran, and fail where a test asks for it.
SAYS = """case "$*" in
*tools/build_book.py | *tools/lint_notebooks.py* | "-m ruff"* | "-m mypy"* | "-m coverage"* | "-m pytest"*)
    echo "ran $*"
    case "$*" in ${FAILS-}) exit 1 ;; esac
    exit 0 ;;
esac
"""
LIKE_MAKE_381 = ("SHELL=/bin/sh", ".SHELLFLAGS=-c")  # which does not know .SHELLFLAGS
COMMANDS = {  # the name of each part, and what only its command holds
    "checks": "*mypy",
    "book": "*build_book.py",
    "unit tests": "*not browser*",
    "doctests": "*--doctest-modules*",
    "coverage": "*report*",
    "notebooks": "*--nbval-lax*",
    "browser": "*-m browser tests*",
}


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A copy in which the parts of `make test` only say what they would run."""
    checkout = Checkout(tmp_path_factory.mktemp("speaking") / "project")
    first = "unset COVERAGE_PROCESS_CONFIG"
    script = checkout.python.read_text()
    assert script.count(first) == 1
    checkout.python.write_text(script.replace(first, SAYS + first))
    assert checkout.make("env").returncode == 0
    (checkout.folder / ".venv/bin/codespell").write_text("#!/bin/sh\necho ran codespell\n")
    return checkout


def table(out: str) -> dict[str, str]:
    """Each part's result, from the summary at the end."""
    summary = re.split(r"^part +seconds +result$", out, flags=re.MULTILINE)[1]
    return dict(re.findall(r"^(\S.*?) +\d+  (.+)$", summary, re.MULTILINE))


@pytest.mark.parametrize("options", [(), LIKE_MAKE_381], ids=["this make", "make 3.81"])
def test_all_parts_of_make_test_run_and_are_summed_up(speaking, options):
    done = speaking.make(*options, "test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.match(r"7 parts, about \d+ minutes on two idle cores", done.stdout)
    assert table(done.stdout) == dict.fromkeys(COMMANDS, "passed")


@pytest.mark.parametrize("options", [(), LIKE_MAKE_381], ids=["this make", "make 3.81"])
@pytest.mark.parametrize("part", COMMANDS)
def test_a_part_that_fails_stops_no_other_and_fails_make_test(speaking, part, options):
    done = speaking.make(*options, "test", FAILS=COMMANDS[part])
    assert done.returncode != 0
    left_out = {"browser": "left out"} if part == "book" else {}  # an old book is not tested
    assert table(done.stdout) == dict.fromkeys(COMMANDS, "passed") | {part: "FAILED"} | left_out
    assert f"make: not passed: {', '.join([part, *left_out])}" in done.stderr


@pytest.mark.parametrize("options", [(), LIKE_MAKE_381], ids=["this make", "make 3.81"])
@pytest.mark.parametrize("fails", ["-m ruff check*", "*lint_notebooks*", "*mypy"])
def test_the_first_check_that_fails_fails_make_check(speaking, fails, options):
    done = speaking.make(*options, "check", FAILS=fails)
    assert done.returncode != 0 and table(done.stdout) == {"checks": "FAILED"}
    assert ("ran codespell" in done.stdout) == (fails != "-m ruff check*")


@pytest.mark.parametrize("options", [(), LIKE_MAKE_381], ids=["this make", "make 3.81"])
def test_a_book_that_is_not_built_fails_make_and_shows_the_warnings(checkout, options):
    assert checkout.make("env").returncode == 0
    builder = checkout.folder / ".venv/bin/jupyter-book"
    builder.write_text("#!/bin/sh\necho WARNING: no such page\nexit 1\n")
    earlier = checkout.folder / "_build/html/index.html"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    done = checkout.make(*options, "book")
    assert done.returncode != 0 and earlier.exists()
    assert "WARNING: no such page" in done.stdout and "the book was not built" in done.stderr
    assert "The book:" not in done.stdout
