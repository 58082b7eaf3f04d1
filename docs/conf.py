"""The site: `make docs` builds it from the Markdown pages and the docstrings.

The source folder is the repository, so that a link leads to the same file here and in a checkout.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

project = "jbn"
project_copyright = "The jbn authors. Apache-2.0"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "examples/*.md"]
exclude_patterns = [
    "**/.*",
    "build",
    "configs",
    "dist",
    "docs/_*",
    "experiments",
    "jbn",
    "runs",
    "tests",
]

extensions = ["myst_parser", "sphinx_copybutton", "pages", "names"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
# A file of the repository is one link here, and no page; types of other libraries have no page.
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "jbn"
html_static_path = ["_static"]
html_extra_path = ["../experiments/walkthrough/moderator.html"]
html_css_files = ["site.css"]
html_js_files = ["scroll.js"]
templates_path = ["_templates"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
highlight_language = "python"
copybutton_exclude = ".linenos, .gp, .go"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
