"""The table in docs/troubleshooting.md has the errors that lab/lab prove-errors provokes, and an entry for each."""

from __future__ import annotations

import error_proof
import preflight_proof
import pytest
import troubleshooting_page

WORDS = [look.words for fault in error_proof.FAULTS for look in fault.looks]


def test_table_says_of_what_is_provoked_that_it_is_and_of_nothing_else() -> None:
    assert set(WORDS) == troubleshooting_page.provoked_by("lab")


def test_errors_of_preflight_are_provoked_by_its_proof() -> None:
    told = {fault.words for fault in preflight_proof.FAULTS}
    assert troubleshooting_page.provoked_by("preflight") <= told


@pytest.mark.parametrize("words", WORDS)
def test_words_have_an_entry_that_ends_in_what_to_do(words: str) -> None:
    _before, found, entry = troubleshooting_page.entries().partition(words)
    assert found
    assert entry.partition("**")[2], "no text follows the words in bold type"
