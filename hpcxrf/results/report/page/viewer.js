"use strict";
// The viewer of maps: a grid of all components, a large picture, and the tools around them.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make } = hpcxrf.dom;
  const { view, select, colours, picture } = hpcxrf;
  const USUAL = { kind: "percentile", low: 1, high: 99 };
  const STEPS = [[0, 100], [0.1, 99.9], [0.5, 99.5], [1, 99], [2, 98], [5, 95], [10, 90], [20, 80]];
  const PRIMARIES = {
    "red-green-blue": [[1, 0, 0], [0, 1, 0], [0.15, 0.35, 1]],
    "magenta-yellow-cyan": [[1, 0, 0.8], [0.9, 0.8, 0], [0, 0.75, 1]],
  };

  // What is shown ------------------------------------------------------------------------------------------------
  const chooseFirst = (scan) => {
    const detector = scan.detectors[0];
    const atoms = view.order(scan.components.filter((one) => one.z > 0 && one.found[detector] !== false), "counts", detector);
    const rest = view.order(scan.components, "counts", detector).filter((one) => !atoms.includes(one));
    return [...atoms, ...rest].map((one) => one.name);
  };
  const makeState = (scan, options) => {
    const best = chooseFirst(scan);
    return {
      detector: scan.detectors[0], layer: scan.layers[0].name, component: best[0], by: "z", show: "map", log: false,
      limits: USUAL, together: false, colours: "viridis", reversed: false,
      rgb: [0, 1, 2].map((i) => best[i % best.length]), primaries: "red-green-blue", ratio: [best[0], best[1 % best.length]],
      tool: "look", pixel: null, selection: null, ...options.state,
    };
  };

  const makeCore = (container, scan, options) => {
    const state = makeState(scan, options);
    const sorted = new WeakMap();
    const core = { container, scan, state, options, turn: 0, current: null, parts: [], mask: null, steps: STEPS, primaries: PRIMARIES };

    core.label = (name) => scan.components.find((one) => one.name === name)?.label ?? name;
    core.layer = (name = state.layer) => scan.layers.find((one) => one.name === name);
    core.detector = (layer = core.layer()) => (layer.detectors && !layer.detectors.includes(state.detector) ? layer.detectors[0] : state.detector);
    core.map = (layer, component) => scan.map(core.detector(core.layer(layer)), layer, component);
    // The layer whose numbers are drawn: decisions grey the amplitudes out.
    core.drawnLayer = () => (state.layer === "decision" ? "amplitude" : state.layer);
    core.sigmaLayer = (layer) => core.layer(layer === "amplitude" ? "sigma" : `${layer}_sigma`) ?? null;
    core.sort = (values) => {
      if (!sorted.has(values)) { sorted.set(values, view.sortFinite(values)); }
      return sorted.get(values);
    };
    core.usual = () => (core.layer().limits ? { kind: "layer" } : USUAL);
    core.shown = () => (state.show === "rgb" ? state.rgb : state.show === "ratio" ? state.ratio : core.layer().each ? [state.component] : []);
    core.emit = (name, detail) => container.dispatchEvent(new CustomEvent(name, { detail, bubbles: true }));

    // Limits of one map, or of all where they have one scale.
    core.limitsOf = (map, all = null, layer = core.layer(core.drawnLayer())) => {
      const isFixed = state.limits.kind === "layer";
      if (isFixed && layer.limits && !state.log) { return layer.limits; }
      const wanted = isFixed ? USUAL : state.limits;
      const own = (one) => view.findLimits(core.sort(one.values), wanted, state.log);
      return all ? view.joinLimits(all.map(own)) : own(map);
    };
    core.table = () => colours.table(state.colours, state.reversed);
    core.paint = ({ values, limits, faint = null }) => view.paint(values, { limits, faint, log: state.log, table: core.table(), missing: colours.notFitted });
    core.thumbnails = async () => {
      const layer = core.layer(core.drawnLayer());
      const name = layer.each ? layer.name : scan.layers[0].name;
      const detector = core.detector(core.layer(name));
      const all = await scan.thumbnails(detector, name);
      const found = state.layer === "decision" ? new Map((await scan.thumbnails(detector, "decision")).map((one) => [one.component, one.values])) : new Map();
      const together = state.together && layer.each ? all : null;
      const complete = (one) => ({ ...one, limits: core.limitsOf(one, together, core.layer(name)), faint: found.get(one.component) ?? null });
      return new Map(all.map((one) => [one.component, complete(one)]));
    };
    core.valueAt = (map, { y, x }) => map.values[Math.floor(y / map.factor) * map.shape[1] + Math.floor(x / map.factor)];
    core.writeValue = (map, value, sigma = NaN) => {
      if (Number.isNaN(value)) { return "not fitted"; }
      const [low, high] = map.range ?? [-Infinity, Infinity];
      const near = 1e-6 * (high - low);
      const close = value <= low + near ? "≤ " : value >= high - near ? "≥ " : "";
      return close + view.writeWithSigma(value, sigma);
    };
    const nameRegion = (code) => (code === 0 ? "no region" : `region ${code}`);
    core.describeCode = (layer, code) => layer.codes?.[code] ?? (layer.name.startsWith("regions") ? nameRegion(code) : String(code));
    return core;
  };

  // The picture that the state asks for ----------------------------------------------------------------------------
  const codeColour = (layer) => (code) => {
    const cycle = colours.cycle.map(colours.fromHex);
    if (layer.name.startsWith("regions")) { return code === 0 ? colours.pack(236, 238, 241) : cycle[(code - 1) % cycle.length]; }
    return code === 1 ? colours.pack(205, 215, 226) : cycle[code % cycle.length];
  };
  const composeMap = async (core) => {
    const { state } = core;
    const layer = core.layer(core.drawnLayer());
    const map = await core.map(layer.name, layer.each ? state.component : null);
    const title = layer.each ? core.label(state.component) : layer.label;
    const codes = layer.codes !== undefined || layer.name === "status" || layer.name.startsWith("regions");
    const base = { kind: "map", layer, title, maps: [map], values: map.values, shape: map.shape, factor: map.factor, unit: map.unit ?? layer.unit ?? "" };
    if (codes) {
      const pixels = view.paintCodes(map.values, codeColour(layer), colours.notFitted);
      const found = [...new Set(map.values)].filter(Number.isFinite).sort((a, b) => a - b);
      const entries = found.map((code) => [colours.css(codeColour(layer)(code)), core.describeCode(layer, code)]);
      return { ...base, codes, pixels, entries };
    }
    const faint = state.layer === "decision" ? (await core.map("decision", state.component)).values : null;
    const all = state.together && layer.each ? await core.scan.thumbnails(core.detector(layer), layer.name) : null;
    const limits = core.limitsOf(map, all);
    return { ...base, limits, faint, pixels: core.paint({ values: map.values, limits, faint }) };
  };
  const composeRgb = async (core) => {
    const { state } = core;
    const layer = core.layer(core.drawnLayer());
    const name = layer.each ? layer.name : core.scan.layers[0].name;
    const maps = await Promise.all(state.rgb.map((one) => core.map(name, one)));
    const limits = maps.map((map) => core.limitsOf(map, state.together ? maps : null));
    const primaries = PRIMARIES[state.primaries];
    const pixels = view.compose(maps.map((map) => map.values), limits, { log: state.log, primaries, missing: colours.notFitted });
    const entries = state.rgb.map((one, i) => [colours.css(colours.pack(...primaries[i].map((part) => Math.round(255 * part)))), core.label(one)]);
    const { shape, factor, unit } = maps[0];
    return { kind: "rgb", layer: core.layer(name), title: state.rgb.map(core.label).join(", "), maps, names: state.rgb, shape, factor, unit, pixels, entries };
  };
  const composeRatio = async (core) => {
    const { state } = core;
    const layer = core.layer(core.drawnLayer());
    const name = layer.each ? layer.name : core.scan.layers[0].name;
    const maps = await Promise.all(state.ratio.map((one) => core.map(name, one)));
    const known = core.layer("decision") ? await core.map("decision", state.ratio[1]).then((one) => one.values, () => null) : null;
    const values = view.ratio(maps[0].values, maps[1].values, known && known.length === maps[1].values.length ? known : null);
    const limits = view.findLimits(core.sort(values), state.limits.kind === "layer" ? USUAL : state.limits, state.log);
    const title = state.ratio.map(core.label).join(" / ");
    const pixels = view.paint(values, { limits, log: state.log, table: core.table(), missing: colours.notFitted });
    const { shape, factor } = maps[0];
    return { kind: "ratio", layer: core.layer(name), title, maps, names: state.ratio, values, shape, factor, unit: "", limits, pixels };
  };
  const COMPOSERS = { map: composeMap, rgb: composeRgb, ratio: composeRatio };

  // Building -------------------------------------------------------------------------------------------------------
  const build = (container, scan, options = {}) => {
    const core = makeCore(container, scan, options);
    const { state } = core;
    let hovered = null;
    const big = picture.build({
      shape: scan.shape, step: scan.step_um,
      label: "large map: point to read it, click to keep a pixel; shift and arrow keys move over it, Enter keeps the pixel",
      act: {
        hover: (place) => { hovered = place; tell(); if (place) { core.emit("selectionpreview", place); } },
        pick: (place) => { core.pin(place); core.emit("pixelchosen", place); },
        line: (from, to) => profile.follow(from, to),
        select: (selection) => core.selectPixels(selection),
      },
    });
    core.big = big;
    const readout = hpcxrf.tools.buildReadout(core);
    const controls = hpcxrf.tools.buildControls(core);
    const grid = hpcxrf.grid.build(core, controls.actions);
    const bar = hpcxrf.tools.buildColourBar(core);
    const scatter = hpcxrf.tools.buildScatter(core);
    const profile = hpcxrf.tools.buildProfile(core);
    const keys = hpcxrf.tools.buildKeys(core);
    const tell = () => {
      const place = hovered ?? state.pixel;
      readout.tell(place);
      grid.tell(place);
    };

    core.choose = (name) => core.set({ component: name, show: "map", ...(core.layer().each ? {} : { layer: scan.layers[0].name }) });
    core.pin = (place) => { state.pixel = place; big.pin(place); tell(); };
    core.step = (by) => { core.choose(grid.step(by)); grid.reveal(state.component); };
    // A mask of the picture's points darkens all others; every selection comes through here.
    core.mark = async (selection) => {
      state.selection = selection;
      core.mask = selection === null || core.current === null ? null : await toMask(selection);
      const { shape, factor } = core.current ?? { shape: [1, 1], factor: 1 };
      big.shade(core.mask, shape, factor);
      [readout, scatter, controls].forEach((part) => part.select(core.mask));
    };
    core.selectPixels = async (selection) => {
      await core.mark(selection);
      if (selection) { core.emit("selectionmade", { selection }); }
    };
    const toMask = async (selection) => {
      const { shape, factor } = core.current;
      const region = scan.regions?.find((one) => one.number === selection.number);
      const source = {
        region: () => core.map(region?.layer ?? "regions", null),
        threshold: () => scan.map(selection.detector, selection.layer, selection.component),
      }[selection.kind];
      return select.toMask(selection, { shape, factor, scanShape: scan.shape, values: source ? (await source()).values : null });
    };
    core.refresh = async () => {
      const turn = (core.turn += 1);
      try {
        const current = await COMPOSERS[state.show](core);
        if (turn !== core.turn) { return; }
        core.current = current;
        big.show(current.pixels, current.shape, current.factor);
        [controls, bar, readout, scatter, profile].forEach((part) => part.draw(current));
        await grid.draw();
        if (turn !== core.turn) { return; }
        if (state.selection) { await core.mark(state.selection); }
        tell();
        container.dataset.drawn = String(Number(container.dataset.drawn ?? 0) + 1);
      } catch (error) {
        if (turn === core.turn) { big.say(error.message); controls.draw(core.current); }
      }
    };
    core.set = (changes) => {
      const before = state.detector;
      // Limits that were given, or that belong to a layer, mean nothing in another one.
      const isOther = ["layer", "show"].some((name) => name in changes && changes[name] !== state[name]);
      Object.assign(state, changes);
      if (state.detector !== before) { core.emit("detectorchosen", { detector: state.detector }); }
      if (isOther && !("limits" in changes)) {
        if (core.layer().limits || state.limits.kind !== "percentile") { state.limits = core.usual(); }
      }
      if ("tool" in changes) { big.setTool(state.tool); controls.draw(core.current); }
      if (Object.keys(changes).some((name) => name !== "tool")) { return core.refresh(); }
      return Promise.resolve();
    };
    core.contrast = (step) => {
      if (state.limits.kind === "given") {
        const { low, high } = state.limits;
        const by = ((high - low) * (step > 0 ? -0.1 : 0.125));
        return core.set({ limits: { kind: "given", low: low - by * (low === 0 ? 0 : 1), high: high + by } });
      }
      const at = STEPS.findIndex(([low]) => low >= (state.limits.low ?? USUAL.low));
      const [low, high] = STEPS[view.clamp(at + Math.sign(step), 0, STEPS.length - 1)];
      return core.set({ limits: { kind: "percentile", low, high } });
    };

    container.classList.add("viewer");
    container.replaceChildren(
      controls.node,
      make("div", { class: "viewer-body" },
        make("div", { class: "large" }, controls.tools, make("div", { class: "stage-row" }, big.node, bar.node), readout.node,
          make("div", { class: "viewer-tools" }, profile.node, scatter.node)),
        grid.node));
    keys.attach();
    big.setTool(state.tool);
    const ready = core.refresh();

    return {
      ready,
      show: (component) => core.choose(component),
      next: (step) => core.step(step),
      setLayer: (layer) => core.set({ layer }),
      setDetector: (detector) => core.set({ detector }),
      contrast: core.contrast,
      toggleLog: () => core.set({ log: !state.log }),
      set: core.set,
      selection: () => state.selection,
      mark: core.mark,
      pin: core.pin,
      state: () => structuredClone(state),
      destroy: () => { keys.detach(); container.replaceChildren(); container.classList.remove("viewer"); },
    };
  };

  hpcxrf.viewer = { build };
})();
