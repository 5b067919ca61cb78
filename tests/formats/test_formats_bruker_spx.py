"""Bruker .spx: counts, axis, times, tube; XML that expands or nests is refused."""

import numpy as np
import pytest

from hpcxrf.errors import InputFileError
from tests.samples.text_scans import axis_of, counts_of, make_counts, notes_of, open_text, spx

TUBE = (
    '<ClassInstance Type="TRTXrfHeader"><Voltage>50</Voltage><Current>599</Current><Anode>45</Anode></ClassInstance>\n'
)
ELECTRONS = '<ClassInstance Type="TRTESMAHeader"><PrimaryEnergy>20</PrimaryEnergy></ClassInstance>\n'
STAGE = (
    '<ClassInstance Type="TRTAxesHeader"><AxesParameter><AxisX AxisName="x" AxisUnit="mm" AxisPosition="1,5"/>'
    '<AxisY AxisName="y" AxisUnit="mm" AxisPosition="-2.25"/></AxesParameter></ClassInstance>\n'
)


def test_counts_axis_and_times_are_those_of_the_file(tmp_path):
    counts = make_counts()
    scan = open_text(tmp_path, spx(counts), "a.spx")
    assert (scan.format, scan.shape) == ("bruker-spx", (1, 1, 1, 64))
    assert counts_of(scan).ravel().tolist() == counts
    assert axis_of(scan) == (-0.955, 0.01)
    assert scan.read_scalars().live_time_s.tolist() == [[[10.0]]]
    assert scan.read_scalars().real_time_s.tolist() == [[[12.5]]]
    assert scan.tube is None


def test_a_tube_is_named_as_source_and_electrons_are_not(tmp_path):
    assert open_text(tmp_path, spx(make_counts(), TUBE), "tube.spx").tube == "Rh anode, 50 kV"
    scan = open_text(tmp_path, spx(make_counts(), ELECTRONS), "sem.spx")
    assert scan.tube is None
    assert "electrons of 20 keV" in notes_of(scan)


def test_a_comma_in_a_number_is_the_point_of_another_language(tmp_path):
    text = spx(make_counts(), STAGE).replace("-9.55E-1", "-9,55E-1").replace("1.0E-2", "1,0E-2")
    scan = open_text(tmp_path, text, "a.spx")
    assert axis_of(scan) == (-0.955, 0.01)
    scalars = scan.read_scalars()
    assert (scalars.x_um.tolist(), scalars.y_um.tolist()) == ([[1500.0]], [[-2250.0]])


def test_several_spectra_of_a_file_are_points(tmp_path):
    a, b = make_counts(seed=1), make_counts(seed=2)
    inner = spx(b).partition("<TRTSpectrum>\n")[2].removesuffix("</TRTSpectrum>\n")
    scan = open_text(tmp_path, spx(a, more=inner), "a.spx")
    assert scan.shape == (1, 2, 1, 64)
    np.testing.assert_array_equal(counts_of(scan)[0, :, 0], [a, b])


BOMB = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "1,1,1,1"><!ENTITY c "&b;&b;&b;">]>'
EXTERNAL = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("prolog", [BOMB, EXTERNAL, '<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd">'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_document_type_is_refused_and_nothing_is_expanded(tmp_path, prolog, encoding):
    text = spx(make_counts(), prolog=prolog).replace("</Channels>", "&b;</Channels>")
    with pytest.raises(InputFileError, match=r"a\.spx: XML with a document type"):
        open_text(tmp_path, text.encode(encoding), "a.spx")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (spx(make_counts(), "<a>" * 300 + "</a>" * 300), "nested deeper than 200"),
        (spx(make_counts())[:-40], "cannot be read as XML"),
        (spx(make_counts()).replace("<ChannelCount>64", "<ChannelCount>128"), "ChannelCount says 128"),
        (spx(make_counts()).replace("<Channels>", "<Channels>x,"), "must be counts between commas"),
        (spx(make_counts()).replace("Channels>", "Chann>"), "without a spectrum"),
        (spx(make_counts()).replace("1.0E-2", "-1.0E-2"), "does not rise"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path, text, fault):
    with pytest.raises(InputFileError, match=rf"a\.spx: .*{fault}"):
        open_text(tmp_path, text, "a.spx")


def test_without_an_axis_the_file_says_so(tmp_path):
    scan = open_text(tmp_path, spx(make_counts()).replace("CalibLin>", "Other>"), "a.spx")
    assert scan.calibration is None
    assert "no energy axis" in notes_of(scan)
