"use strict";
// The controls above the maps, and the pointer's tools beside the large one.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button, choice, check, number, group } = hpcxrf.dom;
  const { colours, view } = hpcxrf;
  const SHOWS = [["map", "One map"], ["rgb", "RGB overlay", "three components in one picture"], ["ratio", "Ratio", "one component over another"]];
  const TOOLS = [
    ["look", "Point", "point to read a pixel, click to keep it"], ["line", "Line", "drag a line to see the values along it"],
    ["box", "Box", "drag a box to select pixels"], ["lasso", "Lasso", "draw around the pixels to select"]];
  const PRIMARY_NAMES = [["red-green-blue", "red, green, blue"], ["magenta-yellow-cyan", "magenta, yellow, cyan"]];
  const NAMED = { sum: "sum of all", combined: "all detectors combined" };
  const nameDetector = (name) => NAMED[name] ?? (/^\d+$/.test(name) ? `detector ${name}` : name);

  const makeSelection = (core) => {
    const { scan, state } = core;
    const clear = button("Clear", "clear the selection: all pixels again (Escape)", () => core.selectPixels(null));
    const parts = [];
    if (scan.regions?.length) {
      const options = [["", "–"], ...scan.regions.map((one) => [String(one.number), `${one.number} ${one.name} (${one.n_pixels} px)`])];
      parts.push(choice("Region", options, "", (value) => core.selectPixels(value ? { kind: "region", number: Number(value) } : null)));
    }
    const threshold = make("span", { class: "threshold", role: "group", "aria-label": "pixels between two values of the map" });
    if (core.options.select) {
      const ends = [null, null];
      const apply = () => {
        const layer = core.layer(core.drawnLayer());
        const of = { detector: core.detector(layer), layer: layer.name, component: layer.each ? state.component : null };
        return core.selectPixels({ kind: "threshold", ...of, low: ends[0], high: ends[1] });
      };
      const [from, to] = ["Values from", "to"].map((label, i) => {
        const field = number(label, (value) => { ends[i] = value; }, `select values ${label.replace("Values ", "")}`);
        field.input.addEventListener("input", () => { ends[i] = Number.isFinite(field.input.valueAsNumber) ? field.input.valueAsNumber : null; });
        return field;
      });
      threshold.append(from.node, to.node, button("Select", "select the pixels of the map shown whose values are between", apply));
    }
    const set = () => {
      clear.hidden = state.selection === null;
      if (parts.length) { parts[0].set(state.selection?.kind === "region" ? String(state.selection.number) : ""); }
    };
    set();
    return { nodes: [...parts.map((one) => one.node), ...(core.options.select ? [threshold] : []), clear], set };
  };

  const buildControls = (core) => {
    const { scan, state } = core;
    const names = scan.components.map((one) => [one.name, one.label]);
    const detector = choice("Detector", scan.detectors.map((name) => [name, nameDetector(name)]), state.detector, (value) => core.set({ detector: value }));
    const offered = scan.layers.filter((one) => !one.name.endsWith("sigma") || one.name === "sigma").map((one) => [one.name, one.label]);
    const layer = choice("Layer", offered, state.layer, (value) => core.set({ layer: value, ...(core.layer(value).each ? {} : { show: "map" }) }));
    const setShow = (value) => core.set({ show: value, ...(core.layer().each ? {} : { layer: scan.layers[0].name }) });
    const show = group("what the large picture shows", SHOWS, state.show, setShow);
    const scales = [["linear", "Linear"], ["log", "Log", "logarithmic (l)"]];
    const log = group("scale of the colours", scales, "linear", (value) => core.set({ log: value === "log" }));
    const nameSpan = (low, high) => (low === 0 ? "lowest to highest" : `percentile ${low} to ${high}`);
    const spans = [
      ...core.steps.map(([low, high]) => [`${low} ${high}`, nameSpan(low, high)]), ["layer", "the same on all pages"], ["given", "given"]];
    const setSpan = (value) => {
      if (value === "given") { const [low, high] = core.current?.limits ?? [0, 1]; core.set({ limits: { kind: "given", low, high } }); return; }
      if (value === "layer") { core.set({ limits: { kind: "layer" } }); return; }
      const [low, high] = value.split(" ").map(Number);
      core.set({ limits: { kind: "percentile", low, high } });
    };
    const span = choice("Limits", spans, "1 99", setSpan);
    const give = (end) => (value) => {
      const [low, high] = core.current?.limits ?? [0, 1];
      core.set({ limits: { kind: "given", low, high, [end]: value } });
    };
    const [low, high] = [number("from", give("low"), "limits from"), number("to", give("high"), "limits to")];
    const together = check("one scale for all", state.together, (on) => core.set({ together: on }), "the same limits for the maps of all components");
    const palette = choice("Colours", colours.names().map((name) => [name, name]), state.colours, (value) => core.set({ colours: value }));
    const reversed = check("reversed", state.reversed, (on) => core.set({ reversed: on }), "high values dark");
    const triple = state.rgb.map((name, i) => choice(["Red", "Green", "Blue"][i], names, name, (value) => core.set({ rgb: state.rgb.with(i, value) })));
    const primaries = choice("in", PRIMARY_NAMES, state.primaries, (value) => core.set({ primaries: value }), "Overlay in");
    const pair = state.ratio.map((name, i) => choice(
      ["Ratio of", "to"][i], names, name, (value) => core.set({ ratio: state.ratio.with(i, value) }), ["Ratio of", "Ratio to"][i]));
    const save = hpcxrf.tools.buildSave(core);
    const help = button("?", "list of keys (?)", () => core.showKeys(), { class: "help", "aria-label": "list of keys" });
    const rows = {
      rgb: make("div", { class: "bar" }, ...triple.map((one) => one.node), primaries.node),
      ratio: make("div", { class: "bar" }, ...pair.map((one) => one.node)),
    };
    const ofColours = make("span", { class: "together" }, palette.node, reversed.node);
    const node = make("div", { class: "controls" },
      make("div", { class: "bar" }, detector.node, layer.node, show.node, ...Object.values(rows)),
      make("div", { class: "bar" }, log.node, span.node, low.node, high.node, together.node, ofColours));
    const selection = makeSelection(core);
    const tool = group("what the pointer does", TOOLS, state.tool, (value) => core.set({ tool: value }));
    const tools = make("div", { class: "bar" }, tool.node, ...selection.nodes);

    const draw = (current) => {
      detector.set(state.detector);
      detector.node.hidden = scan.detectors.length < 2 || core.layer().detectors?.includes(state.detector) === false;
      layer.set(state.layer);
      show.set(state.show);
      tool.set(state.tool);
      log.set(state.log ? "log" : "linear");
      palette.set(state.colours);
      reversed.set(state.reversed);
      together.set(state.together);
      primaries.set(state.primaries);
      triple.forEach((one, i) => one.set(state.rgb[i]));
      pair.forEach((one, i) => one.set(state.ratio[i]));
      Object.entries(rows).forEach(([name, row]) => { row.hidden = name !== state.show; });
      span.set(state.limits.kind === "percentile" ? `${state.limits.low} ${state.limits.high}` : state.limits.kind);
      span.select.querySelector('[value="layer"]').hidden = !core.layer().limits;
      const limits = current?.limits;
      [low, high].forEach((field, i) => {
        field.node.hidden = !limits;
        if (limits && document.activeElement !== field.input) { field.set(limits[i]); }
      });
      const numbers = !current?.codes;
      [log.node, span.node].forEach((one) => { one.hidden = !numbers; });
      together.node.hidden = !numbers || state.show === "ratio" || !core.layer().each;
      ofColours.hidden = state.show === "rgb" || !numbers;
      save.draw(current);
    };
    return { node, tools, actions: [...save.nodes, help], draw, select: selection.set };
  };

  // The colours beside the large map with their numbers, or what its colours mean.
  const buildColourBar = (core) => {
    const scale = make("div", { class: "colour-scale" });
    const marks = make("div", { class: "colour-ticks" });
    const legend = make("ul", { class: "colour-legend" });
    const bar = make("div", { class: "colour-bar", title: "drag its upper or lower half to move a limit; double-click for the usual limits" }, scale, marks);
    const node = make("div", { class: "beside" }, bar, legend);
    let held = null;
    let next = null;
    const share = (event) => { const box = scale.getBoundingClientRect(); return view.clamp(1 - (event.clientY - box.top) / box.height, 0, 1); };
    bar.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !core.current) { return; }
      bar.setPointerCapture(event.pointerId);
      held = { from: share(event), limits: core.current.limits, isHigh: share(event) > 0.5 };
    });
    bar.addEventListener("pointermove", (event) => {
      if (!held) { return; }
      const [low, high] = held.limits;
      const at = held.isHigh ? Math.max(1 + share(event) - held.from, 0.02) : Math.min(share(event) - held.from, 0.98);
      const value = core.state.log ? low * (high / low) ** at : low + at * (high - low);
      const limits = held.isHigh ? { kind: "given", low, high: value } : { kind: "given", low: value, high };
      // One picture a frame.
      if (next === null) { requestAnimationFrame(() => { core.set({ limits: next }); next = null; }); }
      next = limits;
    });
    ["pointerup", "pointercancel"].forEach((name) => bar.addEventListener(name, () => { held = null; }));
    bar.addEventListener("dblclick", () => core.set({ limits: core.usual() }));
    const draw = (current) => {
      const { state } = core;
      bar.hidden = !current.limits;
      legend.hidden = Boolean(current.limits);
      legend.replaceChildren(...(current.entries ?? []).map(([colour, text]) => {
        const patch = make("i", {});
        patch.style.background = colour;
        return make("li", {}, patch, text);
      }));
      if (!current.limits) { return; }
      scale.style.background = colours.gradient(state.colours, state.reversed);
      const [low, high] = current.limits;
      marks.replaceChildren(...(state.log ? view.logTicks(low, high) : view.ticks(low, high, 6)).map((at) => {
        const tick = make("span", {}, view.write(at, 3));
        tick.style.bottom = `${100 * view.place(at, current.limits, state.log)}%`;
        return tick;
      }));
    };
    return { node, draw };
  };

  hpcxrf.tools = { ...hpcxrf.tools, buildControls, buildColourBar, nameDetector };
})();
