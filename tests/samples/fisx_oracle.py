"""fisx as an oracle: cross-sections with cascade, and layers."""

from functools import cache
from itertools import count

import pytest

INSTALL = "pip install hpcxrf[bench]"
_NUMBER = count()


@cache
def load_elements():
    fisx = pytest.importorskip("fisx", reason=f"fisx is not installed; {INSTALL}")
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
