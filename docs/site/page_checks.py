# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is checked of each page of documentation besides what Sphinx checks: links to files, code, commands, names.

A page is any Markdown file of the repository: those of ``docs/``, the READMEs of the collection and of its roles, and
the files at the top.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

_FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\(([^)\s]+)\)")

_PAGES_WITHOUT_FIGURES = ("comparison.md", "scaling.md")
"""Pages that speak of what was measured. The figures have one home, docs/benchmarks.md, to which they lead."""
_FIGURE = re.compile(r"(?<![\w.-])\d[\d.]*(?: \d{3})* (?:ms|s|B/s|kB/s|Mbit/s|MB|GB|%|\u00d7|s/GB)(?![\w/])")


def check(root: Path) -> list[str]:
    """Return a sentence for each error in a page of the repository at ``root``, and none if all is well."""
    return [f"{page.relative_to(root)}: {finding}" for page in pages(root) for finding in findings(root, page)]


def pages(root: Path) -> list[Path]:
    """Return the Markdown files of the repository, without those of directories that are built."""
    collection = root / "collections/ansible_collections/evio/cni"
    found = [
        *root.glob("*.md"),
        *root.glob("docs/*.md"),
        *collection.glob("*.md"),
        *collection.glob("roles/*/README.md"),
    ]
    return sorted(found)


def findings(root: Path, page: Path) -> Iterator[str]:
    """Yield a sentence for each error in a page."""
    text = page.read_text()
    yield from _links(page, _FENCE.sub("", text))
    if page.name in _PAGES_WITHOUT_FIGURES:
        yield from _figures(text, page.with_name("benchmarks.md").read_text())
    yield from _code(text)
    yield from _commands(root, text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub and the site give to the headings of a page."""
    headings = re.findall(r"(?m)^#{1,4} (.*)$", _FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _figures(text: str, benchmarks: str) -> Iterator[str]:
    for figure in sorted({*_FIGURE.findall(text)} & {*_FIGURE.findall(benchmarks)}):
        yield f"{figure} is a figure of docs/benchmarks.md; lead there instead of repeating it"


def _links(page: Path, text: str) -> Iterator[str]:
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _hash, anchor = link.partition("#")
        target = page.resolve().parent / path if path else page
        if not target.exists():
            yield f"the link to {link} leads to no file"
        elif anchor and anchor not in anchors(target):
            yield f"the link to {link} leads to no heading"


def _code(text: str) -> Iterator[str]:
    for language, code in _FENCE.findall(text):
        try:
            if language == "yaml":
                list(yaml.safe_load_all(code))
            elif language == "json":
                json.loads(code)
        except (yaml.YAMLError, ValueError) as error:
            yield f"a block of {language} cannot be read: {' '.join(str(error).split())}"
        if language in ("sh", "bash", "console"):
            checked = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True, check=False)
            if checked.returncode:
                yield f"a block of {language} cannot be read: {checked.stderr.strip()}"


def _commands(root: Path, text: str) -> Iterator[str]:
    playbooks = {path.stem for path in (root / "collections/ansible_collections/evio/cni/playbooks").glob("*.yml")}
    for name in set(re.findall(r"(?:ansible-playbook[^`\n]* )(?:evio\.cni\.|playbooks/)(\w+)", text)) - playbooks:
        yield f"there is no playbook {name}"
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):", (root / "Makefile").read_text()))
    for name in set(re.findall(r"(?m)(?:`|^    )make ([a-z][a-z0-9-]*)", text)) - targets:
        yield f"the Makefile has no target {name}"
