# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The status page in a real browser: it says what is wrong, shuts nobody out, runs nothing foreign, asks nobody.

Pictures are kept in build/status-page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.evio.cni.plugins.module_utils.overview.answers import NodeAnswer
from ansible_collections.evio.cni.plugins.module_utils.overview.cluster import Cluster, cluster_of
from ansible_collections.evio.cni.plugins.plugin_utils.status_page import render_page

from .browser import Browser, open_browser
from .example_cluster import NOW, example_cluster, node_status

ROOT = Path(__file__).resolve().parents[6]
TEMPLATES = Path(__file__).resolve().parents[2] / "roles/status/templates"
PICTURES = ROOT / "build/status-page"

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'; DROP TABLE pods; --",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(3)",
    "</style><style>*{display:none}</style>",
    "&lt;b&gt;\u202egnp.exe\x1b[31m",
)
"""Names that somebody may give to a pod, a node or a site to take over the page."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with open_browser() as started:
        yield started


def page_of(cluster: Cluster, tmp_path: Path) -> Path:
    page = tmp_path / "status.html"
    page.write_text(render_page(cluster, TEMPLATES), encoding="utf-8")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375])
def test_page_is_quiet_and_shuts_nobody_out(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    page = page_of(example_cluster(3, faults=True), tmp_path)
    assert browser.open(page, width=width, scheme=scheme) == []
    browser.picture(PICTURES / f"3-nodes-{scheme}-{width}.png")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.violations() == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 375)])
def test_page_of_300_nodes_is_quiet_and_fits(browser: Browser, tmp_path: Path, scheme: str, width: int) -> None:
    page = page_of(example_cluster(300, node_bits=16, faults=True), tmp_path)
    assert browser.open(page, width=width, scheme=scheme) == []
    browser.picture(PICTURES / f"300-nodes-{scheme}-{width}.png")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    if width > 1000:
        # Its colours are those of the page of 3 nodes; computing them for 20 000 elements takes minutes.
        assert browser.violations(without="color-contrast") == []


def test_what_is_wrong_stands_first_with_its_remedy(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of(example_cluster(3, faults=True), tmp_path))
    text = browser.run("return document.body.innerText")
    first, second, third = (
        text.index(words) for words in ("edge2", "systemctl restart openvswitch-switch", "Sites, nodes and the ways")
    )
    assert first < second < third
    for words in ("10.244.0.0/16", "in quarantine", "by cloud1", "shop/web-0-cloud1", "10.244.0.2/24", "evio-0123"):
        assert words in text
    assert "251 of 253 addresses free" in text
    assert "the last of 120" in text


def test_cluster_in_order_says_so(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of(example_cluster(3), tmp_path))
    assert "Nothing is wrong." in browser.run("return document.body.innerText")


def test_node_of_300_is_found_by_a_pods_name_and_opened_by_a_link(browser: Browser, tmp_path: Path) -> None:
    page = page_of(example_cluster(300, node_bits=16, faults=True), tmp_path)
    browser.open(page)
    browser.run(
        "const field = document.getElementById('filter');"
        "field.value = 'web-0-edge123'; field.dispatchEvent(new Event('input'))"
    )
    shown = "return [...document.querySelectorAll('details.node:not([hidden])')].map((node) => node.id)"
    assert browser.run(shown) == ["node-126"]
    assert browser.run("return document.getElementById('found').innerText") == "1 of 300 nodes"
    browser.open(page, hash_="#node-42")
    assert browser.run("return [...document.querySelectorAll('details[open]')].map((node) => node.id)") == ["node-42"]


def test_node_that_the_keyboard_is_on_stands_out_in_the_map(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of(example_cluster(12), tmp_path))
    browser.run("document.querySelector('.wide .chip').focus()")
    ways = browser.run("return document.querySelectorAll('.wide .way.on').length")
    assert ways == 11


def test_all_sections_are_on_paper(browser: Browser, tmp_path: Path) -> None:
    browser.open(page_of(example_cluster(12, faults=True), tmp_path))
    printed = browser.paper(PICTURES / "12-nodes.pdf")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 4
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("return document.querySelectorAll('details.node:not([open])').length") == 0
    browser.picture(PICTURES / "12-nodes-print.png")
    browser.run("dispatchEvent(new Event('afterprint'))")
    assert browser.run("return document.querySelectorAll('details.node[open]').length") == 0


def test_page_without_javascript_has_the_same_words(browser: Browser, tmp_path: Path) -> None:
    page = page_of(example_cluster(3, faults=True), tmp_path)
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.driver.get(page.as_uri())
        assert "shop/web-0-cloud1" in browser.driver.find_element("tag name", "body").text
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_nodes_stays_text(browser: Browser, tmp_path: Path, text: str) -> None:
    """Each text of a node's status that another machine or program can choose is the hostile one."""
    status = node_status(text)
    status["problems"] = [{"severity": "error", "what": text, "remedy": text, "run_on": "node"}]
    status["errors"] = [{"time": NOW, "unit": text, "message": text, "severity": text, "count": 2}]
    status["faults"] = [text]
    status["overlay"].update(fault=text, blocked=[text], summary=text, public_endpoint=text, is_relay=True)
    status["networks"][0]["pods"][0].update(namespace=text, name=text)
    status["networks"][0]["verdict"] = text
    status["claim"]["fence"] = text
    status["services"][0]["name"] = text
    peer = {**example_cluster(2).answers[0].status["overlay"]["peers"][0], "name": f"{text}2", "endpoint": text}  # type: ignore[index]
    status["overlay"]["peers"] = [peer, {**peer, "name": "other", "path": text, "kind": "relayed"}]
    answers = [
        NodeAnswer(text, status, public_endpoint=text),
        NodeAnswer(f"{text}2", None, text, site=text),
        NodeAnswer("other", node_status("other")),
    ]
    etcd = registry_of(text)
    cluster = cluster_of(text, answers, etcd, text, NOW)
    page = page_of(replace(cluster, registry_failure=None), tmp_path)
    assert browser.open(page) == []
    shown = browser.run("return document.body.innerText")
    assert shown.count("".join(character for character in text if character.isprintable())[:9]) > 5
    assert browser.run("return document.querySelectorAll('script').length") == 1
    assert browser.run("return document.querySelectorAll('style').length") == 1
    assert browser.run("return document.querySelectorAll('img, iframe, [onerror]').length") == 0
    links = browser.run("return [...document.querySelectorAll('a')].map((link) => link.getAttribute('href'))")
    assert {link[0] for link in links} == {"#"}


def registry_of(owner: str) -> dict[str, object]:
    """Return what etcd has of claims, with this name as owner."""
    cluster = example_cluster(1)
    assert cluster.registry is not None
    [claim] = cluster.registry["claims"]
    return {**cluster.registry, "claims": [{**claim, "node": owner}], "pins": {owner: ["10.244.7.0/24"]}}


def test_script_that_slips_into_the_page_is_not_run(browser: Browser, tmp_path: Path) -> None:
    """The page's policy is a second wall behind the escaping."""
    page = page_of(example_cluster(3), tmp_path)
    broken = page.read_text().replace("</main>", "<script>window.taken = true</script><img src='https://192.0.2.1/x'>")
    page.write_text(broken)
    assert any("Content Security Policy" in line for line in browser.open(page))
    assert browser.run("return window.taken") is None
