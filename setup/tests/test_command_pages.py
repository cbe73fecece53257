# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The manual pages and completions are those of the programs as they are, and bash completes with them."""

from __future__ import annotations

import subprocess

import pytest
from command_pages import SHARE, pages


def test_pages_are_those_of_the_argument_parsers() -> None:
    kept = {str(path.relative_to(SHARE)): path.read_text() for path in SHARE.rglob("*") if path.is_file()}
    assert kept == pages(), "run setup/command_pages.py, and commit what it writes"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (("evio", "exp"), {"explain"}),
        (("evio", "overlay", "s"), {"status"}),
        (("evio", "explain", "--cri"), {"--cri-socket"}),
        (("evio-config-gen", "--node-"), {"--node-bits"}),
    ],
)
def test_bash_completes(line: tuple[str, ...], words: set[str]) -> None:
    function = f"_shtab_{line[0].replace('-', '_')}"
    script = f"""
        source {SHARE / "bash-completion/completions" / line[0]} && complete -p {line[0]} >/dev/null
        COMP_WORDS=({" ".join(line)}) COMP_CWORD={len(line) - 1}
        {function} {line[0]} {line[-1]} {line[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == words, done.stderr
