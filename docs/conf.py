"""How the documentation is built; `make docs` builds it."""

import gc
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
gc.disable()  # a build looked again and again for garbage among the nodes of pages, which stay

project = "popdask"
version = release = version_of("popdask")
html_title = f"popdask {release}"
html_copyright = ""
html_show_copyright = False

extensions = [
    "sphinx.ext.autodoc",
    "numpydoc",
    "myst_parser",
    "api_reference",
    "command_reference",
    "mathml",
    "picture",
    "settings_reference",
]
exclude_patterns = ["_build", "_ext"]

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Docstrings name things in single backticks.
default_role = "code"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"

# What other projects document is not linked: the pages are built without a network.
nitpicky = True
# Nor are types that stand in signatures alone, such as models of settings.
nitpick_ignore_regex = [
    (r"py:.*", r"(?!popdask\b).*"),
    (
        r"py:class",
        r"popdask\.(config|datasets\.\w+|store\.location|plot\.style|"
        r"imagery\.mosaic|tracking\.autoencoder)\..*",
    ),
    (r"py:(mod|class)", r"popdask\..*\._\w+.*"),  # a private module has no page
    (
        r"py:(mod|class)",
        r"popdask\.blocks\.sums.*",
    ),  # nor has one without public names
]

html_theme = "pydata_sphinx_theme"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["popdask.css"]
html_show_sourcelink = False
# Pages by themselves have nothing beside them to go to.
_ALONE = (
    "index",
    "first-hour",
    "gallery",
    "compare",
    "troubleshooting",
    "architecture",
    "checklist",
)
html_sidebars: dict[str, list[str]] = {page: [] for page in _ALONE}
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": [],
    "footer_end": [],
}
