"""How Sphinx builds the handbook: `sphinx-build -W graphsim/docs site` (extra `docs`)."""

from pathlib import Path

import graphsim as gs

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
    app.connect("build-finished", _write_explored)


def _keep_lines(_app, _what, _name, _object, _options, lines):
    lines[:] = [f"| {line.strip()}" if line.strip() and ":" not in line[:1] else line for line in lines]


def _write_explored(app, error):
    """The page that the handbook opens with."""
    if error is None and app.builder.format == "html":
        lora = gs.LoraConfig(rank=16, active_adapters=4, max_loras=8)
        path = Path(app.outdir) / "explored.html"
        gs.explore("llama-3.1-8b", "h100-sxm", path, lora=lora, batch=8, devices=["h200-sxm"], degrees=(1, 2))
