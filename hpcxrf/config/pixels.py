"""The section `pixels` of the run file: how every pixel is fitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AliasChoices, ConfigDict, Field

from hpcxrf.config.fields import CHECKED
from hpcxrf.methods import METHODS, PixelMethodName, methods_that

OLD_WEIGHTS: Final = "phases"
"""Name of `weights` in version 0.1.0, which is still read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelConfig:
    """How the pixels are fitted."""

    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    method: PixelMethodName = "linear"
    """`linear`: signed and unbiased; `nnls`: non-negative least squares; `poisson`: non-negative maximum likelihood;
    `nonlinear`: energy offset, gain and width of every pixel free near those of the scan; `full`: the same by the true
    model, for scans of at most 10 000 pixels times detectors."""
    detectors: Literal["auto", "each", "sum", "both"] = "auto"
    """What there are maps of. `sum`: the raw counts of all detectors, fitted with every detector's own calibration;
    `both`: the sum, then each; `auto`: the same where there are several detectors and the method fits their sum, else
    each."""
    weights: Annotated[Literal["auto", "one"], Field(validation_alias=AliasChoices("weights", OLD_WEIGHTS))] = "auto"
    """Fit weights of the method `linear`: `auto`, where pixels are so unlike that it gains precision, classes of them
    are weighed by their own mean spectra, and the notes say so; `one`: always those of the scan's mean spectrum.
    Version 0.1.0 called it `phases`, which is still read."""
    background: Literal["columns", "snip"] = "columns"
    """`columns`: the fitted background's, free in every pixel; `snip`: every pixel's spectrum is clipped by itself, as
    other programs do it. It is biased at low counts and exists for comparison, with `linear` and `nnls` only."""
    background_columns: Annotated[int, Field(ge=0, le=16)] | None = 4
    """Columns into which the fitted background is grouped, free in every pixel; None: as few as the scan's own pixels
    show to leave absent components without bias, at most 16."""
    deviance: bool = True
    """True: the deviance map is computed, which costs some four times as much as the amplitudes and their sigma."""
    blocks_per_task: Annotated[int, Field(ge=1)] | None = None
    """Map blocks of a task; None: so many that a scan keeps 128 cores busy, and no task is too short. Changes no
    result."""

    @property
    def wants_weight_classes(self) -> bool:
        """Whether classes of pixels are looked for that gain precision by weights of their own."""
        return METHODS[self.method].weight_classes and self.background == "columns" and self.weights == "auto"


def old_name_faults(raw: object) -> list[str]:
    """Names of version 0.1.0 that stand beside their new ones.

    Args:
        raw: the whole run file, before it is checked.
    """
    pixels = raw.get("pixels") if isinstance(raw, Mapping) else None
    if isinstance(pixels, Mapping) and {"weights", OLD_WEIGHTS} <= set(pixels):
        return [
            f"pixels.weights: given as {pixels['weights']!r}, and by its old name pixels.{OLD_WEIGHTS} as "
            f"{pixels[OLD_WEIGHTS]!r}; remove pixels.{OLD_WEIGHTS}"
        ]
    return []


def pixel_faults(pixels: PixelConfig, remap: bool | PixelMethodName) -> list[str]:  # noqa: FBT001 (as the run file has it)
    """Options of the pixels that exclude each other, each with its place and the remedy.

    Args:
        pixels: the section `pixels`.
        remap: the option `regions.remap`.
    """
    faults = []
    again = None if isinstance(remap, bool) else remap
    if pixels.background == "snip" and not METHODS[pixels.method].snip:
        faults.append(
            f"pixels.background: snip is not available with pixels.method {pixels.method}, whose background is in the "
            f"fit; use pixels.method {methods_that('snip')}, or background: columns"
        )
    if pixels.background == "snip" and again is not None and not METHODS[again].snip:
        faults.append(f"regions.remap: {again} has its background in the fit; set pixels.background: columns")
    alone = [name for name in (pixels.method, again) if name is not None and not METHODS[name].sums]
    if pixels.detectors in {"sum", "both"} and alone:
        faults.append(
            f"pixels.detectors: {pixels.detectors} is not available with the method {alone[0]}, which fits the theta "
            "of one detector, not of a sum; set pixels.detectors: auto, which then leaves the sum out, or each"
        )
    return faults


def rename_old_options(plain: Mapping[str, Any]) -> dict[str, Any]:
    """An effective configuration, perhaps of version 0.1.0, with the names that its options have now.

    Args:
        plain: the whole configuration as JSON values, as a run directory keeps it.
    """
    pixels = plain.get("pixels")
    if not isinstance(pixels, Mapping):
        return dict(plain)
    return {**plain, "pixels": {("weights" if name == OLD_WEIGHTS else name): value for name, value in pixels.items()}}
