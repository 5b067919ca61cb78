"""What regions need of scikit-image and scikit-learn, which have no types; imported where they are used."""

from collections.abc import Sequence
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

BoolMap = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


def connected(mask: BoolMap) -> NDArray[np.int64]:
    """Number of the connected area of every pixel (y, x), diagonal neighbours included; 0 outside."""
    return np.asarray(import_module("skimage.measure").label(mask, connectivity=2), dtype=np.int64)


def polygon_mask(corners: Sequence[tuple[float, float]], shape_yx: tuple[int, int]) -> BoolMap:
    """Pixels (y, x) whose centres lie in a polygon of corners (y, x)."""
    inside = import_module("skimage.draw").polygon2mask(shape_yx, np.asarray(corners, dtype=float))
    return np.asarray(inside, dtype=np.bool_)


def kmeans(features: FloatArray, number: int, *, starts: int, seed: int) -> tuple[FloatArray, NDArray[np.int64]]:
    """Centres (cluster, feature) and the cluster of each of (sample, feature); the same for any number of cores."""
    # A sum that is split over threads rounds as they split it.
    with import_module("threadpoolctl").threadpool_limits(1):
        model = import_module("sklearn.cluster").KMeans(number, n_init=starts, random_state=seed)
        model.fit(features)
    return np.asarray(model.cluster_centers_), np.asarray(model.labels_, dtype=np.int64)


def silhouette(features: FloatArray, labels: NDArray[np.int64]) -> float:
    """Mean silhouette of a clustering, -1 to 1; -1 where all are in one cluster."""
    if len(np.unique(labels)) < 2:
        return -1.0
    with import_module("threadpoolctl").threadpool_limits(1):
        return float(import_module("sklearn.metrics").silhouette_score(features, labels))
