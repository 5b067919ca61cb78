"""Line ratios between the run file and the solver: the multipliers of an override file."""

from pathlib import Path

import pytest
import torch

from hpcxrf.config.run import check_config
from hpcxrf.errors import ConfigError
from hpcxrf.fitting.spectrum.integrated import fit_spectrum
from hpcxrf.formats.override import read_override
from hpcxrf.formats.registry import open_scan
from hpcxrf.pipeline.prepare.branching import read_branching
from hpcxrf.pipeline.prepare.facts import scan_facts
from hpcxrf.pipeline.prepare.from_config import prepare
from hpcxrf.pipeline.prepare.inputs import read_options
from hpcxrf.pipeline.single import integrate
from tests.samples.prepare_samples import config_of, facts_of, override_of, rows_of


@pytest.fixture
def every_line(monkeypatch):
    """Lines a few eV apart stay apart."""
    monkeypatch.setattr("hpcxrf.fitting.spectrum.prepare.condense", lambda table: table)


def kbeta_to_kalpha_1(table, name):
    mine = (table.component == table.component_names.index(name)) & (table.escape_parent < 0)
    beta = table.ratio[mine & table.is_kbeta].sum()
    return float(beta / table.ratio[mine & ~table.is_kbeta].max())


@pytest.mark.usefixtures("every_line")
def test_a_kbeta_multiplier_belongs_to_the_ratio_of_the_maps_table(tmp_path):
    lines = "".join(f"BRANCHING_RATIO_ADJUSTMENT_K: {row}\n" for row in ("S, 1, 1, 2.6, 1", "Fe, 1, 1, 1.2, 1"))
    config = config_of(fit={"override": override_of(tmp_path, lines)})
    prepared = prepare(config, facts_of(), 0)
    plain = prepare(config_of(fit={"override": "none"}), facts_of(), 0)
    table = prepared.problem.table
    # The MAPS table has .050 and .172; the library, which is right, .093 and .203 before the windows.
    assert kbeta_to_kalpha_1(table, "S") == pytest.approx(0.050 * 2.6, rel=1e-3)
    assert kbeta_to_kalpha_1(table, "Fe") == pytest.approx(0.172 * 1.2, rel=1e-3)
    assert kbeta_to_kalpha_1(table, "Ca") == kbeta_to_kalpha_1(plain.problem.table, "Ca")
    assert any("S 0.130, Fe 0.206" in note.text and "o.txt" in note.text for note in prepared.notes)
    assert not any("not used" in note.text for note in prepared.notes)


