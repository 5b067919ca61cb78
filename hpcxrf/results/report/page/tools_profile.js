"use strict";
// Values along a line across the map, as a curve and as a table.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, draw: svg, button, save, fileName } = hpcxrf.dom;
  const { view } = hpcxrf;
  const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [620, 240, 64, 12, 10, 38];
  const COLOURS = ["#0072b2", "#d55e00", "#009e73"];

  const buildProfile = (core) => {
    const { scan, state } = core;
    const chart = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": "values along the line" });
    const text = make("p", { class: "small", role: "status" });
    let ends = null;
    let rows = null;
    const take = (axis) => () => {
      const { y, x } = state.pixel ?? { y: Math.floor(scan.shape[0] / 2), x: Math.floor(scan.shape[1] / 2) };
      follow(...(axis === "row" ? [[y + 0.5, 0.5], [y + 0.5, scan.shape[1] - 0.5]] : [[0.5, x + 0.5], [scan.shape[0] - 0.5, x + 0.5]]));
    };
    const write = () => save(`${fileName(scan.name, "profile")}.csv`, view.csv(rows), "text/csv");
    const saveTable = button("Save CSV", "the values along the line", write, { disabled: true });
    const node = make("details", { class: "tool profile" }, make("summary", {}, "Line profile"),
      make("div", { class: "bar" },
        button("Draw a line", "then drag in the large map", () => core.set({ tool: "line" })),
        button("Row", "the row of the kept pixel", take("row")), button("Column", "the column of the kept pixel", take("column")), saveTable),
      make("figure", {}, chart), text);
    node.addEventListener("toggle", () => update());

    const measure = (current) => {
      const { shape, factor } = current;
      const [dy, dx] = scan.step_um ?? [1, 1];
      const [from, to] = ends;
      const length = Math.hypot((to[0] - from[0]) * dy, (to[1] - from[1]) * dx);
      const points = view.followLine(from.map((at) => at / factor), to.map((at) => at / factor), shape);
      return { length, points, at: points.map((point) => point.share * length) };
    };
    const drawAxes = (x, y, length, [low, high], unit) => {
      const line = (d) => chart.append(svg("path", { d, class: "axis" }));
      line(`M${LEFT} ${TOP}V${HEIGHT - BOTTOM}H${WIDTH - RIGHT}`);
      view.ticks(0, length, 7).forEach((at) => {
        line(`M${x(at)} ${HEIGHT - BOTTOM}v4`);
        chart.append(svg("text", { x: x(at), y: HEIGHT - BOTTOM + 17, "text-anchor": "middle" }, view.write(at, 3)));
      });
      view.ticks(low, high, 5).forEach((at) => {
        line(`M${LEFT} ${y(at)}h-4`);
        chart.append(svg("text", { x: LEFT - 7, y: y(at) + 4, "text-anchor": "end" }, view.write(at, 3)));
      });
      chart.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 5, "text-anchor": "middle" }, `distance, ${scan.step_um ? "µm" : "pixels"}`),
        svg("text", { transform: `translate(13 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, unit || "value"));
    };
    const drawBand = (x, y, at, values, sigmas) => {
      const known = at.map((_, i) => i).filter((i) => Number.isFinite(values[i]) && Number.isFinite(sigmas[i]));
      if (known.length < 2) { return; }
      const edge = (sign) => known.map((i) => `${x(at[i]).toFixed(1)} ${y(values[i] + sign * sigmas[i]).toFixed(1)}`);
      chart.append(svg("path", { d: `M${[...edge(1), ...edge(-1).reverse()].join("L")}Z`, class: "band" }));
    };
    const drawCurve = (x, y, at, values, colour) => {
      let d = "";
      values.forEach((value, i) => {
        if (!Number.isFinite(value)) { return; }
        d += `${i > 0 && Number.isFinite(values[i - 1]) ? "L" : "M"}${x(at[i]).toFixed(1)} ${y(value).toFixed(1)}h0`;
      });
      chart.append(svg("path", { d, stroke: colour, class: "curve" }));
    };
    const update = async () => {
      const { current } = core;
      if (!node.open || !current) { return; }
      chart.replaceChildren();
      if (!ends) { text.textContent = "Choose the tool Line and drag a line in the large map."; return; }
      core.big.outline(`M${ends[0][1]} ${ends[0][0]}L${ends[1][1]} ${ends[1][0]}`);
      const { length, points, at } = measure(current);
      const maps = current.kind === "ratio" ? [{ values: current.values }] : current.maps;
      const labels = current.kind === "ratio" ? [current.title] : current.names ? current.names.map(core.label) : [current.title];
      const curves = maps.map((map) => points.map(({ index }) => map.values[index]));
      const turn = core.turn;
      const sigmaLayer = current.kind === "map" ? core.sigmaLayer(current.layer.name) : null;
      const sigma = sigmaLayer ? await core.map(sigmaLayer.name, sigmaLayer.each ? state.component : null).catch(() => null) : null;
      if (turn !== core.turn) { return; }
      const sigmas = sigma ? points.map(({ index }) => sigma.values[index]) : null;
      const reached = sigmas ? curves[0].flatMap((value, i) => [value - sigmas[i], value + sigmas[i]]) : [];
      const reach = [...curves.flat(), ...reached].filter(Number.isFinite);
      const [low, high] = reach.length ? [Math.min(0, ...reach), Math.max(...reach)] : [0, 1];
      const top = high > low ? high + 0.06 * (high - low) : low + 1;
      const x = (value) => LEFT + (length > 0 ? value / length : 0) * (WIDTH - LEFT - RIGHT);
      const y = (value) => HEIGHT - BOTTOM - ((value - low) / (top - low)) * (HEIGHT - BOTTOM - TOP);
      chart.replaceChildren();
      if (sigmas) { drawBand(x, y, at, curves[0], sigmas); }
      curves.forEach((values, i) => drawCurve(x, y, at, values, COLOURS[i]));
      drawAxes(x, y, length, [low, top], current.unit);
      if (labels.length > 1) {
        chart.append(...labels.map((name, i) => svg("text", { x: LEFT + 10 + 90 * i, y: TOP + 10, fill: COLOURS[i], class: "strong" }, name)));
      }
      text.textContent = `${labels.join(", ")} over ${view.write(length)} ${scan.step_um ? "µm" : "pixels"}${sigmas ? "; the band is ± σ" : ""}.`;
      rows = [
        [scan.step_um ? "distance_um" : "distance_pixels", "row", "column", ...labels, ...(sigmas ? ["sigma"] : [])],
        ...points.map(({ row, column }, i) => [
          at[i], row * current.factor, column * current.factor, ...curves.map((values) => values[i]), ...(sigmas ? [sigmas[i]] : [])])];
      saveTable.disabled = false;
    };
    const follow = (from, to) => {
      ends = [from, to];
      if (node.open) { update(); } else { node.open = true; }
    };
    return { node, draw: update, follow };
  };

  hpcxrf.tools = { ...hpcxrf.tools, buildProfile };
})();
