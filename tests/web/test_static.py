import hashlib
import re
from importlib.resources import files

STATIC = files("aha.web") / "static"
VENDOR = STATIC / "vendor"
MOST_BYTES = 150_000


def test_vendored_files_are_those_that_were_fetched():
    listed = dict(
        reversed(line.split("  ")) for line in (VENDOR / "SHA256SUMS").read_text().splitlines()
    )
    there = {path.name for path in VENDOR.iterdir()} - {"SHA256SUMS", "README.md"}
    assert there == set(listed)
    for name, digest in listed.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name


def test_every_library_has_its_licence():
    for name in ("htm", "preact", "uPlot"):
        text = (VENDOR / f"LICENSE.{name}").read_text()
        assert "MIT" in text or "Apache License" in text


def shipped() -> list:
    found = [*STATIC.iterdir(), *VENDOR.iterdir()]
    return [path for path in found if path.name.endswith((".js", ".css"))]


def test_the_page_is_small():
    size = sum(len(path.read_bytes()) for path in shipped())
    assert size < MOST_BYTES, f"{size} bytes of JavaScript and CSS"


def test_our_pages_never_build_markup_from_text_and_fetch_nothing_from_elsewhere():
    own = [path for path in STATIC.iterdir() if path.name.endswith((".js", ".css", ".html"))]
    for path in own:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
        assert not re.search(r"https?://", text), path.name
        assert len(text.splitlines()) <= 400
