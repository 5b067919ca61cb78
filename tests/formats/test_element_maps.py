"""Element maps of XRF-Maps, PyXRF and PyMca, read with their names and as counts."""

import h5py
import numpy as np
import pytest
from peer_maps import LIVE_S, write_pymca, write_pyxrf, write_xrf_maps, write_xrf_maps_v9

from hpcxrf.errors import InputFileError
from hpcxrf.formats.element_maps import name_family, read_element_maps

CORNER = np.zeros((3, 4))
CORNER[0, 3] = 8.0


def test_rates_of_xrf_maps_become_counts_by_real_time_and_both_count_rates(tmp_path):
    maps = {"Fe": CORNER, "Pt_L": CORNER + 1, "COMPTON_AMPLITUDE": CORNER + 2}
    (found,) = read_element_maps(write_xrf_maps(tmp_path / "scan.h52", maps))
    assert (found.program, found.method, found.detector, found.quantity) == ("XRF-Maps", "nnls", "2", "strongest line")
    assert found.names == ("Fe", "Pt_L", "COMPTON_AMPLITUDE")
    np.testing.assert_allclose(found.counts[0], CORNER * LIVE_S, rtol=1e-6)
    assert found.counts[0].argmax() == 3


def test_windows_of_energy_are_not_lines(tmp_path):
    (found,) = read_element_maps(write_xrf_maps(tmp_path / "scan.h50", {"Fe": CORNER}, method="ROI"))
    assert found.quantity == "window"


def test_version_9_has_its_live_time_among_the_scalers(tmp_path):
    (found,) = read_element_maps(write_xrf_maps_v9(tmp_path / "scan.h5", {"Fe": CORNER}, live_time_s=0.25))
    assert (found.method, found.detector) == ("matrix", None)
    np.testing.assert_allclose(found.counts[0], CORNER * 0.25)


def test_rates_without_a_live_time_are_refused(tmp_path):
    path = write_xrf_maps(tmp_path / "scan.h50", {"Fe": CORNER}, times=False)
    with pytest.raises(InputFileError, match="no live time"):
        read_element_maps(path)


def test_pyxrf_counts_families_of_the_sum_and_of_each_detector(tmp_path):
    maps = {"Fe_K": CORNER, "Pt_L": CORNER, "compton": CORNER, "elastic": CORNER, "snip_bkg": CORNER}
    det1, total = read_element_maps(write_pyxrf(tmp_path / "scan.h5", {"detsum": maps, "det1": maps}))
    assert (det1.detector, total.detector, total.quantity) == ("0", "sum", "family")
    assert total.names == ("Fe", "Pt_L", "COMPTON_AMPLITUDE", "COHERENT_SCT_AMPLITUDE")


def test_pymca_has_a_dataset_for_each_parameter(tmp_path):
    maps = {"Fe_K": CORNER, "Pb_L": CORNER + 1, "Scatter_Peak000": CORNER, "Scatter_Compton000": CORNER, "Zero": CORNER}
    (found,) = read_element_maps(write_pymca(tmp_path / "fit.h5", maps))
    assert set(found.names) == {"Fe", "Pb_L", "COHERENT_SCT_AMPLITUDE", "COMPTON_AMPLITUDE"}
    np.testing.assert_array_equal(found.counts[found.names.index("Pb_L")], CORNER + 1)


def test_a_file_without_maps_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = CORNER
    with pytest.raises(InputFileError, match="no element maps of XRF-Maps"):
        read_element_maps(tmp_path / "other.h5")
    with h5py.File(tmp_path / "spectra.h5", "w") as file:
        file["MAPS/Spectra/mca_arr"] = np.zeros((8, 3, 4))
    with pytest.raises(InputFileError, match="fit it with the other program"):
        read_element_maps(tmp_path / "spectra.h5")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("Fe_K", "Fe"), ("Fe K", "Fe"), ("Pt-L", "Pt_L"), ("U_M", "U_M"), ("Pb_L1", None), ("fe_K", None)],
)
def test_names_of_families(theirs, ours):
    assert name_family(theirs) == ours
