"""`make lab`: a notebook runs in JupyterLab, and an explorable in it answers to the keyboard."""

import json
import os
import re
import signal
import socket
import time
import urllib.request

import nbformat
import pytest
from checkout import Checkout
from playwright.sync_api import TimeoutError

CELL = "import torch\nfrom course import explorables\n\nexplorables.batch_norm(torch.linspace(-1, 1, 64))"
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PROMPT = ".jp-Notebook .jp-CodeCell .jp-InputArea-prompt"


def wait(condition, what, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def answers(address):
    try:
        urllib.request.urlopen(address, timeout=5).close()
        return True
    except OSError:
        return False


@pytest.fixture
def lab(tmp_path):
    """The address of JupyterLab as `make lab` starts it, without a window and without a password."""
    checkout = Checkout(tmp_path / "project")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)], metadata=KERNEL)
    nbformat.write(notebook, checkout.folder / "chapters/small.ipynb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": False, "allow_root": True}
    settings = {"ServerApp": server, "IdentityProvider": {"token": ""}}
    (tmp_path / "jupyter_server_config.json").write_text(json.dumps(settings))
    process = checkout.start("lab", JUPYTER_CONFIG_DIR=str(tmp_path))
    address = f"http://127.0.0.1:{port}"
    try:
        wait(lambda: process.poll() is not None or answers(f"{address}/api"), "JupyterLab's start")
        assert process.poll() is None, "JupyterLab did not start"
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the server then stops its kernels
        process.communicate(timeout=60)


def kernel_listens(address):
    """The notebook has a kernel, the page is connected to it, and it waits for work."""
    try:
        with urllib.request.urlopen(f"{address}/api/kernels", timeout=5) as answer:
            kernels = json.load(answer)
    except OSError:  # the server refuses to tell while a kernel is starting
        return False
    return any(k["connections"] and k["execution_state"] == "idle" for k in kernels)


def run_all(tab, address):
    """Run All Cells until a cell has its number: while the page settles, JupyterLab may lose a request."""
    tab.locator(PROMPT).first.wait_for(timeout=60_000)
    wait(lambda: kernel_listens(address), "a kernel that listens")
    for _ in range(4):
        tab.get_by_role("menuitem", name="Run", exact=True).click()
        tab.locator("[data-command='runmenu:run-all']").click()
        try:
            tab.locator(PROMPT, has_text=re.compile(r"\d")).first.wait_for(timeout=20_000)
            return
        except TimeoutError:
            tab.keyboard.press("Escape")
    raise AssertionError("no cell was run")


@pytest.mark.lab
def test_a_notebook_runs_in_jupyterlab_and_its_slider_moves(lab, browser):
    tab = browser.new_page()
    try:
        tab.goto(f"{lab}/lab/tree/small.ipynb?reset")
        run_all(tab, lab)
        slider = tab.locator("bn-batch-norm input[name=shift]")
        slider.wait_for(timeout=60_000)
        sentence = tab.locator("bn-batch-norm [aria-live]")
        before, said_before = float(slider.input_value()), sentence.text_content()
        slider.focus()
        for _ in range(5):
            tab.keyboard.press("ArrowRight")
        assert float(slider.input_value()) > before
        assert sentence.text_content() != said_before
        assert re.search(r"\d", sentence.text_content())
    finally:
        tab.close()
