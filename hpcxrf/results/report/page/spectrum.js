"use strict";
// Spectra from their numbers: counts, fit, components, lines and residual as SVG; other spectra over them; drag to zoom.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, draw: create, button } = hpcxrf.dom;
  const { write, evenTicks, decadeTicks, spread } = hpcxrf.axes;
  const { clamp } = hpcxrf.view;
  const root = document.documentElement;
  const INK = "#22272e";
  const FAINT = "#8b929c";
  const FIT = "#c1121f";
  const BAND = "#e8edf3";
  const LEFT = 66;
  const RIGHT = 14;
  const NAMES = 78;
  const COUNTS = 330;
  const BETWEEN = 12;
  const RESIDUAL = 92;
  const FOOT = 38;
  const TOP = NAMES;
  const BOTTOM = TOP + COUNTS;
  const STRIP = BOTTOM + BETWEEN;
  const HEIGHT = STRIP + RESIDUAL + FOOT;
  const SMALLEST_WIDTH = 560;

  const floats = (text) => new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  // What is drawn: arrays of numbers; without a fit, model and background are null ----------------------------------
  const read = (numbers) => {
    const [energy, counts, model, background] =
      ["energy_kev", "counts", "model", "background"].map((name) => (numbers[name] ? floats(numbers[name]) : null));
    const residual = model ? counts.map((n, i) => (n - model[i]) / Math.sqrt(Math.max(model[i], 1))) : null;
    const parts = (numbers.components ?? []).map((part) => ({ ...part, counts: floats(part.counts) }));
    const overlays = (numbers.overlays ?? []).map((one) => ({ ...one, counts: floats(one.counts) }));
    const least = counts.reduce((low, n) => Math.min(low, n), Infinity);
    const sizes = residual ? residual.filter(Number.isFinite).map(Math.abs).sort() : [];
    return {
      energy, counts, model, background, residual, parts, overlays, markers: numbers.markers ?? [],
      floor: Math.max(0.5, 0.3 * least),
      reach: Math.max(4, 1.2 * (sizes[Math.floor(0.995 * (sizes.length - 1))] ?? 0)),
    };
  };

  // Drawing -----------------------------------------------------------------------------------------------------
  const trace = (xs, ys, first, stop) => {
    let path = "";
    let down = false;
    for (let i = first; i < stop; i += 1) {
      const y = ys(i);
      if (Number.isFinite(y)) { path += `${down ? "L" : "M"}${xs(i).toFixed(1)} ${y.toFixed(1)}`; }
      down = Number.isFinite(y);
    }
    return path;
  };
  const dots = (xs, ys, first, stop) => {
    let path = "";
    for (let i = first; i < stop; i += 1) {
      const y = ys(i);
      if (Number.isFinite(y)) { path += `M${xs(i).toFixed(1)} ${y.toFixed(1)}h0`; }
    }
    return path;
  };

  const frame = (chart, width) => {
    const { data, shown } = chart;
    const [low, high] = shown;
    let first = data.energy.findIndex((e) => e >= low);
    let stop = data.energy.findLastIndex((e) => e <= high) + 1;
    first = Math.max(0, first - 1);
    stop = Math.min(data.energy.length, stop + 1);
    let peak = 1;
    const over = data.overlays.filter((one) => chart.on.has(one.name));
    const heights = [data.counts, ...(data.model ? [data.model] : []), ...over.map((one) => one.counts)];
    heights.forEach((values) => { for (let i = first; i < stop; i += 1) { peak = Math.max(peak, values[i] || 0); } });
    const log = root.dataset.scale !== "linear";
    const [bottom, top] = log ? [data.floor, 2 * Math.max(peak, 10 * data.floor)] : [0, 1.06 * peak];
    const scale = log ? Math.log : (n) => n;
    const span = scale(top) - scale(bottom);
    return {
      first, stop, log, bottom, top, width, over,
      x: (e) => LEFT + ((e - low) / (high - low)) * (width - LEFT - RIGHT),
      y: (n) => (log && n < bottom * 0.999 ? NaN : BOTTOM - ((scale(n) - scale(bottom)) / span) * COUNTS),
      r: (z) => STRIP + RESIDUAL * (0.5 - clamp(z, -data.reach, data.reach) / (2 * data.reach)),
    };
  };

  const drawAxes = (svg, chart, f) => {
    const right = f.width - RIGHT;
    const line = (x1, y1, x2, y2) => svg.append(create("path", { d: `M${x1} ${y1}L${x2} ${y2}`, stroke: FAINT, fill: "none" }));
    const label = (x, y, anchor, text) => svg.append(create("text", { x, y, "text-anchor": anchor }, text));
    const across = evenTicks(...chart.shown, Math.max(3, Math.floor(f.width / 90)));
    across.ticks.forEach((at) => {
      line(f.x(at), STRIP + RESIDUAL, f.x(at), STRIP + RESIDUAL + 4);
      line(f.x(at), BOTTOM, f.x(at), BOTTOM + 3);
      label(f.x(at), STRIP + RESIDUAL + 17, "middle", at.toFixed(across.decimals).replace("-", "−"));
    });
    const up = f.log ? decadeTicks(f.bottom, f.top) : evenTicks(0, f.top, 6).ticks.map((at) => [at, write(at)]);
    up.forEach(([at, text]) => {
      line(LEFT - (text ? 5 : 3), f.y(at), LEFT, f.y(at));
      if (text) { label(LEFT - 8, f.y(at) + 4, "end", text); }
    });
    if (chart.data.residual) { evenTicks(-chart.data.reach, chart.data.reach, 5).ticks.forEach((z) => {
      line(LEFT - 4, f.r(z), LEFT, f.r(z));
      label(LEFT - 8, f.r(z) + 4, "end", write(z));
    }); }
    [[LEFT, TOP, LEFT, BOTTOM], [LEFT, BOTTOM, right, BOTTOM], [LEFT, STRIP, LEFT, STRIP + RESIDUAL],
      [LEFT, STRIP + RESIDUAL, right, STRIP + RESIDUAL]].forEach((ends) => line(...ends));
    label((LEFT + right) / 2, HEIGHT - 5, "middle", "energy (keV)");
    const turned = (y, text) => svg.append(create("text", { transform: `translate(13 ${y}) rotate(-90)`, "text-anchor": "middle" }, text));
    turned(TOP + COUNTS / 2, "counts per channel");
    turned(STRIP + RESIDUAL / 2, chart.data.residual ? "residual / σ" : "");
  };

  const drawMarkers = (svg, chart, f) => {
    const inside = chart.data.markers.filter(([at]) => at >= chart.shown[0] && at <= chart.shown[1]);
    const places = spread(inside.map(([at]) => f.x(at)), 13, LEFT, f.width - RIGHT);
    inside.forEach(([at, name, colour], i) => {
      const stroke = colour || INK;
      svg.append(
        create("path", { d: `M${f.x(at)} ${BOTTOM}V${TOP}L${places[i]} ${TOP - 11}`, stroke, fill: "none", "stroke-width": 0.6, opacity: 0.45 }),
        create("text", { transform: `translate(${places[i] + 4} ${TOP - 14}) rotate(-90)`, fill: stroke, class: "line" }, name));
    });
  };

  const drawCurves = (svg, chart, f) => {
    const { data, clip } = chart;
    const x = (i) => f.x(data.energy[i]);
    const inside = create("g", { "clip-path": `url(#${clip})`, fill: "none" });
    const curve = (d, stroke, attributes) => inside.append(create("path", { d, stroke, ...attributes }));
    data.parts.filter((part) => !chart.off.has(part.name)).forEach((part) => {
      const stop = Math.min(f.stop, part.first + part.counts.length);
      curve(trace(x, (i) => f.y(part.counts[i - part.first]), Math.max(f.first, part.first), stop), part.colour, { opacity: 0.85, class: "part" });
    });
    if (data.background) {
      const dashed = { "stroke-width": 1.4, "stroke-dasharray": "6 4", class: "background" };
      curve(trace(x, (i) => f.y(data.background[i]), f.first, f.stop), FAINT, dashed);
    }
    const round = { "stroke-linecap": "round", "stroke-width": 3 };
    curve(dots(x, (i) => (f.log && data.counts[i] <= 0 ? NaN : f.y(data.counts[i])), f.first, f.stop), INK, { ...round, class: "counts" });
    const over = { "stroke-width": 1.3, "stroke-dasharray": "7 2", class: "overlay" };
    f.over.forEach((one) => curve(trace(x, (i) => f.y(one.counts[i]), f.first, f.stop), one.colour, over));
    if (data.model) { curve(trace(x, (i) => f.y(data.model[i]), f.first, f.stop), FIT, { "stroke-width": 1.3, class: "fit" }); }
    if (data.residual) { curve(dots(x, (i) => f.r(data.residual[i]), f.first, f.stop), INK, { ...round, "stroke-width": 2.6, class: "residual" }); }
    svg.append(inside);
  };

  const draw = (chart, fallback = 0) => {
    const room = chart.box.clientWidth || fallback;
    if (!room) { return; }
    const width = Math.max(room, SMALLEST_WIDTH);
    const f = frame(chart, width);
    const { svg } = chart;
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.style.minWidth = `${SMALLEST_WIDTH}px`;
    const clip = create("clipPath", { id: chart.clip });
    clip.append(create("rect", { x: LEFT, y: TOP, width: width - LEFT - RIGHT, height: HEIGHT - TOP }));
    const band = { x: LEFT, width: width - LEFT - RIGHT, y: f.r(2), height: f.r(-2) - f.r(2), fill: BAND };
    svg.append(clip, create("rect", band), create("path", { d: `M${LEFT} ${f.r(0)}H${width - RIGHT}`, stroke: FAINT, "stroke-width": 0.7 }));
    drawMarkers(svg, chart, f);
    drawCurves(svg, chart, f);
    drawAxes(svg, chart, f);
    chart.cursor = create("path", { stroke: INK, "stroke-width": 0.8, opacity: 0.6, fill: "none" });
    chart.chosen = create("rect", { y: TOP, height: HEIGHT - TOP - FOOT, fill: "#0b5c8a", opacity: 0.15, width: 0 });
    svg.append(chart.chosen, chart.cursor);
    chart.f = f;
    root.dataset.spectra = document.querySelectorAll("figure.spectrum .chart > svg[viewBox]").length;
  };

  // Cursor and zoom ---------------------------------------------------------------------------------------------
  const tell = (chart, i) => {
    const { data, f } = chart;
    chart.at = clamp(i, 0, data.energy.length - 1);
    const at = chart.at;
    chart.cursor.setAttribute("d", `M${f.x(data.energy[at])} ${TOP}V${STRIP + RESIDUAL}`);
    const parts = data.parts.filter((part) => !chart.off.has(part.name))
      .map((part) => [part.counts[at - part.first] ?? 0, part.name])
      .filter(([n]) => n >= 0.5).sort((a, b) => b[0] - a[0]).slice(0, 4);
    const words = [["counts", data.counts], ["fit", data.model], ["background", data.background], ...chart.f.over.map((one) => [one.name, one.counts])]
      .filter(([, values]) => values).map(([word, values]) => `${word} ${write(values[at])}`);
    chart.output.textContent = [
      `${data.energy[at].toFixed(3)} keV`, ...words, ...parts.map(([n, name]) => `${name} ${write(n)}`),
      ...(data.residual ? [`residual ${write(data.residual[at])} σ`] : [])].join(" · ");
  };
  const zoom = (chart, low, high) => {
    const [first, last] = [chart.data.energy[0], chart.data.energy.at(-1)];
    chart.shown = high - low < 8 * (last - first) / chart.data.energy.length ? chart.shown : [Math.max(low, first), Math.min(high, last)];
    chart.whole.hidden = chart.shown[0] === first && chart.shown[1] === last;
    draw(chart);
  };
  const energyAt = (chart, event) => {
    const place = chart.svg.getBoundingClientRect();
    const x = ((event.clientX - place.left) / place.width) * chart.f.width;
    const share = clamp((x - LEFT) / (chart.f.width - LEFT - RIGHT), 0, 1);
    return chart.shown[0] + share * (chart.shown[1] - chart.shown[0]);
  };
  const nearest = (energy, at) => {
    const i = energy.findIndex((e) => e >= at);
    return i > 0 && at - energy[i - 1] < energy[i] - at ? i - 1 : i;
  };
  const steer = (chart) => {
    const { svg } = chart;
    let from = null;
    const whole = () => zoom(chart, -Infinity, Infinity);
    svg.addEventListener("pointerdown", (event) => {
      if (event.pointerType !== "touch" && event.button === 0) { from = energyAt(chart, event); svg.setPointerCapture(event.pointerId); }
    });
    svg.addEventListener("pointermove", (event) => {
      const at = energyAt(chart, event);
      tell(chart, nearest(chart.data.energy, at));
      if (from === null) { return; }
      const ends = [from, at].map(chart.f.x);
      chart.chosen.setAttribute("x", Math.min(...ends));
      chart.chosen.setAttribute("width", Math.abs(ends[1] - ends[0]));
    });
    svg.addEventListener("pointerup", (event) => {
      if (from === null) { return; }
      const ends = [from, energyAt(chart, event)];
      from = null;
      zoom(chart, Math.min(...ends), Math.max(...ends));
    });
    svg.addEventListener("dblclick", whole);
    chart.whole.addEventListener("click", whole);
    svg.addEventListener("keydown", (event) => {
      const half = (chart.shown[1] - chart.shown[0]) / 4;
      const centre = chart.data.energy[chart.at ?? 0];
      const act = {
        ArrowLeft: () => tell(chart, (chart.at ?? 0) - (event.shiftKey ? 20 : 1)),
        ArrowRight: () => tell(chart, (chart.at ?? 0) + (event.shiftKey ? 20 : 1)),
        "+": () => zoom(chart, centre - half, centre + half),
        "-": () => zoom(chart, centre - 4 * half, centre + 4 * half),
        Escape: whole,
      }[event.key];
      if (act) { event.preventDefault(); act(); }
    });
  };

  // Legend ------------------------------------------------------------------------------------------------------
  const sample = (attributes) => create("svg", { viewBox: "0 0 26 10", "aria-hidden": "true", class: "sample" },
    create("path", { d: "M1 5H25", fill: "none", ...attributes }));
  const key = (word, attributes) => make("span", {}, sample(attributes), ` ${word}`);
  // A component or an overlay that can be switched on and off.
  const toggle = (word, attributes, isOn, act) => {
    const press = () => node.setAttribute("aria-pressed", String(isOn()));
    const node = button("", `show or hide ${word}`, () => { act(); press(); }, { class: "switchable" });
    press();
    node.append(sample(attributes), ` ${word}`);
    return node;
  };
  const flip = (set, name) => { if (!set.delete(name)) { set.add(name); } };
  const fillLegend = (chart) => {
    const { data, legend } = chart;
    const again = () => draw(chart);
    const setAll = (on) => {
      chart.off = new Set(on ? [] : data.parts.map((part) => part.name));
      fillLegend(chart);
      again();
    };
    const parts = data.parts.filter((part) => part.counts.length).map((part) => toggle(
      part.name, { stroke: part.colour, "stroke-width": 2 }, () => !chart.off.has(part.name), () => { flip(chart.off, part.name); again(); }));
    const overlays = data.overlays.map((one) => toggle(
      one.name, { stroke: one.colour, "stroke-width": 1.6, "stroke-dasharray": "7 2" },
      () => chart.on.has(one.name), () => { flip(chart.on, one.name); again(); }));
    const every = [button("all", "show all components", () => setAll(true)), button("none", "hide all components", () => setAll(false))];
    const row = (label, ...nodes) => make("div", { class: "key-row", role: "group", "aria-label": label }, make("span", { class: "small" }, label), ...nodes);
    legend.replaceChildren(
      make("div", { class: "key-row" },
        key("counts", { d: "M5 5h0M13 5h0M21 5h0", stroke: INK, "stroke-width": 3.4, "stroke-linecap": "round" }),
        ...(data.model ? [key("fit", { stroke: FIT, "stroke-width": 1.6 })] : []),
        ...(data.background ? [key("background", { stroke: FAINT, "stroke-width": 1.6, "stroke-dasharray": "6 4" })] : []),
        chart.whole),
      ...(parts.length ? [row("Components", ...parts, ...every)] : []),
      ...(overlays.length ? [row("Compare with", ...overlays)] : []),
      chart.output);
  };
  const adopt = (chart, numbers) => {
    chart.data = read(numbers);
    const [first, last] = [chart.data.energy[0], chart.data.energy.at(-1)];
    // A zoom stays while the spectrum is the same detector's; components and overlays keep their switches.
    chart.shown = chart.shown && chart.shown[0] >= first && chart.shown[1] <= last ? chart.shown : [first, last];
    chart.whole.hidden = chart.shown[0] === first && chart.shown[1] === last;
  };
  let made = 0;
  const build = (figure, numbers) => {
    const label = "spectrum; arrow keys read it, plus and minus zoom, Escape shows the whole";
    const svg = create("svg", { role: "img", tabindex: 0, "aria-label": label });
    const box = make("div", { class: "chart" }, svg);
    const legend = make("div", { class: "key" });
    const output = make("output", {}, "Point at the spectrum to read it, drag to zoom.");
    const whole = make("button", { type: "button", class: "whole" }, "Whole spectrum");
    made += 1;
    const chart = { box, svg, legend, output, whole, clip: `clip-${made}`, off: new Set(), on: new Set(), shown: null };
    figure.prepend(box, legend);
    adopt(chart, numbers);
    fillLegend(chart);
    draw(chart);
    steer(chart);
    // A spectrum in a part that is closed has no width: it is drawn when the part opens.
    const observer = new ResizeObserver(() => { if (box.clientWidth && box.clientWidth !== chart.drawn) { chart.drawn = box.clientWidth; draw(chart); } });
    observer.observe(box);
    const again = () => draw(chart);
    const print = () => draw(chart, 1000);
    root.addEventListener("scalechange", again);
    window.addEventListener("beforeprint", print);
    return {
      // What was read at the pointer is read again: the numbers are those of the spectrum that is shown.
      update: (changed) => {
        adopt(chart, changed);
        fillLegend(chart);
        draw(chart);
        if (chart.at !== undefined && chart.f) { tell(chart, chart.at); }
      },
      zoom: (low, high) => zoom(chart, low, high),
      destroy: () => {
        observer.disconnect();
        root.removeEventListener("scalechange", again);
        window.removeEventListener("beforeprint", print);
        box.remove();
        legend.remove();
      },
    };
  };

  hpcxrf.spectrum = { build };
})();
