"""HyperSpy's files, written by h5py and zarr in their documented layout."""

import h5py
import zarr

ENERGY = {"name": "Energy", "navigate": False, "offset": -0.2, "scale": 0.02, "size": 700, "units": "keV"}
HEIGHT = {"name": "height", "navigate": True, "offset": 1.0, "scale": 0.5, "size": 3, "units": "µm"}
WIDTH = {"name": "width", "navigate": True, "offset": 0.0, "scale": 2.0, "size": 4, "units": "nm"}
AXES = (HEIGHT, WIDTH, ENERGY)


def write_hspy(path, experiments, axes=AXES):
    with h5py.File(path, "w") as file:
        file.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.1"})
        for name, data in experiments.items():
            group = file.create_group(f"Experiments/{name}")
            group["data"] = data
            for number, axis in enumerate(axes):
                group.create_group(f"axis-{number}").attrs.update(axis)
    return path


def write_zspy(path, experiments, axes=AXES):
    root = zarr.open_group(path, mode="w")
    root.attrs.update({"file_format": "HyperSpy", "file_format_version": "3.3"})
    for name, data in experiments.items():
        group = root.create_group(f"Experiments/{name}")
        group.create_array("data", data=data)
        for number, axis in enumerate(axes):
            group.create_group(f"axis-{number}").attrs.update(axis)
    return path
