"""Build the book into _build/html and print its address. An earlier book stays until there is a new one."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOG = ROOT / "_build/book.log"
NEW = ROOT / "_build/new"
SITE = ROOT / "_build/html"
COMMAND = ".venv/bin/jupyter-book build . --path-output _build/new -W -n --keep-going --quiet"


def main() -> None:
    print("Building the book ...", flush=True)
    shutil.rmtree(NEW, ignore_errors=True)
    with LOG.open("w", encoding="utf-8") as log:
        done = subprocess.run(COMMAND.split(), cwd=ROOT, stdout=log, stderr=log, close_fds=False)
    if done.returncode:
        print(LOG.read_text(encoding="utf-8"))
        raise SystemExit("make: the book was not built, see the warnings above")
    shutil.rmtree(SITE, ignore_errors=True)
    (NEW / "_build/html").rename(SITE)
    shutil.rmtree(NEW)
    print("The book:", (SITE / "index.html").resolve().as_uri())


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("make: interrupted") from None
