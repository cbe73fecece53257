# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prometheus' text format, version 0.0.4: families of metrics in, text out. Pure.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

_LONGEST_LABEL = 200
"""Characters of a label's value; the rest is cut off."""


@dataclass(frozen=True)
class Metric:
    """A family of samples: its name, type, meaning, and the names of its labels."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Histogram:
    """A histogram's sums. ``buckets`` are not cumulative: one for each bound, and one for what is above the last."""

    bounds: Sequence[float]
    buckets: Sequence[int]
    sum: float
    """In the metric's unit."""


@dataclass
class Family:
    """A metric and its samples, by the values of its labels in the metric's order."""

    metric: Metric
    samples: dict[tuple[str, ...], float | Histogram] = field(default_factory=dict)


def render(families: Iterable[Family]) -> str:
    """Return the text. A family without samples is left out: a metric that is not known has no value."""
    return "".join(line + "\n" for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterable[str]:
    metric = family.metric
    yield f"# HELP {metric.name} {_escape(metric.help, quotes=False)}"
    yield f"# TYPE {metric.name} {metric.type}"
    for values, sample in family.samples.items():
        labels = dict(zip(metric.labels, values, strict=True))
        if isinstance(sample, Histogram):
            yield from _histogram(metric.name, labels, sample)
        else:
            yield f"{metric.name}{_labels(labels)} {_number(sample)}"


def _histogram(name: str, labels: Mapping[str, str], histogram: Histogram) -> Iterable[str]:
    count = 0
    for bound, bucket in zip((*map(_number, histogram.bounds), "+Inf"), histogram.buckets, strict=True):
        count += bucket
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {count}"
    yield f"{name}_sum{_labels(labels)} {_number(histogram.sum)}"
    yield f"{name}_count{_labels(labels)} {count}"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{name}="{_escape(value[:_LONGEST_LABEL])}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _escape(text: str, *, quotes: bool = True) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    # Lone surrogates, which JSON can carry, are no UTF-8.
    escaped = escaped.encode("utf-8", "replace").decode()
    return escaped.replace('"', '\\"') if quotes else escaped


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
