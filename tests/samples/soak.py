"""Random clicking over all controls of an explorer's page, from a seed; counts are compared with zarr."""

import base64
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr

SCRIPT = Path(__file__).with_suffix(".js")
KEYS = ("ArrowLeft", "ArrowRight", "[", "]", "l", "r", "z", "?", "Escape", "Escape", "n", "p")
DRAWN = (".stage", ".scatter-plot", "figure.spectrum svg")
LEFT_ALONE = ("Run it", "Submit it", "Stop it", "Measure a fit")
"""What would begin a run, or take the processor for long."""
REFUSED_FOR_GOOD = {
    "/api/fit": {400, 422},
    "/api/spectrum": {400},
    "/api/history/take_back": {400},
    "/api/write": {400},
    "/api/runs/text": {400},
    "/api/runs/plan": {400},
    "/api/runs/prepare": {400, 409},
}
"""Answers to what cannot be meant, which random values ask for; the path without its query."""


@dataclass
class Soak:
    """A page that is clicked at random, and what is wrong with it."""

    page: object
    run_dir: Path
    dataset_id: str
    rng: np.random.Generator
    faults: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    """What was done last, for whoever has to find out."""
    compared: int = 0
    acts: int = 0

    def __post_init__(self):
        store = zarr.open_group(self.run_dir / "spectra" / f"{self.dataset_id}.zarr", mode="r")
        self.counts = store["counts"][:]
        results = zarr.open_group(self.run_dir / "results" / f"{self.dataset_id}.zarr", mode="r")
        self.labels, self.layers = None, None
        if "regions" in results:
            self.labels, self.layers = results["regions/label"][:], results["regions/layer_of"][:]

    def work(self, minutes: float, look=lambda _share: None) -> None:
        """Click for so long; `look` is called now and then with the share of the time that is over."""
        began = time.monotonic()
        while (share := (time.monotonic() - began) / (60 * minutes)) < 1 and not self.faults:
            for _ in range(20):
                self.act()
            self.page.wait_for_timeout(400)
            self.check()
            look(share)
        # What is under way is waited for.
        self.page.wait_for_timeout(3000)
        self.check()
        look(1.0)

    def act(self) -> None:
        self.acts += 1
        dice = float(self.rng.random())
        if dice < 0.12:
            key = self._pick(KEYS)
            self._say(f"key {key}")
            self.page.keyboard.press(key)
        elif dice < 0.4:
            self._draw(self._pick(DRAWN))
        else:
            self._use()
        self.page.wait_for_timeout(self._pick((0, 0, 20, 150)))

    def _pick(self, among):
        return among[int(self.rng.integers(len(among)))]

    def _say(self, word: str) -> None:
        self.done = [*self.done[-39:], word]

    def _use(self) -> None:
        controls = self.page.evaluate("window.soak.list()")
        usable = [(i, one) for i, one in enumerate(controls) if not one["name"].startswith(LEFT_ALONE)]
        if not usable:
            return
        # Of a hundred buttons of the periodic table none is as likely as one of five tabs.
        place = self._pick(sorted({one["place"] for _, one in usable}))
        index, chosen = self._pick([(i, one) for i, one in usable if one["place"] == place])
        wanted = float(self.rng.random())
        self._say(f"{chosen['tag']} {chosen['name']!r} in {place}, {wanted:.3f}")
        self.page.evaluate("(one) => window.soak.act(one)", [index, wanted])

    def _draw(self, selector: str) -> None:
        box = self.page.evaluate("(one) => window.soak.locate(one)", selector)
        if box is None:
            return
        places = [
            (box["x"] + float(self.rng.random()) * box["width"], box["y"] + float(self.rng.random()) * box["height"])
            for _ in range(self._pick((1, 2, 4)))
        ]
        self._say(f"drawn on {selector}, {len(places)} places")
        mouse = self.page.mouse
        mouse.move(*places[0])
        mouse.down()
        for place in places[1:]:
            mouse.move(*place, steps=4)
        mouse.up()

    def check(self) -> None:
        """Look at every answer since the last time."""
        for one in self.page.evaluate("window.soak.take()"):
            path = one["path"].partition("?")[0]
            if path == "/api/spectrum" and one["status"] == 200:
                self._compare(json.loads(one["body"]), json.loads(one["text"]))
            elif one["status"] not in REFUSED_FOR_GOOD.get(path, ()):
                self.faults.append(f"{one['method']} {one['path']} {one['body']}: {one['status']} {one['text'][:300]}")

    def _compare(self, asked, told) -> None:
        mask = self._mask(asked["selection"])
        if mask is None:
            return
        parts = range(len(self.counts)) if asked["detector"] == "sum" else [int(asked["detector"])]
        expected = sum(self.counts[one][mask].sum(axis=0, dtype=np.int64) for one in parts)
        self.compared += 1
        if told["n_pixels"] != int(mask.sum()) or not np.array_equal(np.array(told["counts"]), expected):
            self.faults.append(f"counts of {json.dumps(asked)[:500]} are not those of the store")

    def _mask(self, selection):
        """Pixels of a selection; None where a point lies on its edge, so that rounding decides."""
        shape = self.counts.shape[1:3]
        kind = selection["kind"]
        mask = np.zeros(shape, dtype=bool)
        if kind == "all":
            return ~mask
        if kind == "pixel":
            mask[selection["y"], selection["x"]] = True
        elif kind == "box":
            mask[slice(*selection["y"]), slice(*selection["x"])] = True
        elif kind == "region":
            number = selection["number"]
            mask = self.labels[int(self.layers[number - 1])] == number
        elif kind == "mask":
            bits = np.unpackbits(np.frombuffer(base64.b64decode(selection["bits"]), np.uint8))
            mask = bits[: mask.size].reshape(shape).astype(bool)
        elif kind == "threshold":
            values = self._map(selection)
            low, high = (-np.inf if selection["low"] is None else selection["low"]), selection["high"]
            mask = np.isfinite(values) & (values >= low) & (values <= (np.inf if high is None else high))
        else:
            mask = inside(np.array(selection["points"]), shape)
        return mask

    def _map(self, selection):
        """The map whose values choose, as the page itself got it."""
        asked = {name: selection[name] for name in ("detector", "layer", "component") if selection[name] is not None}
        asked["dataset"] = self.dataset_id
        code = "(asked) => window.soak.readMap(asked)"
        packed = base64.b64decode(self.page.evaluate(code, asked))
        return np.frombuffer(packed, "<f4").reshape(self.counts.shape[1:3])


def inside(points, shape):
    """Pixels whose centres are inside by the number of edges that a ray from each crosses; None: one is on an edge."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    odd, near = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for (y0, x0), (y1, x1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        length2 = (y1 - y0) ** 2 + (x1 - x0) ** 2
        share = np.clip(((y - y0) * (y1 - y0) + (x - x0) * (x1 - x0)) / length2, 0, 1) if length2 else np.zeros(shape)
        near |= np.hypot(y - y0 - share * (y1 - y0), x - x0 - share * (x1 - x0)) < 1e-6
        if y0 != y1:
            crosses = (y0 > y) != (y1 > y)
            odd ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return None if near.any() else odd
