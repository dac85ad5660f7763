"""Rate the pages of the built book with Lighthouse: lighthouse.py [PAGE ...], all pages without an argument.

Every page must reach the bounds of a desktop computer; the figures of a phone are reported beside them. It
needs node 18.16 or newer with npm, and Chromium. The pages come gzipped from a server on this machine.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from print_book import pages

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
HOME = ROOT / "_build" / "lighthouse"
VERSION = "12.8.2"  # the last that runs on node 18
BOUNDS = {"accessibility": 100, "best-practices": 95, "performance": 90}
PHONE_BOUND = 60  # performance of the median page


@cache
def packed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes())


class GzipHandler(SimpleHTTPRequestHandler):
    """Serves files gzipped and lets them be kept, as the hosts of static pages do."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        body = packed(path)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def program() -> Path:
    """Lighthouse of the pinned version, below _build."""
    found = HOME / VERSION / "node_modules" / ".bin" / "lighthouse"
    if not found.exists():
        if shutil.which("npm") is None:
            raise SystemExit("lighthouse: npm is missing; install node 18.16 or newer")
        found.parents[2].mkdir(parents=True, exist_ok=True)
        order = ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--silent", "--prefix", "."]
        if subprocess.run([*order, f"lighthouse@{VERSION}"], cwd=found.parents[2]).returncode:
            raise SystemExit("lighthouse: npm could not install it (it needs a network); then run this again")
    return found


def browser() -> str:
    """Chromium, where it is."""
    found = os.environ.get("CHROME_PATH") or shutil.which("chromium") or shutil.which("google-chrome")
    if not found:
        raise SystemExit("lighthouse: no Chromium on this machine; install it, or name it in CHROME_PATH")
    return found


def scores(address: str, *, desktop: bool) -> dict[str, int]:
    """The scores of one page, 0 to 100."""
    report = subprocess.run(
        [
            *(program(), address, "--output=json", "--quiet"),
            *(["--preset=desktop"] if desktop else []),
            "--only-categories=" + ",".join(BOUNDS),
            "--chrome-flags=--headless=new --no-sandbox --disable-gpu",
        ],
        env={**os.environ, "CHROME_PATH": browser()},
        stdout=subprocess.PIPE,
        check=True,
    )
    categories = json.loads(report.stdout)["categories"]
    return {name: round(100 * category["score"]) for name, category in categories.items()}


def every_page() -> list[str]:
    """The pages of the book in their order, then what was built beside them: search, indices, 404."""
    built = (path.relative_to(SITE).with_suffix("").as_posix() for path in sorted(SITE.rglob("*.html")))
    return list(dict.fromkeys([*pages(), *built]))


def main(names: list[str]) -> None:
    if unknown := [name for name in names if not (SITE / f"{name}.html").exists()]:
        raise SystemExit(f"lighthouse: the book has no page {', '.join(unknown)}; one is {pages()[0]}")
    browser()
    program()
    missed, phones = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(GzipHandler, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(f"{'':45}{'on a desktop':>27}{'on a phone':>15}")
        print(f"{'page':45}{'access.':>9}{'practice':>9}{'perform.':>9}{'perform.':>15}")
        for name in names or every_page():
            address = f"http://127.0.0.1:{server.server_port}/{name}.html"
            desktop, phone = scores(address, desktop=True), scores(address, desktop=False)
            phones.append(phone["performance"])
            columns = "".join(f"{desktop[bound]:>9}" for bound in BOUNDS)
            print(f"{name:45}{columns}{phone['performance']:>15}", flush=True)
            missed += [
                f"{name}: {bound} {desktop[bound]} < {least}"
                for bound, least in BOUNDS.items()
                if desktop[bound] < least
            ]
        server.shutdown()
    print(f"median page on a phone: {median(phones):.0f}")
    if median(phones) < PHONE_BOUND:
        missed.append(f"performance of the median page on a phone < {PHONE_BOUND}")
    if missed:
        raise SystemExit("lighthouse: " + "; ".join(missed))


if __name__ == "__main__":
    main(sys.argv[1:])
