#!/usr/bin/env python3
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build the documentation site into ``build/docs/html``, from the pages of ``docs/`` and from the collection itself.

The order of the pages is that of the links in ``docs/index.md``. ``playbook_pages.py`` writes the pages of playbooks,
antsibull-docs those of modules, filters and roles. Nothing is asked of another host. Each warning of Sphinx ends the
build with an error, as does each finding of ``page_checks.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import page_checks
import playbook_pages

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(__file__).resolve().parent
DESTINATION = ROOT / "build/docs"
COLLECTION = "evio.cni"
REPOSITORY = "https://github.com/evio-cni/evio.cni"


def main() -> int:
    """Check the pages, and build the site. Returns the exit status: 1 if a page has an error."""
    findings = page_checks.check(ROOT)
    for finding in findings:
        sys.stderr.write(f"{finding}\n")
    if findings:
        return 1
    source = DESTINATION / "source"
    write_source(source)
    status = run_sphinx(source, DESTINATION / "html")
    for path in (DESTINATION / "html").rglob("*.html"):
        path.write_text(with_aria_labels(path.read_text()))
    if status == 0:
        sys.stdout.write(f"the documentation is in {(DESTINATION / 'html/index.html').relative_to(ROOT)}\n")
    return status


def write_source(source: Path) -> None:
    """Write all pages of the site below the directory ``source``, which is emptied first."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("site", "__pycache__"))
    playbook_pages.write_pages(source / "playbooks")
    reference = source / "collection"
    # antsibull-docs refuses a directory that others may read.
    reference.mkdir(mode=0o700)
    subprocess.run(
        [
            *("antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error"),
            *("--dest-dir", str(reference), COLLECTION),
        ],
        check=True,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        },
    )
    for path in reference.glob("*.rst"):
        path.write_text(adapted_reference(path.read_text()))
    index = source / "index.md"
    for path in source.glob("*.md"):
        path.write_text(with_links_to_the_repository(path.read_text()))
    names = sorted(path.stem for path in source.glob("*.md") if path != index)
    index.write_text(index.read_text() + tables_of_contents(index.read_text(), names))


def with_aria_labels(html: str) -> str:
    """Return a page of the theme with the ARIA attributes that the theme and antsibull-docs leave out."""
    for old, new in (
        ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Pages">'),
        ('<aside class="toc-drawer">', '<aside class="toc-drawer" aria-label="On this page">'),
        ('class="caption" role="heading">', 'class="caption" role="heading" aria-level="2">'),
        (' aria-role="button"', ""),
    ):
        html = html.replace(old, new)
    return html


def with_links_to_the_repository(text: str) -> str:
    """Return a page in which links to files and directories outside of ``docs/`` lead to the repository on GitHub."""

    def absolute(link: re.Match[str]) -> str:
        kind = "tree" if (ROOT / link[1]).is_dir() else "blob"
        return f"]({REPOSITORY}/{kind}/main/{link[1]})"

    return re.sub(r"\]\(\.\./([^)\s]+)\)", absolute, text)


def adapted_reference(text: str) -> str:
    """Return a page of antsibull-docs without its own table of contents, which the theme has beside each page.

    A title such as ``evio.cni.NAME module -- DESCRIPTION`` becomes ``NAME module``, and the description a paragraph.
    """
    text = re.sub(r"(?m)^\.\. contents::\n(?:   :.*\n)*", "", text)
    text = re.sub(r"(?m)^Evio\.Cni\n=+$", _heading("Roles, modules and filters", "="), text)
    return re.sub(
        rf"(?m)^{re.escape(COLLECTION)}\.(\w+ \w+)(?: -- (.*))?\n(.)\3+$",
        lambda title: f"{_heading(title[1], title[3])}\n\n{title[2] or ''}",
        text,
        count=1,
    )


def _heading(words: str, underline: str) -> str:
    return f"{words}\n{underline * len(words)}"


def tables_of_contents(index: str, names: list[str]) -> str:
    """Return hidden tables of contents for Sphinx: one for each heading of the index, with the pages linked below it.

    A page that several headings link has its place below the first, and a page of ``names`` that none links a place
    at the end.
    """
    seen: set[str] = set()
    sections: list[tuple[str, list[str]]] = []
    for section in re.split(r"(?m)^## ", index)[1:]:
        caption, _newline, body = section.partition("\n")
        linked = [target.removesuffix(".md") for target in re.findall(r"\]\(([\w/-]+\.md)\)", body)]
        new = [page for page in dict.fromkeys(linked) if page not in seen]
        seen.update(new)
        if caption == "Reference":
            new += ["playbooks/index", "collection/index"]
        sections.append((caption, new))
    sections.append(("Further pages", [name for name in names if name not in seen]))
    return "".join(
        "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```", ""])
        for caption, entries in sections
        if entries
    )


def run_sphinx(source: Path, destination: Path) -> int:
    """Build HTML from the pages in ``source`` into ``destination``; return Sphinx's exit status: 1 after a warning."""
    command = [sys.executable, "-m", "sphinx", "--builder", "html", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["--conf-dir", str(SITE), "--doctree-dir", str(source.parent / "doctrees"), "--fresh-env"]
    return subprocess.run([*command, str(source), str(destination)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
