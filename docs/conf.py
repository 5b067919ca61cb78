"""How Sphinx builds these pages: `make docs`."""

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from matplotlib.figure import Figure
from sphinx.application import Sphinx
from sphinx_gallery.scrapers import figure_rst

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DATA = ROOT.parent / "shared" / "data" / "aps-2ide"

sys.path.insert(0, str(ROOT))
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

project = "hpcxrf"
author = "the authors of hpcxrf"
release = re.search(r'__version__: Final = "(.*)"', (ROOT / "hpcxrf" / "__init__.py").read_text(encoding="utf-8"))[1]
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery", "built-gallery/*.ipynb", "built-gallery/*.json", "**/.ipynb_checkpoints"]
templates_path: list[str] = []

# -- Pages ----------------------------------------------------------------------------------------------------------
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
html_context = {"default_mode": "auto"}
suppress_warnings = ["config.cache"]  # of the gallery's functions in this file, which cannot be pickled

# Types of other packages, which are looked up nowhere: the build needs no network.
nitpicky = True
nitpick_ignore_regex = [
    tuple(line.split(maxsplit=1))
    for line in (HERE / "external-types.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

default_role = "code"  # in docstrings `x` is code

# -- Docstrings -----------------------------------------------------------------------------------------------------
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

_AS_WRITTEN: dict[str, list[str]] = {}
_SENTENCES = {"attribute", "data", "property"}


def before_napoleon(_app: Sphinx, what: str, name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """A star of `(*batch, channel)` begins no emphasis."""
    lines[:] = [line.replace("(*", r"(\*") for line in lines]
    if what in _SENTENCES:
        _AS_WRITTEN[name] = list(lines)


def after_napoleon(_app: Sphinx, what: str, name: str, _thing: object, _options: object, lines: list[str]) -> None:
    """A colon in the docstring of an attribute is one of a sentence, and what stands before it no type."""
    if what in _SENTENCES:
        lines[:] = _AS_WRITTEN.pop(name, lines)


def write_math(writer: nodes.NodeVisitor, node: nodes.Element) -> None:
    """Write a formula within a sentence as MathML, which browsers draw themselves: no script from elsewhere."""
    writer.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def write_formula(writer: nodes.NodeVisitor, node: nodes.Element) -> None:
    """Write a formula on a line of its own as MathML."""
    writer.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect what draws formulas, and what mends docstrings around the extension that reads them."""
    app.add_html_math_renderer("mathml", (write_math, None), (write_formula, None))
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)


# -- Notebooks and scripts, run by every build ------------------------------------------------------------------------
# The measured scans of one notebook are not part of the project: without them it is shown as it is.
measured = os.environ.get("HPCXRF_NOTEBOOK_DATA", str(DATA))
os.environ["HPCXRF_NOTEBOOK_DATA"] = measured
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build" / "notebooks")
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_excludepatterns = [] if Path(measured).is_dir() else ["notebooks/archive-to-areal-density.ipynb"]
nb_merge_streams = True


def scrape_figures(_block: tuple, variables: dict, conf: dict) -> str:
    """Keep the figures of `plot_fit` and `plot_maps`, which belong to no window of pyplot; each once."""
    kept = []
    for name, value in list(variables["example_globals"].items()):
        if isinstance(value, Figure) and not hasattr(value, "number"):
            kept.append(next(variables["image_path_iterator"]))
            value.savefig(kept[-1], dpi=100)
            del variables["example_globals"][name]
    return figure_rst(kept, conf["src_dir"])


sphinx_gallery_conf = {
    "image_scrapers": ("matplotlib", scrape_figures),
    "examples_dirs": "gallery",
    "gallery_dirs": "built-gallery",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e9,
    "plot_gallery": True,
    "write_computation_times": False,
    "remove_config_comments": True,
}

# -- Site -----------------------------------------------------------------------------------------------------------
html_theme = "pydata_sphinx_theme"
html_title = f"hpcxrf {release}"
html_show_sourcelink = False
html_theme_options = {
    "github_url": "https://github.com/hpcxrf/hpcxrf",
    "show_toc_level": 2,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "header_links_before_dropdown": 7,
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_prev_next": True,
}
html_sidebars: dict[str, list[str]] = {"index": []}
html_static_path: list[str] = []
