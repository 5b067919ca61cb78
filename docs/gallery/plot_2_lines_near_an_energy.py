"""
Lines near an energy
====================

Which lines stand within 0.3 keV of 10.54 keV? Arsenic and lead, which only their other lines tell apart.
"""

import matplotlib.pyplot as plt

import hpcxrf

table = hpcxrf.line_table("Ga,Ge,As,Se,Br,W_L,Au_L,Hg_L,Tl_L,Pb_L,Bi_L", 20.0)
for kev, ratio, component in zip(
    table.energy_kev.tolist(), table.ratio.tolist(), table.component.tolist(), strict=True
):
    name = table.component_names[component]
    if abs(kev - 10.54) < 0.3 and ratio > 0.01:
        plt.vlines(kev, 0.0, ratio, color=f"C{component}")
        plt.annotate(name, (kev, ratio), ha="center", va="bottom")
plt.gca().set(xlabel="energy (keV)", ylabel="share of the family's counts")
