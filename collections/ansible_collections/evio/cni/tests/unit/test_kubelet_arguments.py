# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""kubelet's node IP in /etc/default/kubelet; all other arguments of the operator stay."""

from __future__ import annotations

import pytest
from ansible_collections.evio.cni.plugins.module_utils.kubernetes.kubelet_arguments import (
    KubeletArgumentsError,
    with_node_ip,
)

ADDRESS = "10.10.0.2"
OURS = 'KUBELET_EXTRA_ARGS="--node-ip=10.10.0.2"\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, OURS),
        ("", OURS),
        # Debian's packages of Kubernetes come with this.
        ("KUBELET_EXTRA_ARGS=\n", OURS),
        ("# by hand\nOTHER=1\n", f"# by hand\nOTHER=1\n{OURS}"),
        ("KUBELET_EXTRA_ARGS=--v=4\n", 'KUBELET_EXTRA_ARGS="--v=4 --node-ip=10.10.0.2"\n'),
        ("KUBELET_EXTRA_ARGS='--v=4'\nOTHER=1\n", "KUBELET_EXTRA_ARGS='--v=4 --node-ip=10.10.0.2'\nOTHER=1\n"),
        ('KUBELET_EXTRA_ARGS="--node-ip=192.0.2.1 --v=4"\n', 'KUBELET_EXTRA_ARGS="--v=4 --node-ip=10.10.0.2"\n'),
        ('KUBELET_EXTRA_ARGS="--v=4 --node-ip 192.0.2.1"\n', 'KUBELET_EXTRA_ARGS="--v=4 --node-ip=10.10.0.2"\n'),
        ("#KUBELET_EXTRA_ARGS=--v=2\n", f"#KUBELET_EXTRA_ARGS=--v=2\n{OURS}"),
    ],
)
def test_address_is_set_and_the_rest_stays(before: str | None, after: str) -> None:
    assert with_node_ip(before, ADDRESS) == after
    assert with_node_ip(after, ADDRESS) == after


def test_address_that_is_there_leaves_the_file_as_it_is() -> None:
    text = "KUBELET_EXTRA_ARGS=--node-ip=10.10.0.2 --v=4"
    assert with_node_ip(text, ADDRESS) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, None),
        ("OTHER=1\n", "OTHER=1\n"),
        (OURS, "KUBELET_EXTRA_ARGS=\n"),
        ('KUBELET_EXTRA_ARGS="--v=4 --node-ip=10.10.0.2"\n', 'KUBELET_EXTRA_ARGS="--v=4"\n'),
    ],
)
def test_address_is_removed(before: str | None, after: str | None) -> None:
    assert with_node_ip(before, None) == after


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("KUBELET_EXTRA_ARGS=--v=4\nKUBELET_EXTRA_ARGS=--v=5\n", "2 times"),
        ("KUBELET_EXTRA_ARGS=--v=4 \\\n --v=5\n", "in one line"),
        ('KUBELET_EXTRA_ARGS="--a" "--b"\n', "in one line"),
    ],
)
def test_assignment_that_cannot_be_changed_safely_is_refused(text: str, words: str) -> None:
    with pytest.raises(KubeletArgumentsError, match=words):
        with_node_ip(text, ADDRESS)
