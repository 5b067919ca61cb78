"use strict";
// Theta by eye: a value, a slider and its bounds for each parameter; amplitudes follow while it is dragged, the fit on release.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button } = hpcxrf.dom;
  const STEPS = 400;

  const digits = (value, sigma) => {
    if (!Number.isFinite(value)) { return "–"; }
    const wanted = sigma > 0 ? Math.max(0, 1 - Math.floor(Math.log10(sigma))) : 5;
    return value.toFixed(Math.min(8, wanted)).replace("-", "−");
  };
  const short = (value, n = 3) => (Number.isFinite(value) ? String(Number(value.toPrecision(n))).replace("-", "−") : "–");

  // Where a slider may go: between bounds that are near, else some sigma around the value.
  const reach = (row) => {
    const far = Math.max(8 * (row.sigma || 0), 0.02 * Math.abs(row.value), 1e-4);
    return [Math.max(row.lower ?? -Infinity, row.value - far), Math.min(row.upper ?? Infinity, row.value + far)];
  };

  const makeRow = (app, row) => {
    const asked = app.theta.get(row.name) ?? {};
    const mode = asked.mode ?? (row.free ? "fit" : "fix");
    const value = asked.value ?? row.value;
    const input = make("input", { type: "number", step: "any", "aria-label": `value of ${row.name}` });
    input.value = String(Number(value.toPrecision(8)));
    const [low, high] = reach({ ...row, value });
    const slider = make("input", { type: "range", min: 0, max: STEPS, step: 1, "aria-label": `slider of ${row.name}` });
    slider.value = String(Math.round(((value - low) / (high - low)) * STEPS));
    const free = make("input", { type: "checkbox", "aria-label": `fit ${row.name}` });
    free.checked = mode === "fit";
    const bounds = ["lower", "upper"].map((side) => {
      const node = make("input", { type: "number", step: "any", class: "bound", "aria-label": `${side} bound of ${row.name}` });
      const bound = asked[side] ?? row[side];
      node.value = Number.isFinite(bound) ? String(Number(bound.toPrecision(6))) : "";
      return node;
    });
    [input, slider, free, ...bounds].forEach((node) => { node.disabled = app.isSum(); });
    const ask = (changes) => app.ask(row.name, { mode: free.checked ? "fit" : "fix", value: input.valueAsNumber, ...changes });

    slider.addEventListener("input", () => {
      input.value = String(low + (slider.valueAsNumber / STEPS) * (high - low));
      ask({});
      app.refit("amplitudes");
    });
    slider.addEventListener("change", () => app.refit("full"));
    input.addEventListener("change", () => { if (Number.isFinite(input.valueAsNumber)) { ask({}); app.refit("full"); } });
    free.addEventListener("change", () => { ask({}); app.refit("full"); });
    bounds.forEach((node, i) => node.addEventListener("change", () => {
      ask({ [["lower", "upper"][i]]: Number.isFinite(node.valueAsNumber) ? node.valueAsNumber : null });
      app.refit("full");
    }));
    return make("tr", { class: row.at_bound ? "stuck" : mode === "fix" && !app.touched.has(row.name) ? "fixed" : "" },
      make("td", { class: "name" }, row.name, row.unit && row.unit !== "1" ? make("span", { class: "small" }, ` ${row.unit}`) : "",
        row.at_bound ? make("span", { class: "flag" }, "at bound") : ""),
      make("td", {}, free), make("td", { class: "n" }, input), make("td", {}, slider),
      make("td", { class: "n" }, digits(row.sigma, row.sigma)), make("td", { class: "n" }, bounds[0]), make("td", { class: "n" }, bounds[1]));
  };

  const makeAmplitude = (app, row) => {
    const focus = make("input", { type: "checkbox", "aria-label": `focus on ${row.label ?? row.name}` });
    focus.checked = app.focus.has(row.name);
    focus.disabled = app.isSum();
    focus.addEventListener("change", () => app.setFocus(row.name, focus.checked));
    const remove = app.elements.includes(row.name)
      ? button("×", `take ${row.label ?? row.name} out of the list and fit again`, () => app.toggleElement(row.name), { class: "quiet", "aria-label": `remove ${row.label ?? row.name}` }) : "";
    return make("tr", { class: row.found ? "" : "low" },
      make("td", {}, focus), make("td", { class: "name" }, row.label ?? row.name),
      make("td", { class: "n", "data-value": row.amplitude }, short(row.amplitude, 5)), make("td", { class: "n", "data-value": row.sigma }, short(row.sigma, 2)),
      make("td", { class: "n", "data-value": row.limit }, short(row.limit, 3)),
      make("td", {}, row.found ? "" : make("span", { class: "flag quiet" }, "not found")), make("td", {}, remove));
  };

  const head = (...names) => make("thead", {}, make("tr", {}, ...names.map((name) => make("th", {}, name))));
  const build = (container, app) => {
    const figures = make("ul", { class: "tiles" });
    const parameters = make("div", { class: "scroll" });
    const amplitudes = make("div", { class: "scroll" });
    const suggested = make("p", { class: "suggested" });
    const sum = make("p", { class: "small", hidden: true }, "Of the sum each detector keeps its own theta: choose a detector above the maps to move it by hand.");
    let withHeld = false;
    const held = hpcxrf.dom.check("parameters that are held, too", withHeld, (on) => { withHeld = on; parameters.classList.toggle("free-only", !on); });
    parameters.classList.add("free-only");
    const tools = make("p", { class: "tools" },
      button("Fit", "fit theta and amplitudes of the spectrum that is shown (r)", () => app.refit("full"), { class: "main" }),
      button("Keep", "keep this fit in the history", () => app.refit("full", { keep: true })),
      button("Take back", "back to the fit before (z)", () => app.takeBack()),
      button("As the run fitted", "theta, elements and focus of the run", () => app.reset()));
    container.append(tools, figures, suggested, make("h4", { class: "with-tools" }, "Parameters", held.node), sum, parameters, make("h4", {}, "Amplitudes"), amplitudes);

    const show = (fit, quick) => {
      const tile = (value, word, bad = false) => make("li", { class: bad ? "bad" : "" }, make("b", {}, value), ` ${word}`);
      figures.replaceChildren(
        tile(fit.verdict || fit.status, fit.verdict ? "verdict" : "fit", fit.verdict !== "" && fit.verdict !== "good"),
        tile(short(fit.r2, 6), `R² (noise alone: ${short(fit.r2_expected, 6)})`),
        tile(short(fit.reduced_chi2, 3), "reduced χ²"), tile(short(fit.deviance, 3), "deviance per degree of freedom"),
        tile(`${short(fit.cpu_s * 1000, 2)} ms`, "processor time"), tile(String(fit.n_pixels), fit.n_pixels === 1 ? "pixel" : "pixels"));
      suggested.replaceChildren(...(fit.suggested.length ? ["In the residual, not in the list: ",
        ...fit.suggested.map((one) => button(`${one.name} (z ${short(one.z, 3)})`, `add ${one.name} and fit again`, () => app.toggleElement(one.name)))] : []));
      sum.hidden = !app.isSum();
      // While a slider is held it must not be replaced under the hand.
      if (!quick) {
        parameters.replaceChildren(make("table", { class: "parameters" },
          head("Parameter", "Fit", "Value", "", "σ", "Lower", "Upper"), make("tbody", {}, ...fit.parameters.map((row) => makeRow(app, row)))));
      }
      amplitudes.replaceChildren(make("table", { class: "amplitudes" },
        head("Focus", "Component", "Counts", "σ", "Detection limit", "", ""), make("tbody", {}, ...fit.amplitudes.map((row) => makeAmplitude(app, row)))));
    };
    app.on("fit", ({ fit, kind }) => show(fit, kind === "amplitudes" && container.contains(document.activeElement)));
  };

  hpcxrf.fitPanel = { build, short };
})();
