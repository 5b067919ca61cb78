"""The rules by which a detector disagrees, at their limits."""

from types import SimpleNamespace

import pytest
import torch

from hpcxrf.fitting.result import FitStatus
from hpcxrf.pipeline.prepare.agreement import find_disagreeing

TABLE = SimpleNamespace(
    component=torch.tensor([0, 1, 2]),
    escape_parent=torch.tensor([-1, -1, -1]),
    ratio=torch.ones(3),
    energy_kev=torch.tensor([3.69, 6.40, 8.64]),
)


def fit(*, missing_r2=0.0, chi2=1.0, counts=(2e4, 3e4, 1e4)):
    amplitude = torch.tensor(counts, dtype=torch.float64)
    return SimpleNamespace(
        status=FitStatus.CONVERGED,
        r2=0.999 - missing_r2,
        r2_expected=0.999,
        reduced_chi2=chi2,
        amplitude=amplitude,
        amplitude_sigma=amplitude.sqrt(),
        component_names=("Ca", "Fe", "Zn"),
        table=TABLE,
    )


@pytest.mark.parametrize(
    ("missing_r2", "chi2", "left_out"),
    [(0.05, 100.0, True), (0.05, 9.0, False), (0.015, 100.0, False), (0.0, 100.0, False)],
)
def test_a_spectrum_is_not_of_these_elements_only_if_both_r2_and_chi2_say_so(missing_r2, chi2, left_out):
    fits = [fit(), fit(), fit(missing_r2=missing_r2, chi2=chi2), fit()]
    assert (list(find_disagreeing(fits)) == [2]) == left_out


def test_where_all_fit_badly_none_is_worse_than_the_others():
    fits = [fit(missing_r2=0.05, chi2=50.0), fit(missing_r2=0.06, chi2=60.0), fit(missing_r2=0.07, chi2=100.0)]
    assert find_disagreeing(fits) == {}


@pytest.mark.parametrize(
    ("others", "left_out"), [((0, 1), [2]), ((0, 1, 3), [2]), ((0,), []), ((), [])], ids=["3", "4", "2", "1"]
)
def test_of_three_detectors_or_more_one_may_be_condemned_by_an_element(others, left_out):
    used = {*others, 2}
    fits = [fit(counts=(2e4, 3e4, 4e4)) if d == 2 else fit() for d in range(4)]
    assert list(find_disagreeing(fits, excluded=[d for d in range(4) if d not in used])) == left_out


def test_of_four_detectors_two_that_differ_condemn_nobody():
    assert find_disagreeing([fit(), fit(counts=(2e4, 3e4, 4e4)), fit(), fit(counts=(2e4, 3e4, 4e4))]) == {}


def test_half_more_of_an_element_is_what_geometry_explains():
    assert find_disagreeing([fit(), fit(counts=(2e4, 3e4, 1.4e4)), fit(), fit()]) == {}
