"""Damaged files of every kind: only the project's own errors, no hang, no runaway memory."""

import pytest

from tests.fuzz.harness import run_cases


def explain(failed):
    return "\n".join(f"case {one.number} ({one.seed}): {one.fault}" for one in failed)


def test_damaged_files_raise_the_projects_own_errors_and_nothing_else():
    failed = run_cases(range(60), seed=20)
    assert not failed, explain(failed)


@pytest.mark.more
@pytest.mark.timeout(3000)
def test_two_thousand_damaged_files_raise_the_projects_own_errors_and_nothing_else():
    failed = run_cases(range(2000), seed=13)
    assert not failed, explain(failed)
