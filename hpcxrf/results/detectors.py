"""One detector of a group of a results store."""

import xarray as xr


def take_detector(group: xr.Dataset, detector: str) -> xr.Dataset:
    """Take one detector of a group, without its coordinate: for one of a single value xarray loads dask.

    Args:
        group: group of a results store with the axis `detector`.
        detector: name on it.

    Raises:
        KeyError: there is none of this name.
    """
    names = [str(name) for name in group["detector"].values]
    if detector not in names:
        raise KeyError(f"detector {detector!r}: there are {', '.join(names)}")
    return group.drop_vars("detector").isel(detector=names.index(detector))
