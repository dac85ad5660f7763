"""List the external links of the built book, and note which of them answer today: make book, then this.

A date is written only when the link answered; a link that does not answer keeps its last date, and an empty
date means that it has not been tried from a machine with a network.
"""

import csv
import datetime
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
LIST = ROOT / "tools" / "external-links.csv"


class Links(HTMLParser):
    """The external addresses that a page links to."""

    def __init__(self, path: Path):
        super().__init__()
        self.found = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        address = dict(attributes).get("href") or ""
        if tag == "a" and address.startswith(("http://", "https://")):
            self.found.add(address)


def answers(address: str) -> bool:
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0"})
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def main() -> None:
    pages = {}
    for path in sorted(SITE.rglob("*.html")):
        for address in Links(path).found:
            pages.setdefault(address, []).append(path.relative_to(SITE).with_suffix("").as_posix())
    if not pages:
        raise SystemExit(f"external_links: no external link below {SITE}; run `make book` first")
    seen = {}
    if LIST.exists():
        with LIST.open(newline="", encoding="utf-8") as file:
            seen = {row["link"]: row["last_seen"] for row in csv.DictReader(file)}
    silent = []
    with LIST.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["link", "pages", "last_seen"])
        for address in sorted(pages):
            alive = answers(address)
            if not alive:
                silent.append(address)
            date = datetime.date.today().isoformat() if alive else seen.get(address, "")
            writer.writerow([address, " ".join(pages[address]), date])
    print(f"{len(pages)} links, listed in {LIST.relative_to(ROOT)}")
    if silent:
        raise SystemExit("external_links: no answer from\n  " + "\n  ".join(silent))


if __name__ == "__main__":
    main()
