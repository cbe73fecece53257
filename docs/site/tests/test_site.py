# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The documentation site: errors in pages are found, and pages of playbooks say what the playbooks do."""

from __future__ import annotations

import re
from pathlib import Path

import build_site
import page_checks
import playbook_pages
import pytest
import variable_page

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the page docs/good.md, the playbook bootstrap, and the make target demo."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/good.md").write_text("# Good\n\n## What is `good`\n\n```yaml\nkey: value\n```\n")
    playbooks = tmp_path / "collections/ansible_collections/evio/cni/playbooks"
    playbooks.mkdir(parents=True)
    (playbooks / "bootstrap.yml").touch()
    (tmp_path / "Makefile").write_text("demo: setup\n")
    return tmp_path


def test_pages_of_the_repository_have_no_error() -> None:
    assert page_checks.check(ROOT) == []


@pytest.mark.parametrize(
    "text",
    [
        "[a page](good.md), [a heading](good.md#what-is-good), [another host](https://example.org/x)",
        "## Here\n\n[above](#here)",
        "Run `make demo`, then `ansible-playbook -i inventories/x playbooks/bootstrap.yml --limit node`.",
        "    ansible-playbook evio.cni.bootstrap",
        "```json\n{}\n```",
        "```sh\nfor node in a b; do echo $node; done\n```",
    ],
)
def test_correct_page_passes(repository: Path, text: str) -> None:
    (repository / "docs/page.md").write_text(text)
    assert page_checks.check(repository) == []


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("[a page](missing.md)", "the link to missing.md leads to no file"),
        ("[a heading](good.md#missing)", "the link to good.md#missing leads to no heading"),
        ("[above](#missing)", "the link to #missing leads to no heading"),
        ("![a picture](images/missing.svg)", "the link to images/missing.svg leads to no file"),
        ("```yaml\nkey: [value\n```", "a block of yaml cannot be read"),
        ("```json\n{'key': 1}\n```", "a block of json cannot be read"),
        ("```sh\nfor node in a b; do\n```", "a block of sh cannot be read"),
        ("Run `make domo`.", "the Makefile has no target domo"),
        ("    make domo", "the Makefile has no target domo"),
        ("`ansible-playbook evio.cni.bootstrop`", "there is no playbook bootstrop"),
        ("    ansible-playbook -i x playbooks/bootstrop.yml", "there is no playbook bootstrop"),
    ],
)
def test_error_in_page_is_found(repository: Path, text: str, finding: str) -> None:
    (repository / "docs/page.md").write_text(text)
    [found] = page_checks.check(repository)
    assert found.startswith(f"docs/page.md: {finding}")


def test_figure_that_has_its_home_in_the_benchmarks_is_found(repository: Path) -> None:
    (repository / "docs/benchmarks.md").write_text("A ping takes 0.66 to 0.71 ms, and TCP 1979 Mbit/s.\n")
    for name in ("scaling.md", "concepts.md"):
        (repository / "docs" / name).write_text("It takes 0.71 ms, and not 0.9 ms.\n")
    [found] = page_checks.check(repository)
    assert found.startswith("docs/scaling.md: 0.71 ms is a figure of docs/benchmarks.md")


