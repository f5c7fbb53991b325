"""Sphinx's settings: the guides, and a reference made of docstrings. `make docs` builds the site."""

from __future__ import annotations

import re
from typing import Any

import ketgrad

project = "ketgrad"
author = "The ketgrad authors"
version = release = ketgrad.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
html_theme = "furo"
html_title = f"ketgrad {version}"

# In docstrings, `name` is a link where it names something of the reference, and code where it does not.
default_role = "py:obj"
add_module_names = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {
    name: name for name in ("Init", "Parameter", "ParameterLike", "TapeResult", "Weights", "Wire", "Wires")
}

myst_heading_anchors = 3


def _name_what_is_elsewhere(app: Any, name: str, source: list[str]) -> None:
    """Files outside of docs/ are not on the site: links to them become their names."""
    above = re.escape("../" * (name.count("/") + 1))
    source[0] = re.sub(rf"\[`?([^\]`]+)`?\]\({above}([^)]+)\)", r"`\2`", source[0])


def _read_formulas(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """In a docstring, $…$ is a formula, $$…$$ one on lines of its own, and |01⟩ a state, no substitution."""
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: f".. math:: {' '.join(m[1].split())}", "\n".join(lines), flags=re.DOTALL)
    text = re.sub(r"\$([^$]+)\$", lambda m: f":math:`{' '.join(m[1].split())}`", text)
    lines[:] = re.sub(r"\|(\w+⟩)", r"\|\1", text).split("\n")


def setup(app: Any) -> None:
    """Connect what is above."""
    app.connect("source-read", _name_what_is_elsewhere)
    app.connect("autodoc-process-docstring", _read_formulas)
