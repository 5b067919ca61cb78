"""fisx as an oracle: cross-sections with cascade, and layers."""

import math
from functools import cache
from itertools import count

from tests.conftest import skip_or_fail

_NUMBER = count()


@cache
def load_elements():
    try:
        import fisx
    except ImportError:
        skip_or_fail("fisx is not installed; pip install hpcxrf[test]")
    elements = fisx.Elements()
    elements.initializeAsPyMca()
    return elements


def compute_cross_section(symbol, shell, incident_kev, least_kev=0.1, efficiency=lambda energy: 1.0):
    """cm2/g of all lines of a shell, cascade included, each times an efficiency."""
    lines = load_elements().getExcitationFactors(symbol, incident_kev)[0]
    return sum(
        line["rate"] * efficiency(line["energy"])
        for name, line in lines.items()
        if name.startswith(shell) and line["energy"] > least_kev
    )


def compute_layer(composition, areal_density_ug_cm2, incident_kev, families, angles=(45.0, 45.0)):
    """{family: (primary, secondary)} without detector, on any scale."""
    import fisx

    name = f"layer {next(_NUMBER)}"
    material = fisx.Material(name, 1.0, 1.0)
    material.setComposition(composition)
    load_elements().addMaterial(material)
    xrf = fisx.XRF()
    xrf.setBeam(incident_kev)
    xrf.setSample([[name, 1.0, areal_density_ug_cm2 * 1e-6]])
    xrf.setGeometry(*angles)
    names = {f: f"{f} K" if "_" not in f else f.replace("_", " ") for f in families}
    found = xrf.getMultilayerFluorescence(list(names.values()), load_elements(), secondary=1, useMassFractions=1)
    layers = {f: next(iter(found[long].values())) for f, long in names.items()}
    return {
        f: tuple(sum(line[kind] for line in lines.values()) for kind in ("primary", "secondary"))
        for f, lines in layers.items()
    }


@cache
def attenuation(symbol, energy_kev):
    """cm2/g, total and photoelectric."""
    found = load_elements().getMassAttenuationCoefficients(symbol, energy_kev)
    return found["total"][0], found["photoelectric"][0]


@cache
def record(energy_kev, air_path_mm, be_window_um, dead_layer_um, chip_thickness_um):
    """Share of the photons that a silicon detector records behind dry air and beryllium."""
    air = sum(w * attenuation(s, energy_kev)[0] for s, w in (("N", 0.7553), ("O", 0.2318), ("Ar", 0.0129)))
    total, photo = attenuation("Si", energy_kev)
    depth = air * 1.205e-3 * air_path_mm * 0.1
    depth += attenuation("Be", energy_kev)[0] * 1.848 * be_window_um * 1e-4 + total * 2.33 * dead_layer_um * 1e-4
    return math.exp(-depth) * -math.expm1(-photo * 2.33 * chip_thickness_um * 1e-4)
