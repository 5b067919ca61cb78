"""MDA files made by hand, record by record."""

import struct

import numpy as np


def text(value):
    """A counted string of XDR."""
    raw = value.encode()
    if not raw:
        return struct.pack(">i", 0)
    return struct.pack(">ii", len(raw), len(raw)) + raw + b"\0" * (-len(raw) % 4)


def record(at, *, rank, last, name, positions, detectors, subs=()):
    """A scan record: `positions` [(name, unit, values)], `detectors` [(name, unit, values)]."""
    npts = len((positions or detectors)[0][2])
    out = struct.pack(">iii", rank, npts, last)
    out += struct.pack(f">{len(subs)}i", *subs)
    out += text(name) + text("OCT 28, 2015 18:18:43") + struct.pack(">iii", len(positions), len(detectors), 0)
    for number, (pv, unit, _) in enumerate(positions):
        out += struct.pack(">i", number) + b"".join(map(text, (pv, "", "LINEAR", unit, "", "", "")))
    for number, (pv, unit, _) in enumerate(detectors):
        out += struct.pack(">i", 7 * number) + text(pv) + text("") + text(unit)
    for _, _, values in positions:
        out += np.asarray(values, ">f8").tobytes()
    for _, _, values in detectors:
        out += np.asarray(values, ">f4").tobytes()
    return at, out


def write_step_scan(path, counts, *, last_row=None, last_point=None, real=2.0, unit="mm", extra=b"\0\0\0\0"):
    """A rank-3 file; `counts` (detector, y, x, channel). Rows beyond the last point are not written."""
    n, height, width, channels = counts.shape
    last_row = height if last_row is None else last_row
    head = struct.pack(">fii3iii", 1.3, 5, 3, height, width, channels, 1, 0)
    y_positions = [("m:y", unit, np.arange(height))]
    size_outer = len(
        record(
            0,
            rank=3,
            last=0,
            name="s2",
            positions=y_positions,
            detectors=[("ring", "mA", np.zeros(height))],
            subs=[0] * height,
        )[1]
    )
    body, subs = b"", []
    at = len(head) + size_outer
    for y in range(height):
        points = width if y < last_row else (last_point or 0) * (y == last_row)
        if points == 0:
            subs.append(0)
            continue
        x_positions = [("m:x", "", 0.5 * np.arange(width))]
        rates = [
            (f"d:dxp{d + 1}:{kind}", "", np.full(width, value))
            for d in range(n)
            for kind, value in (("InputCountRate", 100.0 * (d + 1)), ("OutputCountRate", 90.0 * (d + 1)))
        ]
        real_times = [(f"d:mca{d + 1}.ERTM", "s", np.full(width, real)) for d in range(n)]
        scalers = [("ic", "V", y + 0.1 * np.arange(width)), *rates, *real_times]
        make = lambda offsets, z=(y, points, x_positions, scalers): record(  # noqa: E731
            0, rank=2, last=z[1], name="s1", positions=z[2], detectors=z[3], subs=offsets
        )[1]
        row_at = at
        at += len(make([0] * width))
        offsets, spectra = [], b""
        for x in range(points):
            offsets.append(at)
            # the file lists the detectors in falling order: their names count, not their places
            inner = record(
                0,
                rank=1,
                last=channels,
                name="sH",
                positions=[],
                detectors=[(f"d:mca{d + 1}.VAL", "", counts[d, y, x]) for d in reversed(range(n))],
            )[1]
            spectra += inner
            at += len(inner)
        body += make(offsets + [0] * (width - points)) + spectra
        subs.append(row_at)
    outer = record(
        0,
        rank=3,
        last=last_row,
        name="s2",
        positions=y_positions,
        detectors=[("ring", "mA", 100.0 + np.arange(height))],
        subs=subs,
    )[1]
    head = struct.pack(">fii3iii", 1.3, 5, 3, height, width, channels, 1, at)
    path.write_bytes(head + outer + body + extra)
    return path
