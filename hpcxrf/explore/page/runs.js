"use strict";
// The view of runs: their table, one of them, and a new one: form, plan, script, begun when it is confirmed.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { client, dom: { make, button } } = hpcxrf;
  const LIST_MS = 5000;
  const FOLLOW_MS = 2000;
  const PLAN_MS = 250;
  // A run that was begun or stopped takes a while to say so.
  const TOUCHED_MS = 60_000;
  const id = (name) => document.getElementById(name);

  const bytes = (n) => {
    const step = n >= 1e9 ? ["GB", 1e9] : n >= 1e6 ? ["MB", 1e6] : ["kB", 1e3];
    return `${(n / step[1]).toPrecision(3)} ${step[0]}`;
  };
  const planRows = (plan) => {
    const refused = Object.keys(plan.refused ?? {}).length;
    const hours = plan.hours === null || plan.hours === undefined ? "not known: no such fit was measured yet" : `about ${plan.hours.toPrecision(2)} ${plan.probe?.on_gpu ? "GPU-hours" : "core-hours"}`
      + `, by a measurement of ${plan.probe.date} on ${plan.probe.host}`;
    return [
      ["Datasets", `${plan.datasets ?? plan.items}${refused ? `, ${refused} cannot be opened` : ""}`],
      ["Tasks", Object.entries(plan.tasks).map(([stage, n]) => `${n} ${stage}`).join(", ")],
      ...(plan.pixels === undefined ? [] : [["Spectra", `${plan.pixels.toLocaleString("en")} of pixels, ${plan.spectra.toLocaleString("en")} integrated`],
        ["Read", bytes(plan.bytes_read)], ["Write", `at most ${bytes(plan.bytes_written)}, before compression`], ["Leave", `at most ${plan.inodes.toLocaleString("en")} files and folders`],
        ["Time", hours]]),
    ];
  };

  const makeSteps = (app, told, found) => {
    const name = make("input", { type: "text", size: 18, autocomplete: "off", spellcheck: "false", value: "run-1" });
    const where = make("select", {}, make("option", { value: "" }, "this machine"), ...told.sites.map((one) => make("option", { value: one }, `Slurm: ${one}`)));
    const number = (label, title) => make("input", { type: "number", min: 1, max: 100000, size: 6, "aria-label": label, title });
    const [workers, nodes] = [number("workers", "as many as the nodes hold"), number("nodes", "that of the profile")];
    const time = make("input", { type: "text", size: 8, placeholder: "4:00:00", "aria-label": "time limit" });
    const slurm = make("p", { class: "tools slurm", hidden: true }, make("label", { class: "field" }, make("span", {}, "Workers"), workers),
      make("label", { class: "field" }, make("span", {}, "Nodes"), nodes), make("label", { class: "field" }, make("span", {}, "Time limit"), time));
    const probe = hpcxrf.dom.check("Measure a fit", false, () => {}, "measures the time of a fit here, on the smallest scan");
    const answer = make("div", { class: "plan", "aria-live": "polite" });
    const plan = button("Plan", "datasets, tasks, bytes, files and hours; nothing is written", () => app.plan());
    const begin = button("Show the script…", "what would be run or submitted; nothing is begun before it is confirmed", () => app.begin(), { class: "main" });
    where.addEventListener("change", () => { slurm.hidden = !where.value; });
    const may = !found.read_only && !found.alone;
    const node = make("div", { class: "steps" }, make("h3", {}, "Plan and begin"),
      make("p", { class: "tools" }, make("label", { class: "field" }, make("span", {}, "Name"), name), make("label", { class: "field" }, make("span", {}, "Run on"), where)), slurm,
      make("p", { class: "tools" }, plan, probe.node, ...(may ? [begin] : [])),
      ...(may ? [] : [make("p", { class: "small" }, found.read_only ? "This explorer only reads (--read-only): save the run file, and `hpcxrf submit` it."
        : "One run was opened: open the folder that it lies in to begin another, or save the run file.")]), answer);
    const whole = (input) => (input.value === "" ? null : Number(input.value));
    return {
      node, answer, plan, begin, name,
      asked: () => ({ name: name.value.trim(), site: where.value, workers: where.value ? whole(workers) : null, nodes: where.value ? whole(nodes) : null, time: where.value ? time.value.trim() : "" }),
      probe: () => probe.input.checked,
    };
  };

  const freeName = (stem, taken) => {
    for (let n = 1; ; n += 1) { if (!taken.has(`${stem}-${n}`)) { return `${stem}-${n}`; } }
  };

  const buildView = (container, found, told, start) => {
    const fault = make("p", { class: "notes", role: "alert", hidden: true });
    const app = {
      readOnly: found.read_only, chosen: null, wanted: null, touched: 0,
      fault: (text) => { fault.textContent = text; fault.hidden = !text; },
      checked: () => {},
      open: (key, dataset) => start(key, dataset),
    };
    const list = make("section", { "aria-label": "list of runs" }, make("h2", {}, found.alone ? "Run" : "Runs in ", found.alone ? "" : make("span", { class: "path" }, found.folder)));
    const table = hpcxrf.runList.build(list, app);
    const one = make("section", { "aria-label": "chosen run", hidden: true });
    const follow = hpcxrf.runFollow.build(one, app);
    const fresh = make("section", { "aria-label": "new run" }, make("h2", {}, "New run ", button("Start anew", "a run file with the defaults", () => app.startFrom(""))));
    const columns = make("div", { class: "columns" });
    const steps = makeSteps(app, told, found);
    app.steps = steps.node;
    const refused = make("div", { "aria-live": "polite" });
    list.append(refused);
    container.append(fault, list, one, fresh);
    fresh.append(columns);
    const form = hpcxrf.runForm.build(columns, app, told);

    const guard = async (work) => {
      try { app.fault(""); return await work(); } catch (error) { app.fault(error.message); fault.scrollIntoView({ block: "nearest" }); return null; }
    };
    let latest = found;
    const drawList = (now) => {
      latest = now;
      table.draw(now, app.chosen);
      refused.replaceChildren(...now.refused.map((run) => make("div", { class: "notes" }, `${run.name} did not begin (exit code ${run.code}):`, make("pre", { tabindex: 0 }, run.log))));
      const begun = now.runs.find((run) => run.name === app.wanted);
      if (begun) {
        app.wanted = null;
        app.choose(begun.key).then(() => one.scrollIntoView({ block: "start" }));
      }
    };
    app.refresh = () => guard(async () => {
      drawList(await client.get("/api/runs"));
      if (app.chosen) { follow.draw(await client.get("/api/runs/one", { run: app.chosen })); }
    });
    app.choose = (key) => guard(async () => {
      app.chosen = key;
      table.draw(latest, key);
      const run = await client.get("/api/runs/one", { run: key });
      one.hidden = false;
      follow.draw(run);
    });
    app.startFrom = (key) => guard(async () => {
      await form.load(key);
      steps.answer.replaceChildren();
      const stem = (key.split("/").pop() ?? "").replace(/-\d+$/, "").replace(/[^A-Za-z0-9_-]+|^-+|-+$/g, "") || "run";
      steps.name.value = freeName(stem, new Set(latest.runs.map((run) => run.name)));
      if (key) { fresh.scrollIntoView({ block: "start" }); }
    });
    app.plan = () => guard(async () => {
      const { text } = await form.settle();
      steps.plan.disabled = true;
      try {
        const { name, site } = steps.asked();
        const asked = await client.post("/api/runs/plan", { text, name, site, probe: steps.probe() });
        for (;;) {
          const state = await client.get("/api/runs/plan", asked);
          if (state.state === "given up") { return; }
          if (state.state === "done") { drawPlan(state); steps.answer.scrollIntoView({ block: "nearest" }); return; }
          steps.answer.replaceChildren(make("p", { class: "small" }, `opening files, ${state.elapsed_s.toFixed(0)} s`));
          await new Promise((resolve) => { setTimeout(resolve, PLAN_MS); });
        }
      } finally { steps.plan.disabled = false; }
    });
    const drawPlan = ({ plan, faults }) => {
      const refused = Object.entries(plan?.refused ?? {}).slice(0, 20);
      const notes = [...(plan?.notes ?? [])];
      steps.answer.replaceChildren(
        ...(plan ? [make("dl", { class: "facts" }, ...planRows(plan).flatMap(([word, value]) => [make("dt", {}, word), make("dd", {}, value)]))] : []),
        ...notes.map((note) => make("p", { class: (plan.warnings ?? []).includes(note) ? "notes" : "small" }, note)),
        ...refused.map(([file, reason]) => make("p", { class: "fault" }, reason.startsWith(file) ? reason : `${file}: ${reason}`)),
        ...faults.map((one) => make("p", { class: "fault" }, ...hpcxrf.runForm.describeFault(one, form.reveal))),
        ...(faults.length ? [] : [make("p", { class: "small good-word" }, "Nothing speaks against it.")]));
    };
    app.begin = () => guard(async () => {
      const { text, faults } = await form.settle();
      if (faults.length) { throw new Error(`The run file has ${faults.length} ${faults.length === 1 ? "fault" : "faults"}: correct the marked options first.`); }
      const asked = { ...steps.asked(), text };
      const done = await hpcxrf.runFollow.begin(asked);
      if (!done) { return; }
      app.touched = Date.now();
      app.wanted = asked.name;
      drawList(await client.get("/api/runs"));
    });

    // Asked again only while it is looked at and something goes on: a page left open does not keep the server awake.
    let [listed, followed] = [Date.now(), Date.now()];
    setInterval(() => {
      if (container.hidden || document.visibilityState !== "visible") { return; }
      const goes = latest.runs.some((run) => run.going_on) || Date.now() - app.touched < TOUCHED_MS;
      if (goes && Date.now() - listed > LIST_MS) {
        listed = Date.now();
        client.get("/api/runs").then(drawList).catch((error) => app.fault(error.message));
      }
      const shown = follow.shown();
      if (app.chosen && (shown?.going_on || goes) && Date.now() - followed > FOLLOW_MS) {
        followed = Date.now();
        const key = app.chosen;
        client.get("/api/runs/one", { run: key }).then((run) => { if (key === app.chosen) { follow.draw(run); } }).catch((error) => app.fault(error.message));
      }
    }, 500);
    drawList(found);
    const first = found.runs.find((run) => run.going_on) ?? (found.alone ? found.runs[0] : null);
    return Promise.all([first ? app.choose(first.key) : null, app.startFrom("")]).then(() => ({ refresh: app.refresh }));
  };

  // `start` opens a scan in the view of maps.
  const begin = async (start) => {
    const container = make("div", { id: "runs", hidden: true });
    id("maps").parentElement.after(container);
    const names = { maps: "", runs: "" };
    let built = null;
    const views = [button("Maps", "maps and spectra", () => show("maps"), { "data-view": "maps" }), button("Runs", "runs of the folder", () => show("runs"), { "data-view": "runs" })];
    const show = async (view) => {
      document.body.dataset.view = view;
      views.forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.view === view)));
      [document.querySelector("main").hidden, container.hidden] = [view !== "maps", view !== "runs"];
      if (view === "runs" && !built) {
        const [found, told] = await Promise.all([client.get("/api/runs"), client.get("/api/runs/form")]);
        names.runs = found.folder.split("/").pop();
        built = buildView(container, found, told, open);
        await built;
        document.documentElement.dataset.runs = "ready";
      } else if (view === "runs") { (await built).refresh(); }
    };
    const open = async (key, dataset) => {
      views[0].disabled = false;
      await show("maps");
      id("fault").hidden = true;
      await start(`${key}/${dataset}`).catch((error) => { [id("fault").textContent, id("fault").hidden] = [error.message, Boolean(error.changed)]; });
    };
    // Keys of the view of maps do nothing while it is not seen.
    window.addEventListener("keydown", (event) => { if (document.body.dataset.view === "runs") { event.stopImmediatePropagation(); } }, true);
    const first = document.body.dataset.begin;
    if (first !== "results") { document.querySelector(".brand").after(make("nav", { class: "switch views", "aria-label": "views" }, ...views)); }
    views[0].disabled = first === "runs";
    if (first === "runs") { await show("runs"); return; }
    if (first !== "results") { await show("maps"); }
    await start(undefined);
  };

  hpcxrf.runs = { begin };
})();