def test_a_multiplier_of_one_asks_for_nothing(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1., 1., 1., 1.\n"
    prepared = prepare(config_of(fit={"override": override_of(tmp_path, lines)}), facts_of(), 0)
    plain = prepare(config_of(fit={"override": "none"}), facts_of(), 0)
    assert torch.equal(prepared.problem.table.ratio, plain.problem.table.ratio)
    assert not any("multipliers" in note.text for note in prepared.notes)


@pytest.mark.usefixtures("every_line")
def test_l_multipliers_act_on_the_library_and_what_is_not_fitted_plays_no_part(tmp_path):
    lines = (
        "BRANCHING_FAMILY_ADJUSTMENT_L: Pb_L, 0., 1., 1.\n"
        "BRANCHING_RATIO_ADJUSTMENT_L: Pb_L, 1, 1, 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1\n"
        "BRANCHING_FAMILY_ADJUSTMENT_L: Sn_L, 0., 0., 1.\n"
    )
    sample = {"elements": ["Fe", "Pb_L"], "incident_energy_kev": 20.0}
    fit = {"override": override_of(tmp_path, lines), "energy_range_kev": [1.0, 19.0]}
    prepared = prepare(config_of(sample=sample, fit=fit), facts_of(), 0)
    plain = prepare(config_of(sample=sample, fit=fit | {"override": "none"}), facts_of(), 0)

    def l_beta(table):
        mine = (table.component == 1) & (table.escape_parent < 0)
        l1 = table.ratio[mine & ((table.edge_kev - 15.8608).abs() < 0.01)].sum()
        beta, alpha = (table.ratio[mine & ((table.energy_kev - kev).abs() < 0.002)].sum() for kev in (12.614, 10.5515))
        return float(l1), float(beta / alpha)

    (l1, ratio), (l1_plain, ratio_plain) = (l_beta(p.problem.table) for p in (prepared, plain))
    assert (l1, l1_plain > 0.05) == (0.0, True)
    assert ratio == pytest.approx(0.5 * ratio_plain, rel=0.02)
    said = [note.text for note in prepared.notes if "line ratios of Pb_L" in note.text]
    assert len(said) == 1
    assert "Sn_L" not in " ".join(note.text for note in prepared.notes)


def test_pile_up_takes_the_ratios_of_its_families(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1, 1, 2.4, 1\n"
    sample = {"elements": ["Ca", "Fe", "Fe_Fe"], "incident_energy_kev": 10.0}
    fit = {"override": override_of(tmp_path, lines), "energy_range_kev": [1.0, 15.0]}
    table = prepare(config_of(sample=sample, fit=fit), facts_of(), 0).problem.table
    mine = table.component == 2
    mixed = table.ratio[mine & ((table.energy_kev - 13.46).abs() < 0.05)].sum()
    alpha = table.ratio[mine & ((table.energy_kev - 12.80).abs() < 0.05)].sum()
    # 2 x K-beta / K-alpha, with K-alpha-1 being 1 / 1.51 of K-alpha
    assert float(mixed / alpha) == pytest.approx(2 * 0.172 * 2.4 / 1.51, rel=0.01)


def test_a_multiplier_whose_table_is_not_known_is_left_out_and_said(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Mg, 1, 1, 3.6, 1\n"
    override = read_override(Path(override_of(tmp_path, lines)))
    found = read_branching(override, ["Mg", "Fe"])
    assert not found.applied.k_ratios
    assert found.unknown == ("Mg",)
    sample = {"elements": ["Mg", "Fe"], "incident_energy_kev": 10.0}
    _, notes = rows_of(config_of(sample=sample, fit={"override": str(override.path)}))
    (note,) = [n for n in notes.split(" | ") if "K multipliers" in n]
    assert "not used of o.txt" in note
    assert "Mg" in note


def test_a_wrong_number_of_multipliers_is_refused_with_the_file(tmp_path):
    lines = "BRANCHING_RATIO_ADJUSTMENT_K: Fe, 1, 2\n"
    override = read_override(Path(override_of(tmp_path, lines)))
    with pytest.raises(ConfigError, match=r"o\.txt.*Fe has \[1\.0, 2\.0\], must be 4"):
        read_branching(override, ["Fe"])


@pytest.mark.parametrize("name", ["axo_std.mda", "2xfm_0010.mda"])
@pytest.mark.parametrize("detector", [0, 2])
def test_the_real_override_file_costs_no_r2(shared_data, name, detector, monkeypatch):
    path = shared_data / "aps-2ide" / "mda" / name
    raw = {"input": {"files": [str(path)]}}
    if name == "axo_std.mda":
        listed = read_override(path.parent.parent / "maps_fit_parameters_override.txt").elements
        raw["sample"] = {"elements": [*listed, "La_L", "Pb_M", "Pd_L", "Mo_L"]}
    config = check_config(raw, "x.yaml")
    scan = open_scan(path, read_options(config))
    counts = torch.from_numpy(integrate(scan))[detector]
    facts = scan_facts(scan, path)
    adjusted = prepare(config, facts, detector)
    monkeypatch.setattr("hpcxrf.pipeline.prepare.resolve.read_branching", lambda *_: None)
    plain = prepare(config, facts, detector)
    ratios = [kbeta_to_kalpha_1(p.problem.table, "Ca") for p in (adjusted, plain)]
    assert ratios[0] > ratios[1] + 1e-3
    fits = [fit_spectrum(counts, p.problem) for p in (adjusted, plain)]
    assert fits[0].r2 >= fits[1].r2 - 1e-4
    assert fits[0].r2 > 0.99
