"""How Sphinx builds the handbook: `sphinx-build -W graphsim/docs site` (extra `docs`)."""

project = "graphsim"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples"]
html_theme = "furo"
html_title = "graphsim"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing"]


def setup(app):
    """Docstrings list fields one per line; keep those lines."""
    app.connect("autodoc-process-docstring", _keep_lines)


def _keep_lines(_app, _what, _name, _object, _options, lines):
    lines[:] = [f"| {line.strip()}" if line.strip() and ":" not in line[:1] else line for line in lines]
