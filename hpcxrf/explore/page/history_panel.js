"use strict";
// Every kept fit: looked at again, laid over another, compared in numbers, taken back.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button } = hpcxrf.dom;
  const { short } = hpcxrf.fitPanel;

  const compare = (one, other) => {
    const rows = one.parameters.map((row) => {
      const before = other.parameters.find((r) => r.name === row.name);
      return [row.name, before?.value ?? NaN, row.value, Math.hypot(row.sigma || 0, before?.sigma || 0)];
    }).filter(([, before, after]) => before !== after);
    const counts = one.amplitudes.map((row) => {
      const before = other.amplitudes.find((r) => r.name === row.name);
      return [row.label ?? row.name, before?.amplitude ?? NaN, row.amplitude, Math.hypot(row.sigma || 0, before?.sigma || 0)];
    });
    const line = ([name, before, after, sigma]) => make("tr", {}, make("td", { class: "name" }, name), ...[before, after, after - before, (after - before) / sigma]
      .map((value) => make("td", { class: "n" }, short(value, 5))));
    return make("table", {}, make("thead", {}, make("tr", {}, ...["", "Other", "This", "Difference", "in σ"].map((word) => make("th", {}, word)))),
      make("tbody", {}, ...rows.map(line), ...counts.map(line)));
  };

  const build = (container, app) => {
    const list = make("ol", { class: "history" });
    const difference = make("div", { class: "scroll" });
    container.append(make("p", { class: "small" }, "Kept fits, newest first; they stay when the explorer is stopped."), list, difference);
    const show = (fits) => {
      list.replaceChildren(...[...fits].reverse().map((fit) => make("li", { class: fit.taken_back ? "low" : "" },
        make("b", {}, `${fit.at.slice(0, 19).replace("T", " ")} `), `R² ${short(fit.r2, 6)} · deviance ${short(fit.deviance, 3)} · ${fit.verdict || fit.status}`,
        fit.parameters.some((row) => row.at_bound) ? make("span", { class: "flag" }, `at bound: ${fit.parameters.filter((row) => row.at_bound).map((row) => row.name).join(", ")}`) : "",
        fit.taken_back ? make("span", { class: "flag quiet" }, "taken back") : "",
        make("p", { class: "small" }, fit.changed.join("; ") || "first fit"),
        button("Go on from it", "theta, elements and focus of this fit", () => app.goOnFrom(fit.id)),
        button("Overlay", "its curve over the one that is shown", () => app.overlay(fit.id)),
        button("Difference", "what differs from the fit that is shown", async () => {
          const other = await app.fetchFit(fit.id);
          difference.replaceChildren(compare(app.fit, other));
        }))));
    };
    app.on("history", show);
  };

  hpcxrf.historyPanel = { build };
})();
