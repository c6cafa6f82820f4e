"""Texts that are on this machine, by domain: manual pages in human languages, sources in programming languages.

Debian and its like have the pages in packages such as ``manpages-de``; what the packages of the system itself brought
is enough for a dozen languages. A language with too little text here is left out.
"""

import gzip
import re
import sysconfig
from pathlib import Path

import numpy as np

HUMAN = ("en", "de", "fr", "es", "it", "pl", "ru", "ja", "zh_CN", "sv")
CODE = {
    "python": (Path(sysconfig.get_paths()["stdlib"]), "*.py"),
    "c": (Path("/usr/include"), "*.h"),
    "perl": (Path("/usr/share/perl"), "*.p[ml]"),
    "tcl": (Path("/usr/share/tcltk"), "*.tcl"),
}
ENOUGH = 60_000  # characters of a domain, held-out ones included
MOST = 400_000
MARKUP = re.compile(r"\\(?:f\[\w*\]|f\(..|f.|s[+-]?\d+|\*\(..|\[[^]]*\]|\(..|[&/|%^,: -])|\\")
ENGLISH = re.compile(r"\b(?:the|and|with|from|this)\b")


def plain(page: str, translated: bool) -> str:
    """Return the text of a manual page without most of its markup, and without what nobody translated."""
    lines = (line for line in page.splitlines() if not line.startswith(('.\\"', "'", ".ds", ".de")))
    bare = (MARKUP.sub("", re.sub(r"^\.[A-Za-z]{1,2}\b ?", "", line)) for line in lines)
    return "\n".join(line for line in bare if line.strip() and not (translated and ENGLISH.search(line)))


def _paths(domain: str) -> list[Path]:
    if domain in CODE:
        folder, pattern = CODE[domain]
        return [path for path in folder.rglob(pattern) if path.is_file() and not path.is_symlink()]
    folder = Path("/usr/share/man") / ("" if domain == "en" else domain)
    return [path for path in folder.glob("man[158]/*.gz") if not path.is_symlink()]


def _text(path: Path, domain: str) -> str:
    if domain in CODE:
        return path.read_text(encoding="utf-8", errors="ignore")
    return plain(gzip.decompress(path.read_bytes()).decode("utf-8", errors="ignore"), domain != "en")


def gather(seed: int = 0) -> dict[str, tuple[str, str]]:
    """Return what to learn from and what to be judged on, of each domain that has enough; no file is in both."""
    rng, found = np.random.default_rng(seed), {}
    for domain in (*HUMAN, *CODE):
        learn, judge = [], []
        paths = sorted(_paths(domain))
        for k in rng.permutation(len(paths)):
            text = _text(paths[k], domain)[:40_000]
            full = sum(map(len, judge)) > 0.2 * MOST
            if len(text) > 500:
                (learn if full or rng.random() < 0.75 else judge).append(text)
            if full and sum(map(len, learn)) > 0.8 * MOST:
                break
        texts = "\n".join(learn), "\n".join(judge)
        if sum(map(len, texts)) >= ENOUGH and len(texts[1]) >= 0.1 * ENOUGH:
            found[domain] = texts
    if len(found) < 6:
        raise LookupError(
            f"six domains of text are needed, this machine has {sorted(found)}; install manpages-*"
        )
    return found


if __name__ == "__main__":
    for name, (learn, judge) in gather().items():
        print(f"{name:8s} {len(learn):8,d} characters to learn from, {len(judge):7,d} to be judged on")
