"""What a node calls a problem, and what stops a playbook, has an entry in docs/troubleshooting.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from troubleshooting_page import entries, one_line

COLLECTION = Path(__file__).resolve().parents[3] / "collections/ansible_collections/evio/cni"
PROBLEMS = (COLLECTION / "plugins/module_utils/node/problems.py").read_text()
TASK_FILES = sorted([*COLLECTION.glob("roles/*/tasks/**/*.yml"), *COLLECTION.glob("playbooks/*.yml")])

_CALLS_OF_PROBLEM = 15
"""At least so many problems are known: fewer would mean that the search finds them no more."""
_MESSAGES = 30


def problem_texts(source: str) -> list[list[str]]:
    """Return of each ``Problem(...)`` in a module the fixed words that its sentence can have, two or more in a row."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
            sentences = [
                call.args[1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Problem"
            ]
            found += [
                [words for part in _strings(sentence, function) if len((words := part.strip(" :,")).split()) > 1]
                for sentence in sentences
            ]
    return found


def _strings(expression: ast.AST, function: ast.FunctionDef) -> Iterator[str]:
    """Yield the literal strings of an expression, also of the variables in it to which the function gives literals."""
    for node in ast.walk(expression):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            for value in _values(node.id, function):
                yield from (
                    one.value for one in ast.walk(value) if isinstance(one, ast.Constant) and isinstance(one.value, str)
                )


def _values(name: str, function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Yield what the function assigns to a variable, and what it gives it in a loop over literal tuples."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == name for each in node.targets
        ):
            yield node.value
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and isinstance(node.iter, ast.Tuple):
            names = [each.id if isinstance(each, ast.Name) else "" for each in node.target.elts]
            if name in names:
                rows = [row for row in node.iter.elts if isinstance(row, ast.Tuple)]
                yield from (row.elts[names.index(name)] for row in rows)


def refusals(tasks: Any) -> Iterator[str]:
    """Yield the messages of the tasks ``fail`` and ``assert`` in a file of tasks or plays."""
    if isinstance(tasks, list):
        for each in tasks:
            yield from refusals(each)
    elif isinstance(tasks, dict):
        for module, key in (("ansible.builtin.fail", "msg"), ("ansible.builtin.assert", "fail_msg")):
            if module in tasks:
                yield one_line(tasks[module][key])
        for part in ("tasks", "pre_tasks", "post_tasks", "block", "rescue", "always"):
            yield from refusals(tasks.get(part, []))


def unexplained(message: str, page: str) -> list[str]:
    """Return those wordings of a message that the page does not have; an expression alone may have several.

    A wording is found by its first clause of three words or more. One that begins with a variable and says how to set
    it needs no entry. The words of other errors, which an expression hands on, are not looked at.
    """
    outside = [words for part in re.split(r"\{\{.*?\}\}", message) if (words := _first_clause(part))]
    if outside:
        return [] if _INPUT.search(message) or any(words in page for words in outside[:2]) else [message]
    inside = [part for found in re.findall(r"\{\{(.*?)\}\}", message) for part in re.findall("'(.*?)'", found)]
    return [part for part in inside if (words := _first_clause(part)) and not _INPUT.search(part) and words not in page]


_INPUT = re.compile(r"^evio_\w+(: not given| is ).*[;,] (say|set) |^: set it ")


def _first_clause(text: str) -> str:
    """Return the first clause of three words or more; empty if there is none."""
    clauses = (clause.strip(" ,.;:()") for clause in re.split(r"[.:;] ", text))
    return next((clause for clause in clauses if len(clause.split()) > 2), "")


@pytest.mark.parametrize("words", sorted({words for texts in problem_texts(PROBLEMS) for words in texts}))
def test_what_a_node_calls_a_problem_is_on_the_page(words: str) -> None:
    assert words in entries()


def test_all_problems_of_a_node_are_looked_at() -> None:
    found = problem_texts(PROBLEMS)
    assert len(found) == PROBLEMS.count("Problem(") >= _CALLS_OF_PROBLEM


def test_words_of_a_problem_are_found_wherever_they_are_written() -> None:
    source = """
def check(x):
    words = "has gone mad" if x else "is ill"
    yield Problem(ERROR, f"{x.name} {words}", "run it")
    for state, said in (("a", "not at home"), ("b", "lost in space")):
        yield Problem(ERROR, f"{x} is {said}: see there", "run it")
"""
    assert [sorted(texts) for texts in problem_texts(source)] == [
        ["has gone mad", "is ill"],
        ["lost in space", "not at home", "see there"],
    ]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(message, id=f"{path.relative_to(COLLECTION)}-{number}")
        for path in TASK_FILES
        for number, message in enumerate(refusals(yaml.safe_load(path.read_text())))
    ],
)
def test_what_stops_a_playbook_is_on_the_page(message: str) -> None:
    assert not unexplained(message, entries())


def test_all_refusals_are_looked_at() -> None:
    texts = [path.read_text() for path in TASK_FILES]
    written = sum(len(re.findall(r"ansible\.builtin\.(?:fail|assert):", text)) for text in texts)
    found = [message for text in texts for message in refusals(yaml.safe_load(text))]
    assert len(found) == written >= _MESSAGES


@pytest.mark.parametrize(
    "message",
    [
        "{{ inventory_hostname }} is made of green cheese: run {{ it }} again, for pods run there",
        "{{ 'the moon is made of green cheese' if x else 'evio_moon: not given; say which' }}",
    ],
)
def test_message_that_is_not_on_the_page_is_found(message: str) -> None:
    assert unexplained(message, entries())
