"""The site in a browser, at the width of a desk and of a phone: nothing is cut off, no page scrolls sideways, texts can be read.

``make docs`` builds it; here every page is looked at in Chromium. Skipped, with the reason, where there is no browser or
no site.
"""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("BANDITROUTE_SITE", ROOT / "out" / "docs" / "html"))
WIDTHS = (390, 1280)
MEASURE = (Path(__file__).parent / "data" / "measure-site.html").read_text(encoding="utf-8")
SETTINGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def pages():
    if not (SITE / "index.html").exists():
        pytest.skip(f"no site in {SITE}: make docs")
    hidden = {"genindex.html", "search.html", "py-modindex.html"}
    found = [
        p.relative_to(SITE).as_posix() for p in sorted(SITE.rglob("*.html")) if "_modules" not in p.parts
    ]
    return [page for page in found if page not in hidden and not page.startswith("_")]


@pytest.fixture(scope="module")
def seen(browser, pages, tmp_path_factory):
    """What a browser measures of every page, by width and page."""
    home, found = tmp_path_factory.mktemp("browser"), {}
    for width in WIDTHS:
        frames = json.dumps([f"file://{SITE / page}" for page in pages])
        sheet = home / f"{width}.html"
        sheet.write_text(MEASURE.replace("PAGES", frames).replace("WIDTH", str(width)), encoding="utf-8")
        done = subprocess.run(
            [browser, *SETTINGS, f"--user-data-dir={home / 'profile'}", "--virtual-time-budget=600000", "--timeout=500000",
             f"--window-size={width + 20},1000", "--dump-dom", f"file://{sheet}"],
            capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        told = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
        assert told, done.stderr[-2000:]
        answers = json.loads(told[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
        assert len(answers) == len(pages)
        for page, answer in zip(pages, answers, strict=True):
            found[width, page] = answer
    return found


def test_no_page_scrolls_sideways(seen):
    wide = {key: one["scroll"] for key, one in seen.items() if one["scroll"] > one["width"]}
    assert not wide
    assert {one["width"] for one in seen.values()} == set(WIDTHS)


def test_no_element_is_cut_off(seen):
    """Whatever reaches beyond the page lies in something that scrolls."""
    cut = {key: one["cut"] for key, one in seen.items() if one["cut"]}
    assert not cut


def test_texts_have_contrast(seen):
    """4.5 to 1 for texts, 3 to 1 for large ones, of the colours of the page (WCAG AA); code is coloured by a theme."""
    faint = {key: one["faint"] for key, one in seen.items() if one["faint"]}
    assert not faint


def test_pictures_are_there_and_have_a_text(seen):
    broken = {key: one["pictures"] for key, one in seen.items() if one["pictures"]}
    assert not broken
    assert sum(one["images"] for one in seen.values()) > 40


def test_wide_tables_keep_their_first_column(seen):
    loose = {key: one["loose"] for key, one in seen.items() if one["loose"]}
    assert not loose
    assert sum(one["scrolling"] for (width, _), one in seen.items() if width == 390) > 10


def test_notebooks_can_be_downloaded(pages):
    books = sorted((ROOT / "docs" / "notebooks").glob("*.md"))
    for path in books:
        text = (SITE / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert f'href="{path.stem}.ipynb"' in text
        book = json.loads((SITE / "notebooks" / f"{path.stem}.ipynb").read_text(encoding="utf-8"))
        assert book["nbformat"] == 4
        assert sum(cell["cell_type"] == "code" for cell in book["cells"]) == path.read_text(
            encoding="utf-8"
        ).count("{code-cell}")


def test_links_within_the_site_lead_somewhere(pages):
    """Pages, files and the places in them; links to other sites are followed by ``make linkcheck``."""
    places, asked = {}, []
    for page in pages:
        text = (SITE / page).read_text(encoding="utf-8")
        places[(SITE / page).resolve()] = set(re.findall(r'\bid="([^"]+)"', text))
        asked += [(page, unescape(link)) for link in re.findall(r'<a\b[^>]*\bhref="([^"]+)"', text)]
    lost = []
    for page, link in asked:
        if re.match("[a-z]+:", link):
            continue
        name, _, place = link.partition("#")
        target = (
            (SITE / page).resolve() if not name else (SITE / page).parent.joinpath(unquote(name)).resolve()
        )
        if not target.is_file() or (place and target in places and unquote(place) not in places[target]):
            lost.append((page, link))
    assert not lost
    assert len(asked) > 1000


def test_the_reference_has_summaries(pages):
    for page in pages:
        if page.startswith("api/"):
            text = (SITE / page).read_text(encoding="utf-8")
            assert "in one line" in text, page