@pytest.mark.parametrize(("link", "status"), [("good.md", 0), ("good.md#missing", 1), ("{ref}`missing`", 1)])
def test_sphinx_fails_after_a_warning(tmp_path: Path, link: str, status: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    text = link if link.startswith("{") else f"[words]({link})"
    (source / "index.md").write_text(f"# Index\n\n{text}\n\n```{{toctree}}\n:hidden:\n\ngood\n```\n")
    (source / "good.md").write_text("# Good\n")
    assert build_site.run_sphinx(source, tmp_path / "html") == status
    assert (tmp_path / "html/index.html").exists()


def test_each_page_has_one_place_in_the_contents() -> None:
    index = "# Title\n\n## First\n\n1. [One](one.md): words.\n\n## Second\n\n[One](one.md) and [two](two.md)\n"
    first = "\n```{toctree}\n:hidden:\n:caption: First\n\none\n```\n"
    second = "\n```{toctree}\n:hidden:\n:caption: Second\n\ntwo\n```\n"
    third = "\n```{toctree}\n:hidden:\n:caption: Further pages\n\nunlinked\n```\n"
    assert build_site.tables_of_contents(index, ["one", "two"]) == first + second
    assert build_site.tables_of_contents(index, ["one", "two", "unlinked"]) == first + second + third


def test_parts_of_a_page_have_names_for_screen_readers() -> None:
    html = (
        '<aside class="sidebar-drawer"><p class="caption" role="heading">x</p></aside>'
        '<a aria-role="button" href="y">z</a>'
    )
    assert build_site.with_aria_labels(html) == (
        '<aside class="sidebar-drawer" aria-label="Pages">'
        '<p class="caption" role="heading" aria-level="2">x</p></aside>'
        '<a href="y">z</a>'
    )


def test_links_out_of_the_site_lead_to_the_repository() -> None:
    text = "[lint](../Makefile), [lab](../lab), [page](concepts.md), [elsewhere](https://example.org/../x)"
    assert build_site.with_links_to_the_repository(text) == (
        "[lint](https://github.com/evio-cni/evio.cni/blob/main/Makefile), "
        "[lab](https://github.com/evio-cni/evio.cni/tree/main/lab), [page](concepts.md), [elsewhere](https://example.org/../x)"
    )


def test_title_of_a_role_without_description_is_short() -> None:
    assert build_site.adapted_reference("evio.cni.cluster role\n=====\n\nText\n").startswith(
        "cluster role\n============\n"
    )


def test_title_of_a_reference_page_is_short() -> None:
    text = "evio.cni.ovs_bridge module -- Keep the bridge\n+++++\n\n.. contents::\n   :local:\n   :depth: 1\n\nText\n"
    adapted = "ovs_bridge module\n+++++++++++++++++\n\nKeep the bridge\n\n\nText\n"
    assert build_site.adapted_reference(text) == adapted


def test_page_of_a_playbook_has_its_comment_plays_and_variables() -> None:
    page = playbook_pages.page("preflight")
    assert page.startswith("# preflight\n\nWhat will go wrong, said before anything is changed")
    assert "| Look at the hosts | `evio_nodes` | [preflight](../collection/preflight_role.rst) |" in page
    # A variable of a role that only an imported playbook runs.
    assert "| `evio_pod_cidr` | The network of all pods\\." in page
    assert "with a comma between them\\. Default: `10.244.0.0/16` | [cluster](../collection/cluster_role.rst) |" in page
    assert "Claims of node subnets are kept in etcd below <code>/evio/\\<cluster\\>/</code>" in page


def test_internal_variables_are_not_on_the_page_of_a_playbook() -> None:
    page = playbook_pages.page("bootstrap")
    assert "`evio_pod_cidr`" in page
    assert "`__evio" not in page


def test_page_of_variables_is_that_of_the_roles() -> None:
    assert variable_page.PAGE.read_text() == variable_page.page(), "run docs/site/variable_page.py"


def test_each_variable_that_people_set_has_one_row() -> None:
    roles = [path.name for path in (playbook_pages.COLLECTION / "roles").iterdir()]
    described = [variable.name for variable in playbook_pages.variables(roles)]
    assert {"evio_certificate_renew_days", "evio_site", "evio_pod_cidr"} <= set(described)
    rows = re.findall(r"(?m)^\| `(\w+)` \|", variable_page.page())
    assert sorted(rows) == described


def test_rows_of_variables_have_code_in_backticks_and_no_needless_escape() -> None:
    page = variable_page.page()
    assert "kept in etcd below `/evio/<cluster>/`." in page
    assert "| `evio_etcd_ca_cert` | `{{ evio_etcd_pki_dir }}/etcd/ca.crt` |" in page
    assert re.findall(r"\\[^|<>*]|</?code>|</?strong>", page) == []


@pytest.mark.parametrize("name", playbook_pages.runnable())
def test_each_playbook_says_what_it_is_for(name: str) -> None:
    assert playbook_pages.opening_comment(name)
    assert playbook_pages.purpose(name)


def test_hosts_that_an_expression_chooses_are_not_named() -> None:
    assert playbook_pages.hosts({"hosts": "evio_nodes{{ __evio_if_kubernetes }}"}) == "`evio_nodes`"
    assert playbook_pages.hosts({"hosts": "{{ evio_leaving_nodes }}"}) == "chosen while it runs"


def test_playbook_without_opening_comment_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "silent.yml").write_text("---\n- name: Do something\n  hosts: all\n")
    monkeypatch.setattr(playbook_pages, "PLAYBOOKS", tmp_path)
    with pytest.raises(ValueError, match="the playbook silent opens without a comment"):
        playbook_pages.opening_comment("silent")


def test_roles_in_blocks_of_tasks_are_found() -> None:
    block = {"block": [{"ansible.builtin.include_role": {"name": "evio.cni.etcd"}}]}
    play = {"roles": [{"role": "evio.cni.xmpp"}, "evio.cni.cluster"], "tasks": [block, block]}
    assert playbook_pages.roles_of(play) == ["xmpp", "cluster", "etcd"]
