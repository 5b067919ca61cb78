"""The model of a spectrum: its lines, its parameters, and counts that a network can be trained through."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hpcxrf.errors import ConfigError
from hpcxrf.physics import model
from hpcxrf.physics.constants import PHYSICS, ConstantSet
from hpcxrf.physics.detector import Detector
from hpcxrf.physics.lines import LineTable, build_line_table
from hpcxrf.physics.parameters import PARAMETER_NAMES, PARAMETERS, pack, replace_values
from hpcxrf.pipeline.arguments import check_model_sizes, errors_of, split_names


def line_table(elements: Sequence[str], incident_energy_kev: float, *, detector: Detector | None = None) -> LineTable:
    """Build the lines of the elements as the detector records them; `component_names` are the first amplitudes.

    Args:
        elements: families as for `fit_spectrum`.
        incident_energy_kev: 0.1 to 200 keV.
        detector: windows and material; None: the usual silicon drift detector.

    Raises:
        FitError: elements that do not exist, or that the incident energy cannot excite.

    Example:
        >>> hpcxrf.line_table(["Ca", "Fe"], 10.0).component_names
        ('Ca', 'Fe')
    """
    return build_line_table(split_names(elements), incident_energy_kev, efficiency=detector or Detector())


def default_theta(incident_energy_kev: float, **values: float) -> Tensor:
    """Give the theta of a usual detector, changed by name: `default_theta(12.5, energy_slope=0.012)`.

    Args:
        incident_energy_kev: becomes `coherent_sct_energy`; lines whose edge is above it are dark.
        values: values by the names of `hpcxrf.physics.parameters.PARAMETER_NAMES`.

    Returns:
        (parameter,) float64 in that order.

    Raises:
        ConfigError: a name that is not a parameter.

    Example:
        >>> hpcxrf.default_theta(12.5, energy_slope=0.012).shape
        torch.Size([22])
    """
    unknown = sorted(set(values) - set(PARAMETER_NAMES))
    if unknown:
        raise ConfigError(
            f"default_theta: no parameter is called {', '.join(unknown)}; there are {', '.join(PARAMETER_NAMES)}"
        )
    return pack(replace_values(PARAMETERS, {"coherent_sct_energy": incident_energy_kev} | values))


def model_spectrum(
    theta: Tensor,
    amplitude: Tensor,
    table: LineTable,
    channel: Tensor | int,
    *,
    constants: ConstantSet = PHYSICS,
    elastic: bool = True,
) -> Tensor:
    """Compute expected counts without background, differentiable in theta and amplitude.

    Args:
        theta: (*batch, parameter) float64, of `default_theta` or of your own network.
        amplitude: (*batch, component) counts: the table's components, then elastic, then Compton.
        table: of `line_table`.
        channel: (channel,) float64, counted from 0 of the full spectrum; or the number of channels.
        constants: line shapes and width law; the default is right unless MAPS is to be matched.
        elastic: whether there is an elastic column (not for a tube).

    Returns:
        (*batch, channel) counts; gradients are finite within the bounds of `PARAMETERS`.

    Raises:
        ConfigError: sizes that do not go together: all of them at once.

    Example:
        >>> table = hpcxrf.line_table(["Ca", "Fe"], 10.0)
        >>> amplitude = torch.tensor([300.0, 1000.0, 50.0, 80.0], dtype=torch.float64)
        >>> spectrum = hpcxrf.model_spectrum(hpcxrf.default_theta(10.0), amplitude, table, 2048)
        >>> round(float(spectrum.sum()) / 1430.0, 1)
        1.0
    """
    with errors_of("model_spectrum"):
        check_model_sizes(theta, amplitude, len(table.component_names) + 1 + int(elastic))
    if isinstance(channel, int):
        channel = torch.arange(channel, dtype=theta.dtype, device=theta.device)
    return model.model_spectrum(theta, amplitude, table, channel, constants=constants, elastic=elastic)
