"use strict";
// One run: how far it is, the end of its log, its datasets; and the question that stands before whatever is begun or ended.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { client, dom: { make, button } } = hpcxrf;
  const { chip, prose, bar, counted, countBar, reportLink, canRetry, duration, when } = hpcxrf.runList;

  // Asks before anything happens: what is shown is what is done, and only the second button does it.
  const confirm = (title, parts, word, act) => new Promise((resolve) => {
    const fault = make("p", { class: "fault", role: "alert" });
    const yes = button(word, "", async () => {
      [yes.disabled, fault.textContent] = [true, ""];
      try { const done = await act(); dialog.close(); resolve(done); } catch (error) { fault.textContent = error.message; yes.disabled = false; }
    }, { class: "main" });
    const no = button("Not now", "nothing is done", () => dialog.close());
    const dialog = make("dialog", { class: "confirm", "aria-label": title }, make("h2", {}, title), ...parts, fault, make("p", { class: "tools" }, yes, no));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(null); });
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });

  // Shows the script; confirmed, exactly this script is begun: the server compares its code.
  const begin = async (asked) => {
    const told = await client.post("/api/runs/prepare", asked);
    const here = !told.command.startsWith("sbatch ");
    const title = asked.retry ? "Try again what failed?" : here ? "Run on this machine?" : "Submit to Slurm?";
    return confirm(title, [
      make("dl", { class: "facts" },
        make("dt", {}, "Run directory"), make("dd", { class: "path" }, told.folder),
        ...(told.run_file ? [make("dt", {}, "Run file"), make("dd", { class: "path" }, told.run_file)] : []),
        ...(here ? [] : [make("dt", {}, "Command"), make("dd", { class: "path" }, told.command)])),
      ...told.notes.map((note) => make("p", { class: "notes" }, ...prose(note))),
      make("p", { class: "small" }, here ? "This command is run; it goes on when the explorer is stopped:" : "This script is submitted:"),
      make("pre", { class: "script", tabindex: 0, "aria-label": "script" }, told.script),
    ], here ? "Run it" : "Submit it", () => client.post("/api/runs/begin", { ...asked, code: told.code }));
  };

  const build = (container, app) => {
    const title = make("h2", {});
    const state = make("p", { class: "state" });
    const tools = make("p", { class: "tools" });
    const stages = make("div", { class: "stages" });
    const reasons = make("ul", { class: "reasons" });
    const logName = make("h3", {});
    const log = make("pre", { class: "log", tabindex: 0, "aria-label": "end of the log" });
    const datasets = make("tbody", {});
    const more = make("p", { class: "small" });
    const filter = make("input", { type: "search", size: 24 });
    const set = make("div", { class: "halves" },
      make("div", {}, title, state, tools, stages, reasons, logName, log),
      make("div", {}, make("h3", {}, "Datasets"),
        make("p", { class: "tools filters" }, make("label", { class: "field" }, make("span", {}, "Show those with"), filter)),
        make("div", { class: "scroll tall" }, make("table", {}, make("thead", {}, make("tr", {}, ...["Dataset", "State", "Reason"].map((one) => make("th", { scope: "col" }, one)))), datasets)), more));
    container.append(set);
    let shown = null;

    const guard = async (work) => {
      try { app.fault(""); return await work(); } catch (error) { app.fault(error.message); return null; }
    };
    const goOn = (run, more = {}) => guard(async () => { if (await begin({ run: run.key, ...more })) { app.touched = Date.now(); app.refresh(); } });
    app.retry = (run) => goOn(run, { retry: true });
    const end = (run) => guard(async () => {
      const what = run.job_id ? `job ${run.job_id}` : "the process of this run";
      const done = await confirm(`Stop ${run.name}?`, [make("p", {}, `This ends ${what}. What is finished is kept, and “Go on” does what is missing.`)],
        "Stop it", () => client.post("/api/runs/stop", { run: run.key }));
      if (done) { app.touched = Date.now(); app.refresh(); }
    });
    const drawTools = (run) => {
      const complete = run.verdict === "done";
      tools.replaceChildren(
        ...(run.workload === "scan" && run.done ? [button("Maps", "maps and spectra of its datasets", () => app.open(run.key, ""))] : []),
        ...(run.report ? [reportLink(run)] : []),
        button("New run like this", "its run file in the form", () => app.startFrom(run.key)),
        ...(app.readOnly || complete || run.going_on || run.verdict === "unreadable" ? [] : [button("Go on…", "do what is missing; the script is shown first", () => goOn(run))]),
        ...(canRetry(run, app) ? [button("Retry failed…", "try again what failed, and do what is missing; the command is shown first", () => app.retry(run))] : []),
        ...(app.readOnly || !run.going_on ? [] : [button("Stop…", "end its job or process; you are asked first", () => end(run))]));
      tools.querySelector("a")?.classList.add("as-button");
    };
    const drawStages = ({ progress }) => {
      stages.hidden = !progress;
      if (!progress) { return; }
      const left = progress.eta_s === null ? "not known" : duration(progress.eta_s);
      stages.replaceChildren(
        make("p", { class: "small" }, `${progress.state} on ${progress.host} since ${duration(progress.uptime_s)}, ${progress.workers} of ${progress.workers_wanted} workers, `
          + `${progress.tasks_per_s.toFixed(2)} tasks/s, time left ${left}`),
        ...Object.entries(progress.stages).map(([name, one]) => make("p", { class: "work-row" }, make("span", {}, name),
          bar(`${name}: ${one.done} of ${one.total}`, one.total, [["done", one.done], ["failed", one.failed], ["untried", one.not_tried]]), make("span", { class: "n" }, `${one.done} / ${one.total}`))),
        ...progress.alarms.map((alarm) => make("p", { class: "notes" }, alarm)));
    };
    const drawDatasets = () => {
      const wanted = filter.value.trim().toLowerCase();
      const rows = shown.datasets.filter((one) => [one.dataset_id, one.name, one.state, one.reason].some((text) => text.toLowerCase().includes(wanted)));
      datasets.replaceChildren(...rows.map((one) => make("tr", {},
        make("td", { class: "name" }, one.state === "done" && shown.workload === "scan"
          ? button(one.name, `maps of ${one.dataset_id}`, () => app.open(shown.key, one.dataset_id), { class: "link" }) : one.name),
        make("td", {}, make("span", { class: `chip ${one.state === "done" ? "good" : one.state === "failed" ? "bad" : "wait"}` }, one.state)), make("td", { class: "reason" }, one.reason))));
      more.textContent = shown.more_datasets ? "500 are shown, those that failed first; the report has all." : rows.length ? "" : shown.datasets.length ? "None of them." : "None has ended yet.";
    };
    filter.addEventListener("input", () => { if (shown) { drawDatasets(); } });

    const draw = (run) => {
      const another = shown?.key !== run.key;
      const before = JSON.stringify(shown?.datasets);
      shown = run;
      title.textContent = run.name;
      state.replaceChildren(chip(run.verdict, ""), " ", ...prose(run.reason), make("br", {}), countBar(run), make("span", { class: "small" },
        ` ${counted(run)} · begun ${when(run.begun)} · ${duration(run.wall_s)}`), ...run.notes.map((note) => make("span", { class: "notes block" }, note)));
      const tooled = `${run.verdict}, ${canRetry(run, app) ? "some failed" : "none failed"}`;
      if (another || tools.dataset.drawn !== tooled) { drawTools(run); tools.dataset.drawn = tooled; }
      drawStages(run);
      reasons.replaceChildren(...run.reasons.map((one) => make("li", {}, `${one.number} × ${one.text}`)));
      logName.textContent = run.log_name ? `Log: ${run.log_name}` : "Log";
      const atEnd = another || log.scrollTop + log.clientHeight >= log.scrollHeight - 30;
      if (log.textContent !== run.log) { log.textContent = run.log; }
      log.classList.toggle("none", !run.log_name);
      if (atEnd) { log.scrollTop = log.scrollHeight; }
      if (another || before !== JSON.stringify(run.datasets)) { drawDatasets(); }
    };
    return { draw, shown: () => shown };
  };

  hpcxrf.runFollow = { build, begin, confirm };
})();
