# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sphinx's configuration of the documentation site; ``build_site.py`` lays out the pages and runs Sphinx."""

from __future__ import annotations

import zlib
from pathlib import Path

# Labels of Ansible's own documentation to which pages of modules refer, each with its page and the words of the link.
_CORE = "projects/ansible-core/devel"
ANSIBLE_LABELS = {
    "action_plugins": (f"{_CORE}/plugins/action.html#action-plugins", "Action plugins"),
    "ansible_configuration_settings": (f"{_CORE}/reference_appendices/config.html", "Ansible Configuration Settings"),
    "callback_plugins": (f"{_CORE}/plugins/callback.html#callback-plugins", "Callback plugins"),
    "common_return_values": (f"{_CORE}/reference_appendices/common_return_values.html", "Common return values"),
} | {
    f"ansible_collections.ansible.builtin.{module}_module": (
        f"projects/ansible/latest/collections/ansible/builtin/{module}_module.html",
        f"ansible.builtin.{module}",
    )
    for module in ("apt", "systemd_service", "template")
}


def write_inventory(path: Path) -> str:
    """Write an inventory of Ansible's labels in Sphinx's format, which no build then asks for; return its path."""
    header = "# Sphinx inventory version 2\n# Project: ansible\n# Version:\n"
    header += "# The remainder of this file is compressed using zlib.\n"
    lines = "".join(f"{label} std:label -1 {page} {title}\n" for label, (page, title) in ANSIBLE_LABELS.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.encode() + zlib.compress(lines.encode()))
    return str(path)


project = "evio.cni"
html_title = project
author = "The evio.cni authors"
project_copyright = author

extensions = ["myst_parser", "sphinx.ext.intersphinx", "sphinx_antsibull_ext"]
intersphinx_mapping = {
    "ansible": (
        "https://docs.ansible.com/",
        write_inventory(Path(__file__).parents[2] / "build/docs/ansible.inv"),
    )
}
# Links to headings are those of GitHub, where the same pages are read.
myst_heading_anchors = 4

# Options of programs begin with two hyphens, in text too.
smartquotes = False

# A reference that leads nowhere is a warning, and build_site.py makes an error of each warning.
nitpicky = True

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
# Nothing is loaded from another host: the theme's fonts are those of the reader's system.
html_theme_options = {
    "source_repository": "https://github.com/evio-cni/evio.cni/",
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": [],
}
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
