# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Render the status page: one HTML file that asks nothing of anybody. For the action plugin of the same name.

All text is escaped by Jinja: names of pods, endpoints and messages come from other machines. The browser runs only the
script and the styles of this collection, which the page's own Content-Security-Policy names by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..module_utils.node.model import IDLE, NONE, RELAYED
from ..module_utils.node.report import RULES
from ..module_utils.overlay.state import DIRECT
from ..module_utils.overview import words
from ..module_utils.overview.cluster import Cluster
from ..module_utils.overview.pool_picture import STATES, pool_pictures
from ..module_utils.overview.site_map import CROWDED_WAYS, MANY_WAYS, NARROW, WIDE, site_map

_TEMPLATE, _STYLES, _SCRIPT = "status.html.j2", "status.css", "status.js"

FEW_NODES = 6
"""Up to so many nodes, the sections of all nodes are open."""

MOST_WAYS = 200
"""Ways that the table lists; more are counted."""


def render_page(cluster: Cluster, templates: Path) -> str:
    """Return the page's HTML. ``templates`` is the directory that has its template, styles and script."""
    styles = (templates / _STYLES).read_text(encoding="utf-8")
    script = (templates / _SCRIPT).read_text(encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=words.duration, amount=words.amount, moment=words.moment, shortened=words.shortened
    )
    environment.globals.update(count=words.count, rule_words=RULES)
    listed = [way for way in cluster.ways if way.kind != IDLE]
    listed.sort(key=lambda way: ((NONE, RELAYED, DIRECT).index(way.kind), way.to_relay))
    return environment.get_template(_TEMPLATE).render(
        cluster=cluster,
        states=cluster.states,
        relays=cluster.relays,
        anchors={answer.name: f"node-{number}" for number, answer in enumerate(cluster.answers, 1)},
        maps=[("wide", site_map(cluster, WIDE)), ("narrow", site_map(cluster, NARROW))],
        many_ways=MANY_WAYS,
        crowded_ways=CROWDED_WAYS,
        pools=pool_pictures(cluster),
        pool_states=STATES,
        kinds=Counter(way.kind for way in cluster.ways),
        ways=listed[:MOST_WAYS],
        ways_left_out=max(0, len(listed) - MOST_WAYS),
        problems_of={
            answer.name: [problem for problem in cluster.problems if answer.name in problem.nodes]
            for answer in cluster.answers
        },
        are_open=len(cluster.answers) <= FEW_NODES,
        styles=Markup(styles),
        script=Markup(script),
        style_hash=_hash(styles),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """Return the source expression of a Content-Security-Policy (CSP level 3, section 2.3.1)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
