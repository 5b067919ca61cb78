"use strict";
// The explorer: a scan's maps on the left; the spectrum of what is chosen, and fits of it, on the right.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { client, dom: { make, button } } = hpcxrf;
  const SLOW_S = 0.2;
  const OVERLAY = "#7b3294";
  const HELD = ["#0072b2", "#009e73", "#cc79a7", "#8c6d1f"];
  const id = (name) => document.getElementById(name);

  const describeSelection = (selection, scan) => ({
    all: () => "the whole scan",
    pixel: () => `pixel at row ${selection.y}, column ${selection.x}`,
    box: () => `rows ${selection.y[0]} to ${selection.y[1] - 1}, columns ${selection.x[0]} to ${selection.x[1] - 1}`,
    polygon: () => `inside a polygon of ${selection.points.length} points`,
    region: () => `region ${scan.regions.find((one) => one.number === selection.number)?.name ?? selection.number}`,
    threshold: () => `${selection.component ?? selection.layer} from ${selection.low ?? "−∞"} to ${selection.high ?? "∞"}`,
    mask: () => "points chosen in the scatter plot",
  }[selection.kind]());

  const makeApp = (scan, dataset) => {
    const listeners = new Map();
    const app = {
      // That of the maps, where it has a fit: runs of earlier versions have the sum last among their fits.
      scan, dataset, detector: scan.detectors_fit.length && !scan.detectors_fit.includes(scan.detectors[0]) ? scan.detectors_fit[0] : scan.detectors[0],
      canFit: scan.run !== null && scan.has_spectra && scan.detectors_fit.length > 0, selection: { kind: "all" }, fit: null, kept: null, numbers: null, over: null,
      elements: [...scan.elements], theta: new Map(), focus: new Set(), touched: new Set(), drawn: [], held: [],
      on: (name, act) => listeners.set(name, [...(listeners.get(name) ?? []), act]),
      emit: (name, value) => (listeners.get(name) ?? []).forEach((act) => act(value)),
    };
    const fitter = client.makeFitter((state, seconds) => app.emit("busy", state !== null && seconds > SLOW_S
      ? `${state === "waiting" ? "waiting for the process that fits" : "fitting"}, ${seconds.toFixed(1)} s` : ""), (command) => app.emit("command", command));

    const draw = () => {
      const numbers = app.fit?.spectrum && app.fitted === app.shownKey ? app.fit.spectrum : app.numbers;
      if (!numbers) { return; }
      const overlays = [...(numbers.overlays ?? []), ...app.held, ...(app.over ? [app.over] : [])];
      app.emit("spectrum", { ...numbers, overlays });
    };
    // Every detector of the sum keeps its own theta: there is none to be moved by hand.
    app.isSum = () => app.detector === "sum";
    const guard = async (work) => {
      try { app.emit("fault", ""); return await work(); } catch (error) { app.emit("fault", error.changed ? "" : error.message); return null; }
    };
    const key = () => JSON.stringify([app.detector, app.selection]);
    // What was asked for first may be answered last: only the newest choice counts.
    let turn = 0;
    const begin = () => {
      turn += 1;
      const mine = turn;
      return () => mine === turn;
    };

    app.refit = (kind, { keep = false } = {}) => guard(async () => {
      if (!app.canFit) { return null; }
      const mine = key();
      const fit = await fitter({
        dataset, detector: app.detector, selection: app.selection, elements: app.elements, kind, keep,
        theta: app.isSum() ? {} : Object.fromEntries(app.theta), focus: app.focus.size ? [...app.focus] : null, parent: app.kept?.id ?? null,
      });
      if (!fit || mine !== key()) { return null; }
      [app.fit, app.fitted] = [fit, mine];
      if (kind === "full") { app.adopt(fit); }
      app.emit("fit", { fit, kind });
      draw();
      if (kind === "full") { app.refreshElements(); }
      if (keep) { app.kept = fit; await app.refreshHistory(); }
      return fit;
    });
    // Theta goes on from where the last fit ended; what is held or bounded by hand stays so.
    app.adopt = (fit) => fit.parameters.forEach((row) => {
      const asked = app.theta.get(row.name);
      app.theta.set(row.name, { mode: row.free ? "fit" : "fix", ...asked, value: row.value });
    });
    app.ask = (name, wanted) => {
      app.touched.add(name);
      app.theta.set(name, { ...app.theta.get(name), ...wanted });
    };
    app.setFocus = (name, on) => { if (on) { app.focus.add(name); } else { app.focus.delete(name); } app.refit("full"); };
    app.toggleElement = (name) => {
      app.elements = app.elements.includes(name) ? app.elements.filter((one) => one !== name) : [...app.elements, name];
      app.focus.delete(name);
      return app.refit("full");
    };
    app.choose = (selection) => guard(async () => {
      const isNewest = begin();
      app.selection = selection;
      app.emit("selection", selection);
      [app.shownKey, app.over] = [key(), null];
      const slow = setTimeout(() => app.emit("busy", "adding up spectra"), 1000 * SLOW_S);
      const found = await client.post("/api/spectrum", { dataset, detector: app.detector, selection }).finally(() => { clearTimeout(slow); app.emit("busy", ""); });
      if (!isNewest()) { return; }
      app.numbers = found.spectrum;
      app.emit("counted", found);
      draw();
      await app.refit("amplitudes");
    });
    // The spectrum that is shown stays as a curve beside those that come after it; once more, and it is gone.
    app.hold = () => {
      const numbers = app.numbers ?? app.fit?.spectrum;
      const name = describeSelection(app.selection, scan);
      const others = app.held.filter((one) => one.name !== name);
      app.held = others.length < app.held.length || !numbers ? others
        : [...others, { name, colour: HELD[others.length % HELD.length], counts: numbers.counts }];
      draw();
    };
    app.setDetector = (name) => {
      if ((!app.canFit || scan.detectors_fit.includes(name)) && name !== app.detector) {
        [app.detector, app.held, app.numbers] = [name, [], null];
        app.reset();
      }
    };
    app.reset = () => {
      [app.elements, app.theta, app.focus, app.over, app.kept] = [[...scan.elements], new Map(), new Set(), null, null];
      return app.canFit && app.selection.kind === "all" ? app.goOnFrom(`run-${app.detector}`) : app.choose(app.selection);
    };
    app.takeBack = () => guard(async () => {
      const before = await client.post("/api/history/take_back", { dataset });
      await app.refreshHistory();
      if (before?.id) { await app.goOnFrom(before.id); } else { await app.reset(); }
    });
    app.fetchFit = (one) => client.get("/api/history/one", { dataset, id: one });
    app.goOnFrom = (one) => guard(async () => {
      const isNewest = begin();
      const fit = await app.fetchFit(one);
      if (!isNewest()) { return; }
      [app.kept, app.fit, app.detector, app.selection] = [fit, fit, fit.detector, fit.selection];
      [app.elements, app.focus, app.theta] = [[...fit.elements], new Set(fit.focus ?? []), new Map()];
      app.adopt(fit);
      [app.shownKey, app.fitted] = [key(), key()];
      app.emit("selection", fit.selection);
      app.emit("fit", { fit, kind: "full" });
      draw();
    });
    app.overlay = (one) => guard(async () => {
      const fit = await app.fetchFit(one);
      app.over = { name: `fit of ${fit.at.slice(11, 19)}`, colour: OVERLAY, counts: fit.spectrum.model };
      draw();
    });
    app.refreshHistory = () => guard(async () => app.emit("history", await client.get("/api/history", { dataset })));
    app.refreshElements = () => guard(async () => app.emit("elements", await client.get("/api/elements", { dataset, detector: app.detector })));
    app.write = (kind) => guard(() => client.post("/api/write", { dataset, kind, fit: app.kept?.id ?? app.fit?.id ?? null, regions: app.drawn }));
    return app;
  };

  const tabs = (container, parts) => {
    const bar = make("div", { class: "tabs", role: "tablist" });
    const panels = parts.map(([name]) => make("section", { role: "tabpanel", "aria-label": name, hidden: true }));
    const show = (chosen) => {
      panels.forEach((panel, i) => { panel.hidden = i !== chosen; });
      [...bar.children].forEach((tab, i) => { tab.setAttribute("aria-selected", String(i === chosen)); });
    };
    bar.append(...parts.map(([name], i) => button(name, "", () => show(i), { role: "tab" })));
    container.append(bar, ...panels);
    parts.forEach(([, build], i) => build(panels[i]));
    show(0);
  };

  const listen = (app, viewer, container, signal) => {
    const { scan } = app;
    let chart = null;
    app.on("spectrum", (numbers) => { if (chart) { chart.update(numbers); } else { chart = hpcxrf.spectrum.build(id("spectrum"), numbers); } });
    app.on("fault", (text) => { id("fault").textContent = text; id("fault").hidden = !text; });
    app.on("command", (text) => { id("command").textContent = text; id("same").hidden = !text; });
    app.on("busy", (text) => { id("busy").textContent = text; });
    app.on("selection", (selection) => { id("selection").textContent = describeSelection(selection, scan); viewer.mark(["all", "pixel"].includes(selection.kind) ? null : selection); });
    app.on("fit", ({ fit }) => { if (!app.numbers) { id("counted").textContent = `${fit.n_pixels} pixels`; } });
    app.on("counted", ({ n_pixels: n, live_time_s: live }) => { id("counted").textContent = `${n} ${n === 1 ? "pixel" : "pixels"}${live ? `, ${live.toPrecision(4)} s live` : ""}`; });
    container.addEventListener("pixelchosen", ({ detail }) => app.choose({ kind: "pixel", y: detail.y, x: detail.x }));
    container.addEventListener("selectionmade", ({ detail }) => app.choose(detail.selection));
    container.addEventListener("detectorchosen", ({ detail }) => app.setDetector(detail.detector));
    id("whole").addEventListener("click", () => app.choose({ kind: "all" }), { signal });
    id("region").addEventListener("change", (event) => { if (event.target.value) { app.choose({ kind: "region", number: Number(event.target.value) }); } }, { signal });
    id("hold").addEventListener("click", () => app.hold(), { signal });
    id("draw-region").addEventListener("click", () => {
      const { selection } = app;
      const polygon = selection.kind === "polygon" ? selection.points : selection.kind === "box"
        ? [[selection.y[0] - 0.5, selection.x[0] - 0.5], [selection.y[0] - 0.5, selection.x[1] - 0.5], [selection.y[1] - 0.5, selection.x[1] - 0.5], [selection.y[1] - 0.5, selection.x[0] - 0.5]] : null;
      if (!polygon) { app.emit("fault", "A region is a box or a lasso: draw one on the map first."); return; }
      app.drawn.push({ name: `region-${app.drawn.length + 1}`, polygon });
      id("drawn").textContent = app.drawn.map((one) => one.name).join(", ");
    }, { signal });
    document.addEventListener("keydown", (event) => {
      if (hpcxrf.dom.isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) { return; }
      const act = { r: () => app.refit("full", { keep: true }), z: () => app.takeBack(), n: () => step(scan, 1), p: () => step(scan, -1) }[event.key];
      if (act) { event.preventDefault(); act(); }
    }, { signal });
    signal.addEventListener("abort", () => { viewer.destroy(); chart?.destroy(); });
  };

  const step = (scan, by) => {
    const at = scan.datasets.indexOf(scan.dataset_id);
    const next = scan.datasets[(at + by + scan.datasets.length) % scan.datasets.length];
    if (next !== undefined && next !== scan.dataset_id) { start(next).catch(fail); }
  };
  const fail = (error) => { if (!error.changed) { id("fault").textContent = error.message; id("fault").hidden = false; } };

  let running = null;
  let opened;
  const start = async (dataset) => {
    const scan = await hpcxrf.scan.fromServer(dataset);
    running?.abort();
    delete document.documentElement.dataset.ready;
    opened = scan.dataset_id;
    id("changed").hidden = true;
    running = new AbortController();
    const { signal } = running;
    document.title = `${scan.name} – hpcxrf`;
    id("name").textContent = scan.name;
    const datasets = id("dataset");
    datasets.replaceChildren(...scan.datasets.map((one) => make("option", { value: one, selected: one === scan.dataset_id }, one)));
    datasets.onchange = () => start(datasets.value).catch(fail);
    id("region").replaceChildren(make("option", { value: "" }, "–"), ...scan.regions.map((one) => make("option", { value: one.number }, `${one.number} ${one.name}`)));
    const container = make("div", { class: "viewer" });
    id("maps").replaceChildren(container);
    id("panels").replaceChildren();
    id("spectrum").replaceChildren();
    id("drawn").textContent = "";
    const app = makeApp(scan, scan.dataset_id);
    const viewer = hpcxrf.viewer.build(container, scan, { select: true });
    if (!app.canFit) {
      id("panels").replaceChildren(make("p", { class: "none" }, scan.no_spectra || "This scan was not fitted. Fit it with: hpcxrf run FILE -o out; then explore out."));
    } else {
      tabs(id("panels"), [
      ["Fit", (panel) => hpcxrf.fitPanel.build(panel, app)],
      ["Elements", (panel) => hpcxrf.elementsPanel.build(panel, app)],
      ["History", (panel) => hpcxrf.historyPanel.build(panel, app)],
      ["Out of it", (panel) => hpcxrf.writePanel.build(panel, app)]]);
    }
    listen(app, viewer, container, signal);
    await viewer.ready;
    if (signal.aborted) { return; }
    document.documentElement.dataset.ready = "maps";
    if (app.canFit) {
      await app.goOnFrom(`run-${app.detector}`);
      await Promise.all([app.refreshElements(), app.refreshHistory()]);
    } else if (scan.has_spectra) {
      await app.choose({ kind: "all" });
    }
    if (!signal.aborted) { document.documentElement.dataset.ready = "all"; }
  };

  // What was opened is not there any more as it was: what is there now is loaded where there is something.
  window.addEventListener("runchanged", ({ detail }) => {
    id("changed").firstElementChild.textContent = detail.error;
    id("reopen").hidden = detail.changed !== "written";
    id("changed").hidden = false;
  });
  id("reopen").addEventListener("click", async () => {
    id("reopen").disabled = true;
    try {
      id("fault").hidden = true;
      await start((await client.post("/api/reopen", { dataset: opened })).dataset);
    } catch (error) { fail(error); } finally { id("reopen").disabled = false; }
  });

  client.open().then(() => hpcxrf.runs.begin(start)).catch(fail);
})();
