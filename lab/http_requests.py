"""HTTP requests from inside nodes and pods: many at once, or a steady stream of them while a fault is injected.

They are made by the node's Python in the network namespace of the node or pod, so that no process has to be started in
a pod for each. The classes' programs run there.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from urllib.parse import urlsplit

import network
import nodes
from commands import LabError, in_netns, run
from state import Lab

_FETCH = '''\
import http.client, sys, urllib.parse

def fetch(url, timeout):
    """Return the answer and no reason, or None and the reason why there is no answer."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
    doing = "connecting"
    try:
        connection.connect()
        doing = "answer"
        connection.request("GET", parts.path or "/", headers={"Connection": "close"})
        answer = connection.getresponse()
        content = answer.read().decode()
        return (content, None) if answer.status == 200 else (None, f"status {answer.status}")
    except (OSError, http.client.HTTPException) as error:
        return None, f"{doing}: {type(error).__name__}"
    finally:
        connection.close()
'''
_ASK = (
    _FETCH
    + """
part = int(sys.argv[1])
import concurrent.futures, json
timeout, urls = json.load(sys.stdin)
with concurrent.futures.ThreadPoolExecutor(8) as workers:
    print(json.dumps(list(workers.map(lambda url: fetch(url, timeout)[part], urls))))
"""
)
_ANSWER, _REASON = "0", "1"
"""Arguments of that program: print the answers, or the reasons why there are none."""
_STREAM = (
    _FETCH
    + """
import concurrent.futures, json, select, time
timeout, interval, urls = json.loads(sys.stdin.readline())
done = []
def ask(started, url):
    begun = time.time()
    reason = fetch(url, timeout)[1]
    ended = time.time()
    done.append((started, url, reason and f"{reason} after {ended - begun:.2f} s, begun {begun - started:.2f} s late"))
with concurrent.futures.ThreadPoolExecutor(64) as workers:
    at = time.time()
    while not select.select([sys.stdin], [], [], max(0.0, at - time.time()))[0]:
        for url in urls:
            workers.submit(ask, time.time(), url)
        at += interval
print(json.dumps(done))
"""
)

_TIMEOUT = 3.0
"""Seconds for one request."""
_INTERVAL = 0.25
"""Seconds between two requests of a stream."""


@dataclass(frozen=True)
class Source:
    """From where requests are made: a node's network namespace, or that of a pod on it (`netns`, a path there)."""

    name: str
    node: str
    address: str
    netns: str | None = None


@dataclass(frozen=True)
class Loss:
    """A lost request: when it was made (time.time), in seconds since the first of all, and what happened to it."""

    at: float
    since_first: float
    reason: str

    @property
    def text(self) -> str:
        """What happened, and when."""
        return f"at {self.since_first:.1f} s {self.reason}"


@dataclass(frozen=True)
class Stream:
    """What became of steady requests from one source to one URL: how many there were, how many were lost.

    A request is lost if there is no answer with status 200, and none comes within 3 s. `silence` is the longest time in
    seconds from the first lost request to the next answered one.
    """

    source: str
    url: str
    requests: int
    lost: int
    silence: float
    losses: tuple[Loss, ...] = ()

    @property
    def host(self) -> str:
        """The host of the URL."""
        return urlsplit(self.url).hostname or ""


class Streams(list[Stream]):
    """The streams of one measurement; it is filled when the measurement ends."""

    def lost(self) -> int:
        """Return how many requests were lost in all."""
        return sum(stream.lost for stream in self)

    def requests(self) -> int:
        """Return how many requests there were in all."""
        return sum(stream.requests for stream in self)

    def silence(self) -> float:
        """Return the longest silence of any stream in seconds."""
        return max((stream.silence for stream in self), default=0.0)


def ask(lab: Lab, source: Source, urls: Sequence[str]) -> list[str | None]:
    """Request these URLs, eight at a time, and return the answers in their order; None: no answer."""
    return _ask(lab, source, urls, _ANSWER)


def reasons(lab: Lab, source: Source, urls: Sequence[str]) -> list[str | None]:
    """Request these URLs as ask does, and return why there was no answer with status 200; None: there was one."""
    return _ask(lab, source, urls, _REASON)


def _ask(lab: Lab, source: Source, urls: Sequence[str], part: str) -> list[str | None]:
    if not urls:
        return []
    asking = command(lab, source, _ASK, part)
    told: list[str | None] = json.loads(
        run(*asking, stdin=json.dumps([_TIMEOUT, urls]), timeout=30 + _TIMEOUT * len(urls))
    )
    return told


def ask_from_internet(lab: Lab, urls: Sequence[str]) -> list[str | None]:
    """Request these URLs from the lab's internet host."""
    asking = in_netns(lab.netns(network.INTERNET), ["/usr/bin/python3", "-c", _ASK, _ANSWER])
    answers: list[str | None] = json.loads(run(*asking, stdin=json.dumps([_TIMEOUT, urls]), timeout=60))
    return answers


@contextmanager
def streams(lab: Lab, wanted: Sequence[tuple[Source, Sequence[str]]]) -> Iterator[Streams]:
    """Request the URLs of each source four times a second for as long as the context lasts."""
    measured = Streams()
    running = []
    for source, urls in wanted:
        process = subprocess.Popen(
            command(lab, source, _STREAM),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append((source, process))
        assert process.stdin is not None
        process.stdin.write(json.dumps([_TIMEOUT, _INTERVAL, list(urls)]) + "\n")
        process.stdin.flush()
    try:
        yield measured
    finally:
        for source, process in running:
            try:
                output, error = process.communicate("\n", timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise LabError(f"the requests from {source.name} did not end within 30 s") from None
            if process.returncode != 0:
                raise LabError(f"the requests from {source.name} could not be made: {error.strip()[-300:]}")
            measured.extend(summarised(source.name, json.loads(output)))


def summarised(source: str, done: Sequence[tuple[float, str, str | None]]) -> Iterator[Stream]:
    """Yield the stream to each URL; ``done`` has when each request was made, its URL, and the reason if it was lost."""
    first = min((at for at, _url, _reason in done), default=0.0)
    for url, group in groupby(sorted(done, key=lambda each: (each[1], each[0])), key=lambda each: each[1]):
        results = [(at, reason) for at, _url, reason in group]
        silence, since = 0.0, None
        for at, reason in results:
            if reason is not None:
                since = at if since is None else since
            if since is not None:
                silence = max(silence, at - since)
            if reason is None:
                since = None
        losses = tuple(Loss(at, at - first, reason) for at, reason in results if reason is not None)
        yield Stream(source, url, len(results), len(losses), silence, losses)


def command(lab: Lab, source: Source, program: str, *arguments: str) -> list[str]:
    """Return the command line that runs a Python program in the network namespace of a source."""
    python = ["/usr/bin/python3", "-c", program, *arguments]
    enter = ["nsenter", f"--net={source.netns}", *python] if source.netns else python
    return nodes.command(lab, lab.topology().node(source.node), enter)
