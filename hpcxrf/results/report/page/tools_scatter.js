"use strict";
// Two components against each other, a pixel each; a box drawn there selects pixels, and selected pixels show there.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, draw: svg, choice, group } = hpcxrf.dom;
  const { view, colours, picture, select } = hpcxrf;
  const MOST_BINS = 110;

  const buildScatter = (core) => {
    const { scan, state } = core;
    const names = scan.components.map((one) => [one.name, one.label]);
    const pair = [...state.ratio];
    let log = false;
    let shown = null;
    let mask = null;
    const canvas = make("canvas");
    const over = svg("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" });
    const box = svg("rect", { class: "brush" });
    over.append(box);
    const plot = make("div", { class: "scatter-plot", role: "img", "aria-label": "scatter plot: drag a box to select its pixels in the map" }, canvas, over);
    const [across, up] = [make("div", { class: "axis across" }), make("div", { class: "axis up" })];
    const text = make("p", { class: "small", role: "status" });
    const setScale = (value) => { log = value === "log"; scale.set(value); update(); };
    const scale = group("scale of the axes", [["linear", "Linear"], ["log", "Log"]], "linear", setScale);
    const fields = pair.map((name, i) => choice(["Across", "Up"][i], names, name, (value) => { pair[i] = value; update(); }));
    const node = make("details", { class: "tool scatter" }, make("summary", {}, "Scatter plot of two components"),
      make("div", { class: "bar" }, ...fields.map((one) => one.node), scale.node),
      make("div", { class: "scatter-frame" }, up, plot, across), text);
    node.addEventListener("toggle", () => update());

    const label = (axis, limits, name, unit) => {
      const marks = (log ? view.logTicks(...limits, 5) : view.ticks(...limits, 5)).map((at) => {
        const mark = make("span", {}, view.write(at, 3));
        mark.style.setProperty("--at", `${100 * view.place(at, limits, log)}%`);
        return mark;
      });
      axis.replaceChildren(...marks, make("b", {}, `${name}${unit ? `, ${unit}` : ""}`));
    };
    const paintBins = ({ maps, limits, bins }) => {
      const [a, b] = maps.map((map) => map.values);
      const all = view.histogram(a, b, bins, ...limits, log);
      const marked = mask ? view.histogram(a, b, bins, ...limits, log, mask) : null;
      const most = Math.log1p(all.reduce((high, n) => Math.max(high, n), 1));
      const table = colours.table("viridis");
      const [blank, chosen] = [colours.pack(0, 0, 0, 0), colours.fromHex("#d55e00")];
      const pixels = new Uint32Array(bins * bins);
      for (let row = 0; row < bins; row += 1) {
        for (let column = 0; column < bins; column += 1) {
          const n = all[row * bins + column];
          const colour = n === 0 ? blank : marked && marked[row * bins + column] > 0 ? chosen : table[Math.round(40 + (200 * Math.log1p(n)) / most)];
          pixels[(bins - 1 - row) * bins + column] = colour;
        }
      }
      picture.putPixels(canvas, pixels, [bins, bins]);
    };
    const update = async () => {
      if (!node.open || !core.current) { return; }
      const turn = core.turn;
      const layer = core.layer(core.drawnLayer()).each ? core.drawnLayer() : scan.layers[0].name;
      try {
        const maps = await Promise.all(pair.map((name) => core.map(layer, name)));
        if (turn !== core.turn) { return; }
        const limits = maps.map((map) => view.findLimits(core.sort(map.values), { kind: "percentile", low: 0, high: 100 }, log));
        const bins = view.clamp(Math.round(2 * Math.sqrt(maps[0].values.length)), 12, MOST_BINS);
        shown = { maps, limits, bins };
        [across, up].forEach((axis, i) => label(axis, limits[i], core.label(pair[i]), maps[i].unit));
        fields.forEach((field, i) => field.set(pair[i]));
        paintBins(shown);
        tellCorrelation();
      } catch (error) { text.textContent = error.message; }
    };
    const tellCorrelation = () => {
      const marked = mask ? ` ${view.write(view.count(mask), 9)} points are selected (orange).` : " Drag a box to select its pixels in the map.";
      text.textContent = `Correlation ${view.write(view.correlate(...shown.maps.map((map) => map.values)), 3)}.${marked}`;
    };

    let from = null;
    const locate = (event) => {
      const place = plot.getBoundingClientRect();
      return [view.clamp((event.clientX - place.left) / place.width, 0, 1), view.clamp(1 - (event.clientY - place.top) / place.height, 0, 1)];
    };
    const drag = (event) => {
      const ends = [from, locate(event)];
      const [left, right] = ends.map(([x]) => x).sort((a, b) => a - b);
      const [bottom, top] = ends.map(([, y]) => y).sort((a, b) => a - b);
      Object.entries({ x: left, y: 1 - top, width: right - left, height: top - bottom }).forEach(([name, value]) => box.setAttribute(name, value));
      return { left, right, bottom, top };
    };
    plot.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !shown) { return; }
      plot.setPointerCapture(event.pointerId);
      from = locate(event);
    });
    plot.addEventListener("pointermove", (event) => { if (from) { drag(event); } });
    plot.addEventListener("pointerup", (event) => {
      if (!from) { return; }
      const { left, right, bottom, top } = drag(event);
      from = null;
      if (right - left < 0.005 && top - bottom < 0.005) { core.selectPixels(null); return; }
      const [a, b] = shown.maps;
      const inside = (value, limits, low, high) => { const at = view.place(value, limits, log); return at >= low && at <= high; };
      const chosen = new Uint8Array(a.values.length);
      for (let i = 0; i < chosen.length; i += 1) {
        chosen[i] = inside(a.values[i], shown.limits[0], left, right) && inside(b.values[i], shown.limits[1], bottom, top) ? 1 : 0;
      }
      core.selectPixels(select.fromMask(chosen, { shape: a.shape, factor: a.factor, scanShape: scan.shape }));
    });
    return {
      node, draw: update,
      select: (chosen) => {
        mask = chosen;
        if (!chosen) { ["width", "height"].forEach((name) => box.setAttribute(name, 0)); }
        if (shown && node.open) { paintBins(shown); tellCorrelation(); }
      },
    };
  };

  hpcxrf.tools = { ...hpcxrf.tools, buildScatter };
})();
