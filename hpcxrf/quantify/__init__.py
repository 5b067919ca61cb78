"""From rates to areal densities: sensitivities, standards, the calibration, absorption in the sample. No files here."""
