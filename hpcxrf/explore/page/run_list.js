"use strict";
// The table of runs: how each is, and what can be opened of it.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button } = hpcxrf.dom;
  const KINDS = { done: "good", running: "good", pending: "wait", new: "wait", stopped: "wait", cancelled: "wait", unknown: "wait" };

  const duration = (seconds) => {
    if (seconds === null || seconds === undefined) { return "–"; }
    if (seconds < 90) { return `${Math.round(seconds)} s`; }
    const minutes = Math.round(seconds / 60);
    return minutes < 120 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const two = (value) => String(value).padStart(2, "0");
  const when = (text) => {
    const at = new Date(text ?? NaN);
    return Number.isNaN(at.getTime()) ? "–" : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
  };
  const chip = (verdict, reason) => make("span", { class: `chip ${KINDS[verdict] ?? "bad"}`, title: reason }, verdict);
  // A sentence with what stands between backticks as code.
  const prose = (text) => text.split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
  // Parts of a whole, as a bar; its numbers stand beside it.
  const bar = (label, whole, parts) => {
    const node = make("span", { class: "parts", role: "img", "aria-label": label });
    parts.filter(([, number]) => number > 0).forEach(([kind, number]) => {
      const part = make("span", { class: kind });
      part.style.width = `${(100 * number) / Math.max(whole, 1)}%`;
      node.append(part);
    });
    return node;
  };
  const counted = (run) => {
    const words = [`${run.done} of ${run.known} done`, run.failed ? `${run.failed} failed` : "", run.not_tried ? `${run.not_tried} not tried` : "", run.running ? `${run.running} at work` : ""];
    return words.filter(Boolean).join(", ");
  };
  const countBar = (run) => bar(counted(run), run.known, [["done", run.done], ["failed", run.failed], ["untried", run.not_tried], ["at-work", run.running]]);
  const reportLink = (run) => make("a", { href: run.report, target: "_blank", rel: "noopener noreferrer", title: "in a page of its own, without access to the explorer" }, "Report");

  const canRetry = (run, app) => !app.readOnly && !run.going_on && run.failed > 0;

  const build = (container, app) => {
    const body = make("tbody", {});
    const none = make("p", { class: "small", hidden: true }, "No run is here yet: begin one below.");
    const more = make("p", { class: "small", hidden: true });
    const columns = [["Run"], ["State"], ["Datasets"], ["Failed", "n"], ["Workload"], ["Begun"], ["Wall time", "n"], ["Open"]];
    container.append(
      make("div", { class: "scroll" }, make("table", { class: "runs" },
        make("thead", {}, make("tr", {}, ...columns.map(([title, kind]) => make("th", { scope: "col", class: kind }, title)))), body)), none, more);

    const row = (run, chosen) => make("tr", { "aria-selected": String(run.key === chosen), class: run.key === chosen ? "chosen" : "" },
      make("td", { class: "name" }, button(run.name, "state, log and datasets of this run", () => app.choose(run.key), { class: "link" })),
      make("td", {}, chip(run.verdict, run.reason)),
      make("td", { class: "counts" }, countBar(run), make("span", { class: "numbers" }, `${run.done} / ${run.known}`)),
      make("td", { class: "n" }, run.failed + run.not_tried ? String(run.failed + run.not_tried) : "–"),
      make("td", {}, run.workload ?? "–"),
      make("td", { class: "when" }, when(run.begun)),
      make("td", { class: "n" }, duration(run.wall_s)),
      make("td", { class: "opens" },
        ...(run.workload === "scan" && run.done ? [button("Maps", `maps and spectra of ${run.name}`, () => app.open(run.key, ""), { class: "link" }), " "] : []),
        ...(run.report ? [reportLink(run), " "] : []),
        ...(canRetry(run, app) ? [button("Retry…", `try again what failed in ${run.name}; the command is shown first`, () => app.retry(run), { class: "link" })] : [])));

    const draw = (found, chosen) => {
      const focused = document.activeElement?.closest("table.runs") ? document.activeElement.textContent : null;
      body.replaceChildren(...found.runs.map((run) => row(run, chosen)));
      none.hidden = found.runs.length > 0;
      more.hidden = !found.left_out;
      more.textContent = `${found.left_out} more ${found.left_out === 1 ? "run is" : "runs are"} left out: links that lead out of the folder, or beyond the first thousand.`;
      if (focused !== null) { [...body.querySelectorAll("button.link")].find((one) => one.textContent === focused)?.focus(); }
    };
    return { draw };
  };

  hpcxrf.runList = { build, chip, prose, bar, counted, countBar, reportLink, canRetry, duration, when };
})();
