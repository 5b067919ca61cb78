"use strict";
// What the map says in words: title, the pixel under the pointer, the pixels selected.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make } = hpcxrf.dom;
  const { view } = hpcxrf;
  const EIGHT_BIT = "8-bit values: 255 levels from the 1st to the 99th percentile of the map; ≤ and ≥ mark their ends.";

  const writePlace = (scan, { y, x }) => {
    const position = scan.step_um ? `x ${view.write(x * scan.step_um[1])} µm, y ${view.write(y * scan.step_um[0])} µm · ` : "";
    return `${position}column ${x}, row ${y}`;
  };

  const buildReadout = (core) => {
    const { scan, state } = core;
    const title = make("b", { class: "readout-title" });
    const subtitle = make("span", { class: "small" });
    const value = make("output", { class: "readout-value", "aria-live": "off" });
    const selected = make("p", { class: "readout-selected", role: "status" });
    const facts = make("p", { class: "small" });
    const node = make("div", { class: "readout" }, make("p", {}, title, " ", subtitle), make("p", {}, value), selected, facts);
    let sigmas = [];
    let decision = null;
    let mask = null;
    let place = null;
    let loaded = "";

    // Uncertainties and decisions come after the map: a page may have to read them from another file.
    const load = async (current) => {
      const key = JSON.stringify([core.detector(current.layer), current.layer.name, current.names ?? state.component, current.kind]);
      if (key === loaded) { return; }
      loaded = key;
      [sigmas, decision] = [[], null];
      const names = current.names ?? [current.layer.each ? state.component : null];
      const sigma = core.sigmaLayer(current.layer.name);
      const found = current.layer.name === "amplitude" && core.layer("decision") && current.kind === "map";
      const read = (layer, component) => core.map(layer, component).catch((error) => { facts.textContent = error.message; return null; });
      const maps = await Promise.all([
        ...(sigma ? names.map((name) => read(sigma.name, sigma.each ? name : null)) : []), ...(found ? [read("decision", state.component)] : [])]);
      if (key !== loaded) { return; }
      decision = found ? maps.pop() : null;
      sigmas = maps;
      if (place) { tell(place); }
    };
    const writeFacts = (current) => {
      const parts = [];
      if (current.factor > 1) { parts.push(`One point is the mean of ${current.factor} × ${current.factor} pixels.`); }
      if (scan.coarse && !current.codes) { parts.push(EIGHT_BIT); }
      if (current.kind === "ratio") { parts.push(`Grey where ${core.label(state.ratio[1])} is not found.`); }
      if (state.layer === "decision") { parts.push("Pixels below the decision limit are grey."); }
      if (!scan.step_um) { parts.push("No positions in the file: lengths are in pixels."); }
      facts.textContent = parts.join(" ");
    };
    const draw = (current) => {
      title.textContent = current.title;
      const detector = core.detector(current.layer);
      const isPlain = current.layer.label === current.title || current.layer.name === "amplitude";
      const about = [isPlain ? "" : current.layer.label, detector === state.detector ? "" : hpcxrf.tools.nameDetector(detector)];
      subtitle.textContent = about.filter(Boolean).join(", ");
      writeFacts(current);
      load(current);
    };
    const valueOf = (map, sigma, at) => core.writeValue(map, core.valueAt(map, at), sigma ? core.valueAt(sigma, at) : NaN);
    const tell = (at) => {
      place = at;
      const { current } = core;
      if (!current) { return; }
      if (!at) { value.textContent = "point at the map to read it"; return; }
      const unit = current.unit ? ` ${current.unit}` : "";
      let words;
      if (current.codes) {
        const code = core.valueAt(current.maps[0], at);
        words = Number.isNaN(code) ? "not known" : core.describeCode(current.layer, code);
      } else if (current.kind === "map") {
        const text = valueOf(current.maps[0], sigmas[0], at);
        const found = decision && !Number.isNaN(core.valueAt(decision, at)) ? (core.valueAt(decision, at) > 0 ? "" : ", not found") : "";
        words = text === "not fitted" ? text : `${text}${unit}${scan.coarse ? " (8 bit)" : ""}${found}`;
      } else {
        const isClipped = current.kind === "ratio" && current.maps.some((map) => /^[≤≥]/.test(core.writeValue(map, core.valueAt(map, at))));
        const each = current.maps.map((map, i) => `${core.label(current.names[i])} ${valueOf(map, sigmas[i], at)}`);
        const share = current.kind === "ratio" ? core.valueAt({ ...current, values: current.values }, at) : NaN;
        const error = current.kind === "ratio" && sigmas[0] && sigmas[1]
          ? view.ratioSigma(...current.maps.flatMap((map, i) => [core.valueAt(map, at), core.valueAt(sigmas[i], at)])) : NaN;
        const ratio = `${Number.isNaN(share) ? "no ratio" : view.writeWithSigma(share, error)}${isClipped ? " (of a clipped value)" : ""}`;
        words = [...(current.kind === "ratio" ? [ratio] : []), ...each].join(" · ") + unit;
      }
      value.textContent = `${words} · ${writePlace(scan, at)}`;
    };
    const tellSelected = () => {
      const { current } = core;
      if (!mask || !current) { selected.textContent = ""; return; }
      const number = view.count(mask) * current.factor ** 2;
      const named = current.codes ? [] : current.maps.map((map, i) => {
        const found = view.total(map.values, mask);
        return `${core.label(current.names?.[i] ?? state.component)} mean ${view.write(found.mean)}${current.unit ? ` ${current.unit}` : ""}`;
      });
      const pixels = `${current.factor > 1 ? "about " : ""}${view.write(number, 9)} ${number === 1 ? "pixel" : "pixels"}`;
      selected.textContent = [`Selected: ${pixels}`, ...named].join(" · ");
    };
    return { node, draw: (current) => { draw(current); tellSelected(); }, tell, select: (chosen) => { mask = chosen; tellSelected(); } };
  };

  hpcxrf.tools = { ...hpcxrf.tools, buildReadout, writePlace };
})();
