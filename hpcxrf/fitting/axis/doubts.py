"""What makes an energy axis doubtful where nobody lists the elements: little that fixes it, or much that is left."""

from collections.abc import Mapping, Sequence
from typing import Final

from hpcxrf.fitting.axis.binned import families_by_name
from hpcxrf.fitting.axis.flags import AMBIGUOUS, NOT_FOUND
from hpcxrf.fitting.axis.peaks import Peaks
from hpcxrf.fitting.axis.race import FAINT_COUNTS, Runner
from hpcxrf.fitting.axis.review import Review
from hpcxrf.fitting.axis.verdict import Finding
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.physics.model import ELASTIC

ANCHOR_Z: Final = 10.0
"""Standard deviations of a family that stands out."""
# An axis is doubtful where its fit leaves more than the noise; flaws of the model leave more the more counts there are.
# Of 39 right axes of 2e4 to 3e6 counts two left more; with all names wrong 1.6e5 counts left 1.46.
_LEFT_BY_FIT: Final = 1.2
_FLAWS_PER_COUNT: Final = 1.5e-6
# Flaws in units of the usual ones. On 60 right axes of 1e6 to 8e7 counts they were 1.9 at most; with names shifted by
# one in Z 2.6, although 5e7 counts excused what that left.
_MOST_FLAWS: Final = 2.0
# Odds (natural logarithm) below which another axis is as good.
_MARGIN: Final = 20.0
_APART_KEV: Final = 0.3
# Offset, slope and incident energy of fewer peaks, or of fewer families that stand out, have no check.
_LEAST_PEAKS: Final = 5
_LEAST_ANCHORS: Final = 4
# Of so few counts (race.FAINT_COUNTS) names that are all shifted by one in Z explain the peaks as well, unless the
# elastic peak, which no element can stand for, contradicts them.
_ELASTIC: Final = "elastic peak"
_USUAL_COST: Final = 1.5
_LEFT_SIGMA: Final = 2.0
_MOST_LEFT: Final = 0.03


def leaves_much(fit: SpectrumFit) -> bool:
    """True where a fit leaves more than noise and the usual flaws of the model do."""
    usual = _LEFT_BY_FIT + _FLAWS_PER_COUNT * float(fit.counts.sum())
    return fit.reduced_chi2 > usual or fit.model_error > _MOST_FLAWS


def is_apart(name: str, other: str) -> bool:
    """True for two families whose main lines are not near to each other; pile-up is apart from all."""
    families = families_by_name()
    if name not in families or other not in families:
        return True
    return abs(families[name].alpha_kev - families[other].alpha_kev) > _APART_KEV


def describe_rivals(runners: Sequence[Runner]) -> list[Finding]:
    """What to say of other axes, of some that raced (best first), that are about as good as the best."""
    near = [one for one in runners[1:] if one.against - runners[0].against < _MARGIN * runners[0].found.chi2]
    if not near:
        return []
    others = "; ".join(
        f"offset {one.found.at.offset_kev:.4f} keV, slope {one.found.at.slope_kev:.6f} keV, "
        f"E0 {one.found.at.incident_kev:.3f} keV ({', '.join(one.found.names)})"
        for one in near
    )
    return [Finding(flag=AMBIGUOUS, text=f"another energy axis explains the spectrum about as well: {others}")]


def judge_unlisted(fit: SpectrumFit, peaks: Peaks, reviews: Mapping[str, Review]) -> list[Finding]:
    """What makes an axis doubtful where nobody lists the elements: little that fixes it, or much that is left."""
    doubts = []
    anchors = _list_anchors(fit, reviews)
    if peaks.channel.size < _LEAST_PEAKS:
        doubts.append(f"the spectrum has {peaks.channel.size} peaks, {_LEAST_PEAKS} are needed")
    if len(anchors) < _LEAST_ANCHORS:
        doubts.append(f"{len(anchors)} peaks fix it ({', '.join(anchors) or 'nothing'}), {_LEAST_ANCHORS} are needed")
    total = float(fit.counts.sum())
    if total < FAINT_COUNTS and ELASTIC in fit.component_names and _ELASTIC not in anchors:
        doubts.append(f"no elastic peak stands out of {total:.0f} counts")
    beyond = (fit.counts - fit.model).abs() - _LEFT_SIGMA * fit.model.clamp(min=1.0).sqrt()
    left = float(beyond.clamp(min=0.0).sum()) / total
    if left > _MOST_LEFT:
        doubts.append(f"{left:.1%} of the counts are left beyond their noise")
    elif leaves_much(fit):
        doubts.append(f"chi2 is {fit.reduced_chi2:.2f}, more than flaws of the model leave of so many counts")
    text = f"{'; '.join(doubts)} where no elements are listed"
    return [Finding(flag=NOT_FOUND, text=text)] if doubts else []


def _list_anchors(fit: SpectrumFit, reviews: Mapping[str, Review]) -> list[str]:
    """Usual families that stand out, apart from each other, and the elastic peak."""
    families = families_by_name()
    found: list[str] = []
    for name in sorted(reviews, key=lambda n: -reviews[n].z):
        usual = name in families and families[name].cost <= _USUAL_COST
        if usual and reviews[name].z > ANCHOR_Z and all(is_apart(name, other) for other in found):
            found.append(name)
    elastic = fit.component_names.index(ELASTIC) if ELASTIC in fit.component_names else -1
    if elastic >= 0 and float(fit.amplitude[elastic]) > ANCHOR_Z * float(fit.amplitude_sigma[elastic]):
        found.append(_ELASTIC)
    return found
