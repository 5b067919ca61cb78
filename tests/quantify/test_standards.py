"""Tables of standards: both kinds in ug/cm2, stated and assumed errors, and lists in another unit."""

from dataclasses import replace
from pathlib import Path

import pytest

from hpcxrf.config.standards import check_standard_rows, load_shipped_rows, read_standard_rows
from hpcxrf.errors import ConfigError
from hpcxrf.formats.standard import Standard, read_standards
from hpcxrf.quantify.standards import certify_maps_standards, certify_rows, find_unit_ratio

TABLE = """
standards:
  - name: my film
    source: certificate 12
    relative_error: 0.05
    elements:
      Fe: {areal_density: 14.2, relative_error: 0.03, source: certificate 13}
      Zn: 3.9
  - name: in ng
    source: certificate 14
    unit: ng/mm2
    elements: {Ni: 30.0}
"""


def write(tmp_path, text):
    path = tmp_path / "standards.yaml"
    path.write_text(text)
    return path


def test_a_table_gives_densities_errors_and_sources(tmp_path):
    film, other = certify_rows(read_standard_rows(write(tmp_path, TABLE)), default_relative_error=0.08)
    iron, zinc, nickel = film.densities["Fe"], film.densities["Zn"], other.densities["Ni"]
    assert (iron.areal_density_ug_cm2, iron.relative_error, iron.source) == (14.2, 0.03, "certificate 13")
    assert (zinc.areal_density_ug_cm2, zinc.relative_error, zinc.source) == (3.9, 0.05, "certificate 12")
    assert not iron.is_error_assumed
    assert not zinc.is_error_assumed
    assert nickel.areal_density_ug_cm2 == pytest.approx(3.0)
    assert nickel.relative_error == 0.08
    assert nickel.is_error_assumed


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("14.2", "-1", "areal_density"),
        ("14.2", ".nan", "areal_density"),
        ("relative_error: 0.05", "relative_error: 5", "relative_error"),
        ("unit: ng/mm2", "unit: ng/cm2", "unit"),
        ("Zn:", "zinc:", "elements"),
        ("source: certificate 12", "sauce: 1", "sauce"),
        ("name: in ng", "name: my film", "listed twice"),
        ("standards:", "standard:", "standards"),
    ],
)
def test_faults_of_a_table_are_named_with_their_place(tmp_path, old, new, said):
    with pytest.raises(ConfigError, match=said):
        read_standard_rows(write(tmp_path, TABLE.replace(old, new)))


def test_all_faults_come_at_once():
    raw = {"standards": [{"name": "a", "source": "b", "elements": {"Fe": -1}}, {"name": "", "elements": {}}]}
    with pytest.raises(ConfigError) as caught:
        check_standard_rows(raw, "table.yaml")
    assert str(caught.value).count("\n") >= 4


def test_an_element_that_does_not_exist_and_an_error_out_of_range_are_refused():
    rows = check_standard_rows({"standards": [{"name": "a", "source": "b", "elements": {"Xx": 1.0}}]}, "t")
    with pytest.raises(ConfigError, match=r"(?s)above 0 and below 1.*a: Xx: no such element"):
        certify_rows(rows, default_relative_error=1.5)


def test_the_shipped_table_has_sources_and_the_densities_of_the_scan_beside_it(shared_data):
    shipped = {s.name: s for s in certify_rows(load_shipped_rows())}
    own = certify_maps_standards(read_standards(shared_data / "aps-2ide" / "maps_standardinfo.txt"), source="a file")[0]
    axo = shipped["AXO 2-ID-E"]
    assert axo.file == own.file == "axo_std.mda"
    for symbol, density in own.densities.items():
        assert axo.densities[symbol].areal_density_ug_cm2 == pytest.approx(density.areal_density_ug_cm2, rel=1e-12)
        assert density.is_error_assumed
        assert density.relative_error == 0.10
    assert all(d.source for s in shipped.values() for d in s.densities.values())
    assert all(0.05 < d.areal_density_ug_cm2 < 3.0 for s in shipped.values() for d in s.densities.values())


@pytest.mark.parametrize("row", load_shipped_rows(), ids=lambda row: row.name)
def test_a_list_in_ng_is_refused_until_its_unit_is_said(row):
    bare = replace(row, unit=None)
    for name in (row.name, "film"):  # with the word AXO, and by the proportions alone
        with pytest.raises(ConfigError, match=r"ng/mm2 or unit: ug/cm2"):
            certify_rows([replace(bare, name=name)])
    said = certify_rows([bare], unit="ng/mm2")[0]
    assert said.densities == certify_rows([row])[0].densities
    taken = certify_rows([bare], unit="ug/cm2")[0]
    for symbol, density in said.densities.items():
        assert taken.densities[symbol].areal_density_ug_cm2 == pytest.approx(10 * density.areal_density_ug_cm2)


def test_a_maps_file_in_ng_is_refused_too():
    wrong = Standard(
        filename="axo_std.mda", elements=("Ca", "Fe", "Cu"), areal_density_ug_cm2={"Ca": 19.31, "Fe": 5.04, "Cu": 2.84}
    )
    with pytest.raises(ConfigError, match=r"axo_std\.mda: Ca 19\.31, Fe 5\.04, Cu 2\.84: 11 times the usual"):
        certify_maps_standards([wrong], source="a file")
    right = certify_maps_standards([wrong], source="a file", unit="ng/mm2")[0]
    assert right.densities["Ca"].areal_density_ug_cm2 == pytest.approx(1.931)


def test_other_films_are_left_in_peace():
    micromatter = {"Ga": 15.4, "P": 5.8, "V": 26.4, "Mn": 17.5, "Co": 21.7, "Cu": 20.3}
    assert find_unit_ratio("Micromatter 41147", micromatter) is None
    assert find_unit_ratio("film", {"Fe": 14.2, "Cu": 20.0}) is None
    assert find_unit_ratio("AXO", {"Ca": 1.931, "Fe": 0.504, "Cu": 0.284}) is None
    assert find_unit_ratio("AXO C1", {"Pb": 73.0, "La": 116.0, "Ca": 267.0, "Fe": 44.0}) == pytest.approx(117, rel=0.1)


def test_a_missing_table_says_so(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_standard_rows(Path(tmp_path / "none.yaml"))
