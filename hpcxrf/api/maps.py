"""Maps of counts that are arrays or opened files: fitted and drawn."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hpcxrf import __version__
from hpcxrf.fitting.result import SpectrumFit
from hpcxrf.formats import registry
from hpcxrf.formats.scan import RawScan, ReadOptions
from hpcxrf.methods import PixelMethodName
from hpcxrf.pipeline.arguments import Counts, errors_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from hpcxrf.results.opened import Results


def open_scan(
    path: str | Path,
    *,
    dataset_path: str | Sequence[str] | None = None,
    energy_axis: int | None = None,
    detector_axis: int | None = None,
    map_shape: tuple[int, int] | None = None,
    positions: tuple[str, str] | None = None,
    energy_offset_kev: float | None = None,
    energy_slope_kev: float | None = None,
    allow_external: bool = False,
) -> RawScan:
    """Open a scan of any format that hpcxrf reads; only headers are read.

    Args:
        path: a file, or a Zarr folder.
        dataset_path: array inside an HDF5, Zarr or npz file, where the file has several; a pattern or a list: one array
            a detector.
        energy_axis: axis of the channels in that array.
        detector_axis: axis of the detectors in that array.
        map_shape: rows and columns of a scan that is stored as a list of points.
        positions: paths of the arrays of x and y positions, one value a point.
        energy_offset_kev: energy of channel 0, over that of the file; goes with the slope.
        energy_slope_kev: energy per channel, above 0.
        allow_external: follow external links and virtual datasets of HDF5 files.

    Returns:
        The scan: `scan.shape` is (detector, y, x, channel), `scan.read_counts(slice(0, 8))` reads rows,
        `scan.calibration` and `scan.incident_energy_kev` are None where the file does not give them.

    Raises:
        InputFileError: the file cannot be read, or its format is not known.

    Example:
        >>> scan = hpcxrf.open_scan("leaf.npz")
        >>> scan.shape
        (1, 6, 8, 1500)
    """
    options = ReadOptions(
        dataset_path=dataset_path if dataset_path is None or isinstance(dataset_path, str) else tuple(dataset_path),
        energy_axis=energy_axis,
        detector_axis=detector_axis,
        map_shape=map_shape,
        positions=positions,
        energy_offset_kev=energy_offset_kev,
        energy_slope_kev=energy_slope_kev,
        allow_external=allow_external,
    )
    return registry.open_scan(Path(path), options)


def fit_map(
    counts: Counts | RawScan,
    fit: SpectrumFit | Sequence[SpectrumFit],
    *,
    method: PixelMethodName = "linear",
    detector: int | Literal["sum"] | None = None,
    device: str = "auto",
    background: Literal["columns", "snip"] = "columns",
    background_columns: int | None = 4,
    weights: Literal["auto", "one"] = "auto",
    deviance: bool = True,
) -> "xr.Dataset":
    """Fit every pixel at the theta of the summed spectrum: the maps of a run on the same counts.

    A run leaves pixels with a saturated channel out of its summed spectrum; sum the others yourself where there
    are any.

    Args:
        counts: raw counts, full spectra with channels from 0: (y, x, channel), (spectrum, channel) for pixels in any
            order, (detector, y, x, channel), or a scan of `open_scan`, which is read band by band.
        fit: fit of the summed spectrum; for several detectors a list with the fit of each.
        method: `linear` (signed, unbiased), `nnls` (the same, not below 0), `poisson` (maximum likelihood, not below
            0), `nonlinear` (energy axis and width of every pixel free near those of the sum), `full` (the same by the
            true model, some tens of pixels a second).
        detector: number of the detector, counted from 0, where one of several is wanted; `sum`: the raw sum of all,
            each with its own fit.
        device: `auto`, `cpu` or `cuda`.
        background: `columns` (fitted in every pixel), or for comparison `snip` (clipped; `linear` and `nnls` only).
        background_columns: columns into which the fitted background is grouped, 0 to 16; None: as few as the pixels
            show to leave absent components without bias.
        weights: `auto` weighs classes of pixels by their own mean spectrum where `linear` gains precision by it;
            `one`: the same weights for all.
        deviance: False leaves the maps of the deviance NaN and takes a fourth of the time.

    Returns:
        Dataset of `amplitude`, `sigma`, `detection_limit` (component, y, x) in recorded counts of the component,
        `status` (y, x) with its meanings as attributes, `deviance` (y, x) per degree of freedom, and `deviance_z`
        (y, x), how far it is above what noise alone gives, in standard deviations; with a leading
        axis `detector` where `fit` is a list, `spectrum` for (y, x) where the pixels have no order; `nonlinear` and
        `full` add `theta_shift` and `theta_shift_sigma` (parameter, y, x). Stage positions of a scan are coordinates.

    Raises:
        ConfigError: counts, detector or options that are not valid.
        FitError: a fit without solution, components with indistinguishable spectra, no such device.
        InputFileError: the scan cannot be read.

    Example:
        >>> fit = hpcxrf.fit_spectrum(cube.sum((0, 1)), ["Si", "Ca", "Fe"], 12.0)
        >>> maps = hpcxrf.fit_map(cube, fit, method="linear")
        >>> maps["amplitude"].sizes["component"]
        5
        >>> maps.xrf.map("Fe").dims
        ('y', 'x')
    """
    from hpcxrf.pipeline import map_arguments as arguments
    from hpcxrf.pipeline.arrays import map_detector
    from hpcxrf.pipeline.pixels.from_config import free_parameters
    from hpcxrf.results.datasets import maps_dataset

    register_accessor()
    with errors_of("fit_map"):
        config = arguments.pixel_config(method, background, background_columns, weights, deviance=deviance)
        spectra, pixel_dims = arguments.read_pixels(counts)
        named = arguments.name_fits(fit, spectra, detector)
        where = arguments.choose_torch_device(device)
        maps = [map_detector(spectra, name, named.fits, named.problems, config, where) for name in named.wanted]
    first, several = named.problems[0], not isinstance(fit, SpectrumFit) and detector is None
    return maps_dataset(
        [one.arrays for one in maps],
        pixel_dims=pixel_dims,
        components=named.fits[named.wanted[0]].component_names,
        parameters=free_parameters(method),
        detectors=named.wanted if several else None,
        positions_um=arguments.read_positions(counts) if isinstance(counts, RawScan) else {},
        attributes={
            "hpcxrf_version": __version__,
            "method": method,
            "device": str(where),
            "constants": first.constants.name,
            "line_table": first.table.table_version,
            "incident_energy_kev": first.table.incident_energy_kev,
            "photon_variance": {name: one.photon_variance for name, one in zip(named.wanted, maps, strict=True)},
            "notes": "\n".join(dict.fromkeys(note.text for one in maps for note in one.notes)),
        },
    )


def plot_maps(
    maps: "xr.Dataset | Results", components: Sequence[str] | None = None, *, detector: str | None = None
) -> "Figure":
    """Draw maps, each on its own colour scale from its 1st to its 99th percentile; grey pixels were not fitted.

    Args:
        maps: of `fit_map`, of `open_results(...).maps()`, or the results of a run with one dataset.
        components: names of the maps; None: all.
        detector: name on the detector axis; None: the first.

    Returns:
        A matplotlib figure.

    Raises:
        ConfigError: not maps, or no such component or detector.

    Example:
        >>> maps = hpcxrf.open_results("out").maps()
        >>> hpcxrf.plot_maps(maps, ["Ca", "Fe"]).savefig("maps.png")
    """
    from hpcxrf.results.accessor import draw_maps
    from hpcxrf.results.opened import Results

    register_accessor()
    with errors_of("plot_maps"):
        return draw_maps(maps.maps() if isinstance(maps, Results) else maps, components, detector)


def register_accessor() -> None:
    """Let every xarray Dataset have `.xrf`, as `fit_map`, `open_results` and `plot_maps` do; once is enough.

    Example:
        >>> hpcxrf.register_accessor()
        >>> import xarray
        >>> maps = xarray.open_zarr("out/results/leaf.zarr", group="maps", consolidated=False)
        >>> maps.xrf.components[:2]
        ('Si', 'Ca')
    """
    from hpcxrf.results import accessor

    accessor.register_accessor()
