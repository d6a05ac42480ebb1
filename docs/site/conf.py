"""Sphinx's configuration: ``nox -s docs`` builds the site, with every warning an error.

The sources are the pages as they stand in the repository, so the root of the checkout is the root of the site, and a
link that works there works here.
"""

import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "kmutex"
author = "the kmutex authors"
project_copyright = "the kmutex authors"
release = version = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text("utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "parts"]
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/*.md",
    "docs/start/*.md",
    "docs/api/*.rst",
    "docs/adr/*.md",
    "specs/*.md",
    "ports/**.md",
    "examples/pull/README.md",
]
exclude_patterns = ["**/target/**", "**/node_modules/**"]

myst_heading_anchors = 4
myst_links_external_new_tab = False
default_role = "py:obj"
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_include_init_with_doc = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
add_module_names = False

pygments_style = "default"
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "kmutex"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_permalinks_icon = "#"
