"use strict";
// All datasets of a run together: distributions as bars, parameters of the detectors over the datasets as points.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, draw, choice } = hpcxrf.dom;
  const { write, evenTicks, decadeTicks } = hpcxrf.axes;
  const INK = "#22272e";
  const FAINT = "#8b929c";
  const STEP = "#c1121f";
  // Good, doubtful, wrong, in colours that differ in lightness too.
  const VERDICTS = { good: "#3b7ea1", doubtful: "#e0a526", wrong: "#8c1d40", "not judged": "#b8bec6" };
  const LEFT = 74;
  const RIGHT = 14;
  const TOP = 12;
  const HEIGHT = 300;
  const FOOT = 40;
  const SMALLEST_WIDTH = 560;

  const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  const label = (x, y, anchor, text, attributes = {}) => draw("text", { x, y, "text-anchor": anchor, ...attributes }, text);
  const path = (d, attributes) => draw("path", { d, fill: "none", ...attributes });
  const key = (colour, word) => make("span", {}, draw("svg", { viewBox: "0 0 10 10", class: "dot", "aria-hidden": "true" },
    draw("circle", { cx: 5, cy: 5, r: 4, fill: colour })), ` ${word}`);

  // Of shares of a ten-thousandth, too, what differs is read.
  const digits = (n) => String(Number(n.toPrecision(3)));

  // Distributions -----------------------------------------------------------------------------------------------
  const drawHistogram = ({ title, word, log, edges, counts, median, missing }) => {
    const [width, height] = [360, 170];
    const [left, right, top, foot] = [42, 10, 8, 38];
    const scale = log ? Math.log10 : (n) => n;
    const [low, high] = [scale(edges[0]), scale(edges.at(-1))];
    const words = Object.keys(counts);
    const total = edges.slice(1).map((_, i) => words.reduce((sum, name) => sum + counts[name][i], 0));
    const most = Math.max(...total, 1);
    const x = (value) => left + ((scale(value) - low) / (high - low)) * (width - left - right);
    const y = (n) => top + (1 - n / most) * (height - top - foot);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: median ${digits(median)}` });
    total.forEach((_, i) => {
      let from = 0;
      words.forEach((name) => {
        const n = counts[name][i];
        if (!n) { return; }
        const bar = draw("rect", {
          x: x(edges[i]) + 0.5, width: Math.max(x(edges[i + 1]) - x(edges[i]) - 1, 0.5), y: y(from + n), height: y(from) - y(from + n), fill: VERDICTS[name],
        }, draw("title", {}, `${digits(edges[i])} to ${digits(edges[i + 1])}: ${n} ${name}`));
        svg.append(bar);
        from += n;
      });
    });
    // Within a decade no power of ten may lie.
    const across = log && high - low > 1.3 ? decadeTicks(edges[0], edges.at(-1)) : evenTicks(edges[0], edges.at(-1), 5).ticks.map((at) => [at, write(at)]);
    across.forEach(([at, text]) => {
      svg.append(path(`M${x(at)} ${height - foot}v${text ? 4 : 2}`, { stroke: FAINT }));
      if (text) { svg.append(label(x(at), height - foot + 16, "middle", text)); }
    });
    evenTicks(0, most, 4).ticks.filter(Number.isInteger).forEach((n) => {
      svg.append(path(`M${left - 4} ${y(n)}H${left}`, { stroke: FAINT }), label(left - 7, y(n) + 4, "end", write(n)));
    });
    svg.append(
      path(`M${left} ${top}V${height - foot}H${width - right}`, { stroke: FAINT }),
      path(`M${x(median)} ${top}V${height - foot}`, { stroke: INK, "stroke-dasharray": "4 3" }),
      label((left + width - right) / 2, height - 5, "middle", word));
    const unknown = missing ? `; not known of ${missing}` : "";
    return make("figure", {}, svg, make("figcaption", {}, `${title}: number of fits, median ${digits(median)}${unknown}. `, ...words.map((name) => key(VERDICTS[name], `${name} `))));
  };

  // Trends ------------------------------------------------------------------------------------------------------
  const read = (numbers) => ({
    ...numbers,
    times: numbers.dates?.map((date) => Date.parse(date)) ?? null,
    series: numbers.series.map((one) => ({
      ...one, away: floats(one.away), sigma: floats(one.sigma), outliers: new Set(one.outliers),
    })),
  });
  const dateTicks = (low, high) => {
    const day = 86_400_000;
    const digits = high - low > 900 * day ? 4 : high - low > 60 * day ? 7 : high - low > 3 * day ? 10 : 16;
    return Array.from({ length: 5 }, (_, i) => low + ((i + 0.5) * (high - low)) / 5)
      .map((at) => [at, new Date(at).toISOString().slice(0, digits).replace("T", " ")]);
  };
  const robustEnds = (values) => {
    const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
    const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
    const spread = Math.max(at(0.98) - at(0.02), Math.abs(at(0.5)) * 1e-9, 1e-12);
    return [Math.max(sorted[0], at(0.02) - 0.6 * spread), Math.min(sorted.at(-1), at(0.98) + 0.6 * spread)];
  };

  const drawTrend = (chart) => {
    const width = Math.max(chart.box.clientWidth, SMALLEST_WIDTH);
    const shown = chart.data.series.filter((one) => one.parameter === chart.parameter && !chart.off.has(one.detector));
    const { svg } = chart;
    svg.replaceChildren();
    chart.spots = [];
    if (!chart.box.clientWidth || !shown.length) { return; }
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    const byTime = chart.byDate && chart.data.times;
    const place = (i) => (byTime ? chart.data.times[i] : i);
    const ends = byTime ? [Math.min(...byTime), Math.max(...byTime)] : [0, chart.data.names.length - 1];
    const [first, last] = ends[0] < ends[1] ? ends : [ends[0] - 1, ends[1] + 1];
    const values = shown.flatMap((one) => [...one.away].map((away) => one.centre + away));
    const [lowest, highest] = chart.whole ? [Math.min(...values), Math.max(...values)] : robustEnds(values);
    const margin = 0.06 * (highest - lowest) || 1e-9;
    const [low, high] = [lowest - margin, highest + margin];
    const bottom = HEIGHT - FOOT;
    const x = (i) => LEFT + ((place(i) - first) / (last - first)) * (width - LEFT - RIGHT);
    const y = (value) => bottom - ((value - low) / (high - low)) * (bottom - TOP);
    shown.forEach((one) => {
      one.steps.forEach((at) => svg.append(path(`M${x(at)} ${TOP}V${bottom}`, { stroke: STEP, "stroke-width": 0.9, "stroke-dasharray": "5 3", class: "step" })));
      let bars = "";
      let dots = "";
      let beyond = "";
      one.at.forEach((at, i) => {
        const value = one.centre + one.away[i];
        const [px, py] = [x(at), y(value)];
        chart.spots.push({ px, py: Math.min(Math.max(py, TOP), bottom), at, value, sigma: one.sigma[i], series: one, outlier: one.outliers.has(i) });
        if (py < TOP || py > bottom) { beyond += `M${px.toFixed(1)} ${py < TOP ? TOP + 5 : bottom - 5}l-3 ${py < TOP ? 5 : -5}h6z`; return; }
        dots += `M${px.toFixed(1)} ${py.toFixed(1)}h0`;
        const half = one.sigma[i];
        if (half > 0) { bars += `M${px.toFixed(1)} ${Math.max(y(value + half), TOP).toFixed(1)}V${Math.min(y(value - half), bottom).toFixed(1)}`; }
        if (one.outliers.has(i)) { svg.append(draw("circle", { cx: px, cy: py, r: 5.5, fill: "none", stroke: STEP, class: "outlier" })); }
      });
      svg.append(
        path(bars, { stroke: one.colour, "stroke-width": 0.7, opacity: 0.45 }),
        path(dots, { stroke: one.colour, "stroke-width": 4, "stroke-linecap": "round", class: "points" }),
        path(beyond, { fill: one.colour, class: "beyond" }));
    });
    const across = byTime ? dateTicks(first, last) : evenTicks(first, last, 8).ticks.filter(Number.isInteger).map((at) => [at, String(at + 1)]);
    across.forEach(([at, text]) => {
      const px = LEFT + ((at - first) / (last - first)) * (width - LEFT - RIGHT);
      svg.append(path(`M${px} ${bottom}v4`, { stroke: FAINT }), label(px, bottom + 17, "middle", text));
    });
    const up = evenTicks(low, high, 6);
    up.ticks.forEach((at) => svg.append(path(`M${LEFT - 4} ${y(at)}H${LEFT}`, { stroke: FAINT }),
      label(LEFT - 7, y(at) + 4, "end", at.toFixed(up.decimals).replace("-", "−"))));
    const unit = shown[0].unit && shown[0].unit !== "1" ? ` (${shown[0].unit})` : "";
    svg.append(
      path(`M${LEFT} ${TOP}V${bottom}H${width - RIGHT}`, { stroke: FAINT }),
      label((LEFT + width - RIGHT) / 2, HEIGHT - 5, "middle", byTime ? "date" : "dataset, in order"),
      draw("text", { transform: `translate(13 ${(TOP + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, `${chart.label}${unit}`));
    chart.mark = draw("circle", { r: 6, fill: "none", stroke: INK, "stroke-width": 1.4, cx: -20, cy: -20 });
    svg.append(chart.mark);
    chart.width = width;
    chart.at = null;
  };

  const tell = (chart, spot) => {
    chart.at = spot;
    chart.mark.setAttribute("cx", spot.px);
    chart.mark.setAttribute("cy", spot.py);
    const { names, dates, links } = chart.data;
    const digits = Math.max(0, Math.min(9, 2 - Math.floor(Math.log10(spot.sigma > 0 ? spot.sigma : Math.abs(spot.value) / 1000 || 1))));
    const error = spot.sigma > 0 ? ` ± ${spot.sigma.toFixed(digits)}` : "";
    const unit = spot.series.unit && spot.series.unit !== "1" ? ` ${spot.series.unit}` : "";
    const name = links[spot.at] ? make("a", { href: links[spot.at] }, names[spot.at]) : names[spot.at];
    chart.output.replaceChildren(name, [dates ? ` · ${dates[spot.at].slice(0, 16).replace("T", " ")}` : "", ` · detector ${spot.series.detector}`,
      ` · ${spot.value.toFixed(digits).replace("-", "−")}${error}${unit}`, spot.outlier ? " · outlier" : ""].join(""));
  };
  const steer = (chart) => {
    const { svg } = chart;
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const [px, py] = [((event.clientX - box.left) / box.width) * chart.width, ((event.clientY - box.top) / box.height) * HEIGHT];
      return chart.spots.reduce((best, spot) => {
        const far = (spot.px - px) ** 2 + (spot.py - py) ** 2;
        return far < best.far ? { far, spot } : best;
      }, { far: Infinity, spot: null }).spot;
    };
    svg.addEventListener("pointermove", (event) => { const spot = nearest(event); if (spot) { tell(chart, spot); } });
    svg.addEventListener("click", (event) => {
      const spot = nearest(event);
      if (spot && chart.data.links[spot.at]) { window.location.href = chart.data.links[spot.at]; }
    });
    svg.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by && chart.spots.length) {
        event.preventDefault();
        const ordered = [...chart.spots].sort((a, b) => a.px - b.px);
        const i = chart.at ? ordered.indexOf(ordered.find((spot) => spot.at === chart.at.at && spot.series === chart.at.series)) + by : 0;
        tell(chart, ordered[Math.min(Math.max(i, 0), ordered.length - 1)]);
      } else if (event.key === "Enter" && chart.at && chart.data.links[chart.at.at]) {
        window.location.href = chart.data.links[chart.at.at];
      }
    });
  };

  const buildTrend = (figure, numbers) => {
    const data = read(numbers);
    const svg = draw("svg", { role: "img", tabindex: 0, "aria-label": "parameters over the datasets; arrow keys read points, Enter opens the page of one" });
    const box = make("div", { class: "chart" }, svg);
    const output = make("output", {}, "Point at a dataset to read it, click to open its page.");
    const start = data.parameters.find(({ name }) => data.series.some((one) => one.parameter === name && one.steps.length)) ?? data.parameters[0];
    const chart = { data, svg, box, output, parameter: start.name, label: start.label, off: new Set(), byDate: data.times !== null, whole: false, spots: [] };
    const again = () => drawTrend(chart);
    const count = (name) => data.series.filter((one) => one.parameter === name).reduce((sum, one) => sum + one.steps.length, 0);
    const words = data.parameters.map(({ name, label: word }) => [name, count(name) ? `${word} (${count(name)} change${count(name) > 1 ? "s" : ""})` : word]);
    const parameter = choice("Parameter", words, chart.parameter, (name) => {
      chart.parameter = name;
      chart.label = data.parameters.find((one) => one.name === name).label;
      again();
    });
    const axis = choice("Along", [["date", "date"], ["order", "order"]], "date", (value) => { chart.byDate = value === "date"; again(); });
    const range = choice("Range", [["robust", "most points"], ["whole", "all points"]], "robust", (value) => { chart.whole = value === "whole"; again(); });
    const detectors = [...new Map(data.series.map((one) => [one.detector, one.colour]))].map(([name, colour]) => {
      const node = make("button", { type: "button", class: "switchable", "aria-pressed": "true" }, key(colour, `detector ${name}`));
      node.addEventListener("click", () => {
        if (!chart.off.delete(name)) { chart.off.add(name); }
        node.setAttribute("aria-pressed", String(!chart.off.has(name)));
        again();
      });
      return node;
    });
    const left = Math.max(0, ...data.series.map((one) => one.left_out));
    figure.append(
      make("p", { class: "trend-tools" }, parameter.node, ...(data.times ? [axis.node] : []), range.node, ...detectors),
      box, output, ...(left ? [make("p", { class: "small" }, `Every detector has more points than are drawn: up to ${left} of one are left out here, none of them in the tables.`)] : []));
    steer(chart);
    new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== chart.drawn) { chart.drawn = box.clientWidth; again(); } }).observe(box);
  };

  const block = document.getElementById("trend-numbers");
  if (block) {
    const numbers = JSON.parse(block.textContent);
    document.querySelector(".histograms").append(...numbers.histograms.map(drawHistogram));
    if (numbers.series.length) { buildTrend(document.querySelector("figure.trend"), numbers); }
  }
})();
