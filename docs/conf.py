"""Sphinx configuration; built with ``-n -W``, so that each reference has to lead somewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import sandboxcore

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "sandboxcore"
author = "The sandboxcore authors"
copyright = author
version = release = sandboxcore.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "own_names", "command_line"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "undoc-members": True, "show-inheritance": True, "exclude-members": "model_config"}
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "sandboxcore"
html_copy_source = False
html_show_sphinx = False
