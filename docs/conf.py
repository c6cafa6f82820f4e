"""Settings of the documentation site: ``make docs`` builds it into out/docs/html."""

import os
import sys
import tomllib
from pathlib import Path

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]

project = "banditroute"
author = "The banditroute authors"
copyright = author
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
language = "en_GB"

sys.path.insert(0, str(ROOT / "docs" / "_extensions"))
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "site_pages"]
exclude_patterns = ["_build", "_extensions", "images"]

# Pages are plain Markdown that also reads well on a code forge.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Notebooks are text with no outputs in the repository; the build executes what changed and keeps the results.
nb_execution_mode = "cache"
nb_execution_cache_path = os.environ.get("BANDITROUTE_DOCS_CACHE", str(ROOT / "out" / "docs" / "cache"))
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

# Kernels read no settings of whoever builds, and keep their notes about sockets to themselves.
kernels = ROOT / "out" / "docs" / "ipython"
(kernels / "profile_default").mkdir(parents=True, exist_ok=True)
(kernels / "profile_default" / "ipython_kernel_config.py").write_text(
    "get_config().IPKernelApp.log_level = 40\n"
)
os.environ["IPYTHONDIR"] = str(kernels)

# Docstrings are numpydoc; a word in single backticks is a link where it names something.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = (
    "none"  # docstrings tell types in words; annotations would be spelled out down to numpy's parts
)
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = False
napoleon_use_param = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"banditroute {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_copyright = False
linkcheck_timeout = 20
linkcheck_anchors = False


def inline_math(self, node):
    """Write a formula of a line of text."""
    self.body.append(convert(node.astext()))
    raise SkipNode


def display_math(self, node):
    """Write a formula on a line of its own."""
    self.body.append(f'<div class="math">{convert(node.astext(), display="block")}</div>')
    raise SkipNode


def setup(app):
    """Write formulas as MathML, which browsers draw by themselves: no script from another site is needed."""
    app.add_html_math_renderer("mathml", (inline_math, None), (display_math, None))
    return {"parallel_read_safe": True}
