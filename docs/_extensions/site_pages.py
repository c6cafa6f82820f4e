"""What the site adds to the pages: summaries over the reference, notebooks to download."""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext

DIRECTIVE = re.compile(r"^\.\. auto(class|function|exception|module):: (\S+)$", re.MULTILINE)
HEADING = re.compile(r"^# .+$", re.MULTILINE)


def named(path: str) -> Any:
    """Return the object of a dotted path."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(named(module), name)


def first_line(thing: Any) -> str:
    """Return the first sentence or line of a docstring as markdown."""
    text = (getattr(thing, "__doc__", None) or "").strip().split("\n\n")[0]
    text = " ".join(text.split())
    return re.sub(r"``(.+?)``|`~?(.+?)`", lambda m: f"`{m[1] or m[2]}`", text).replace("|", "\\|")


def entries(text: str) -> list[tuple[str, str]]:
    """Return (path, line) of everything that a page of the reference describes, in its order."""
    found = []
    for kind, path in DIRECTIVE.findall(text):
        if kind != "module":
            found.append((path, first_line(named(path))))
            continue
        module: ModuleType = named(path)
        for name in getattr(module, "__all__", ()):
            one = getattr(module, name)
            if callable(one) and getattr(one, "__module__", "").startswith("banditroute"):
                found.append((f"{path}.{name}", first_line(one)))
    return [(path, line) for path, line in dict(found).items() if line]


def summarised(text: str) -> str:
    """Return a page of the reference with a table of what is on it under its introduction."""
    rows = entries(text)
    if not rows:
        return text
    table = "\n".join(f"| {{py:obj}}`{path.rpartition('.')[2]} <{path}>` | {line} |" for path, line in rows)
    head = HEADING.search(text)
    assert head is not None
    at = text.find("\n## ", head.end())
    fence = text.find("\n```", head.end())
    at = min(one for one in (at, fence, len(text)) if one >= 0)
    return f"{text[:at].rstrip()}\n\n| name | in one line |\n| :-- | :-- |\n{table}\n{text[at:]}"


def downloadable(text: str, name: str) -> str:
    """Return a notebook's page with a link to the notebook under its title."""
    link = f'<p class="download"><a href="{name}.ipynb" download>Download {name}.ipynb</a></p>'
    return HEADING.sub(lambda m: f"{m[0]}\n\n{link}", text, count=1)


def on_source(app: Any, page: str, source: list[str]) -> None:
    """Change pages as they are read."""
    if page.startswith("api/"):
        source[0] = summarised(source[0])
    elif page.startswith("notebooks/"):
        source[0] = downloadable(source[0], page.rpartition("/")[2])


def write_notebooks(app: Any, error: Exception | None) -> None:
    """Write the notebooks beside their pages, for Jupyter."""
    if error is None and app.builder.format == "html":
        for path in sorted((Path(app.srcdir) / "notebooks").glob("*.md")):
            book = jupytext.read(path, fmt="md:myst")
            target = Path(app.outdir) / "notebooks" / f"{path.stem}.ipynb"
            target.parent.mkdir(parents=True, exist_ok=True)
            jupytext.write(book, target, fmt="ipynb")


def setup(app: Any) -> dict[str, bool]:
    """Register."""
    app.connect("source-read", on_source)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True}
