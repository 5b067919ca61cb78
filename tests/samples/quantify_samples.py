"""Simulated standards and samples on the level of rates: cross-sections and absorption of fisx, another detector.

A calibration always assumes the default detector and the tables of the fit. The truth has other cross-sections, one of
three geometries, certificates that are off by 3 %, a flux and a peak shape that are off by what their errors say, and
Poisson counts.
"""

import math

import numpy as np
from fisx_oracle import compute_cross_section, record

from hpcxrf.physics.detector import Detector
from hpcxrf.quantify.calibration import calibrate
from hpcxrf.quantify.curve import StandardPoint

# Air (mm), beryllium, dead layer, chip (um); the calibration assumes 10, 8, .1, 450.
GEOMETRIES = {"near": (8.0, 8.0, 0.10, 450.0), "far": (16.0, 12.0, 0.20, 400.0), "helium": (3.0, 8.0, 0.05, 500.0)}
STANDARDS = {
    # Elements of the AXO films, ug/cm2.
    "axo": (10.0, {"Ca": 1.931, "Fe": 0.504, "Cu": 0.284, "La_L": 1.101, "Pd_L": 0.18, "Mo_L": 0.132, "Pb_M": 0.761}),
    "seven K": (18.0, {"S": 20.0, "K": 17.0, "Ti": 13.0, "Mn": 5.0, "Ni": 5.0, "Zn": 4.0, "Br": 8.0}),
}
OTHERS = {
    "axo": ("Si", "S", "Cl", "K", "Ti", "Cr", "Mn", "Co", "Ni", "Zn", "Ba_L", "Cs_L", "I_L", "Au_M", "Bi_M"),
    "seven K": ("Si", "P", "Cl", "Ca", "Cr", "Fe", "Co", "Cu", "As", "Se", "Rb", "La_L", "Pt_L", "Pb_L", "Au_M"),
}
CERTIFICATE, I0, THETA = 0.03, 0.002, 0.004


def true_response(family, incident_kev, geometry):
    """Recorded counts per ug/cm2, on any scale."""
    symbol, _, shell = family.partition("_")
    return compute_cross_section(symbol, shell or "K", incident_kev, efficiency=lambda e: record(e, *geometry))


def simulate(rng, standard, geometry):
    """One standard and one sample: rows (family, origin, found, true, sigma, certificate's own deviation or NaN)."""
    incident_kev, certified = STANDARDS[standard]
    place = GEOMETRIES[geometry]
    response = {f: true_response(f, incident_kev, place) for f in (*certified, *OTHERS[standard])}
    off = {f: CERTIFICATE * rng.standard_normal() for f in certified}
    expected = {f: response[f] * density * (1.0 + off[f]) for f, density in certified.items()}
    exposure = 1e6 / sum(expected.values())

    def measure(mean):
        counts = rng.poisson(mean)
        return counts, math.sqrt(max(counts, 1))

    flux = 1.0 + I0 * rng.standard_normal()
    points = []
    for family, density in certified.items():
        counts, sigma = measure(expected[family] * exposure)
        shape = 1.0 + THETA * rng.standard_normal()
        points.append(
            StandardPoint(
                standard=standard,
                family=family,
                areal_density_ug_cm2=density,
                rate_hz=counts * shape * flux,
                counting=sigma / max(counts, 1),
                theta=THETA,
                i0=I0,
                certificate=CERTIFICATE,
            )
        )
    found = calibrate(points, incident_kev, Detector())
    rows = []
    for family, strength in response.items():
        true = 10.0 ** rng.uniform(4.0, 6.0) / (strength * exposure)
        counts, sigma = measure(true * strength * exposure)
        shape = 1.0 + THETA * rng.standard_normal()
        maps = found.convert(family, np.array(counts * shape), np.array(sigma * shape), theta=THETA, i0=0.0)
        rows.append(
            (
                family,
                maps.response.origin,
                float(maps.areal_density_ug_cm2),
                true,
                float(maps.sigma_ug_cm2),
                -off[family] / (1.0 + off[family]) if family in off else math.nan,
            )
        )
    return rows
