"use strict";
// Asks for the small files beside the page again and again: as scripts, since a page of file:// may load nothing else.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const EVERY_MS = 2000;
  const LATE_MS = 45000;
  const received = new Map();
  let shown = "";
  let pulse = "";
  let heard = Date.now();
  let asked = 0;

  const make = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => { if (value !== null && value !== "") { node.setAttribute(key, value); } });
    node.append(...children.map((child) => (child instanceof Node ? child : String(child ?? ""))));
    return node;
  };
  const byId = (name) => document.getElementById(name);
  const fixed = (value, digits) => (typeof value === "number" ? value.toFixed(digits) : "–");
  const duration = (value) => (typeof value === "number" ? (value < 90 ? `${value.toFixed(1)} s` : `${(value / 60).toFixed(1)} min`) : "–");
  const chip = (text, good) => make("span", { class: `chip ${good ? "good" : "bad"}` }, text);
  const cell = (...children) => make("td", {}, ...children);
  const number = (text) => make("td", { class: "n" }, text);
  const verdict = (text) => (text && text !== "not judged" ? chip(text, text === "good") : "–");
  const time = (text) => (text ? new Date(text).toLocaleTimeString([], { hour12: false }) : "–");

  const load = (name) => new Promise((resolve, reject) => {
    const script = document.createElement("script");
    asked += 1;
    script.src = `live/${name}.js?${asked}`;
    const end = (act) => { script.remove(); act(); };
    script.addEventListener("load", () => end(() => (received.has(name) ? resolve(received.get(name)) : reject(new Error(name)))));
    script.addEventListener("error", () => end(() => reject(new Error(name))));
    document.head.append(script);
  });

  const showScan = (scan) => {
    const picture = scan.thumbnail ? [make("img", { class: "small-map", src: scan.thumbnail, alt: "" })] : [];
    const name = scan.page ? make("a", { href: scan.page }, scan.name) : scan.name;
    const shape = scan.shape?.length === 4 ? scan.shape : null;
    const found = scan.state === "done" ? cell((scan.elements ?? []).join(" ")) : make("td", { class: "reason" }, scan.reason);
    return make("tr", { "data-dataset": scan.dataset_id },
      make("td", { class: "name" }, ...picture, name),
      cell(chip(scan.state, scan.state === "done")),
      cell(verdict(scan.verdict)),
      number(shape ? shape[0] : "–"),
      number(shape ? (shape[1] * shape[2]).toLocaleString("en") : "–"),
      number(fixed(scan.r2, 5)),
      number(duration(scan.seconds)),
      number(time(scan.time)),
      found);
  };
  const showGrowing = (scan) => {
    const view = scan.view;
    const rows = typeof scan.rows_done === "number" ? `${scan.rows_done} of ${scan.rows}` : "–";
    const seen = view && view.elements
      ? [verdict(view.verdict), ` R² ${fixed(view.r2, 5)} over ${view.rows} rows at ${view.time}: ${view.elements.join(" ")}`]
      : [view ? view.reason : "–"];
    return make("tr", {}, make("td", { class: "name" }, scan.name), number(rows), cell(scan.reason), cell(...seen));
  };
  const show = (data) => {
    const counts = data.counts;
    const card = (value, text, bad) => make("li", { class: bad ? "bad" : "" }, make("b", {}, value), ` ${text}`);
    byId("counts").replaceChildren(
      card(counts.done, "done"), card(counts.failed, "failed", counts.failed > 0), card(counts.at_work, "at work"),
      card(counts.growing, "growing"), ...(counts.before ? [card(counts.before, "done before")] : []));
    document.querySelector("#datasets tbody").replaceChildren(...data.scans.map(showScan));
    document.querySelector("#growing tbody").replaceChildren(...data.growing.map(showGrowing));
    byId("growing-section").hidden = data.growing.length === 0;
    byId("none").hidden = data.scans.length > 0;
    byId("remarks").replaceChildren(...data.remarks.map((one) => make("li", {}, `${one.time}  ${one.text}`)));
    byId("remarks-section").hidden = data.remarks.length === 0;
    document.title = `${counts.done} done – ${document.querySelector("h1").textContent} – hpcxrf live`;
    const words = data.state === "ended" ? `The watching of ${data.folder} has ended.` : `Watching ${data.folder}.`;
    const report = data.has_report ? [" ", make("a", { href: "report.html" }, "Report of all scans")] : [];
    byId("state").replaceChildren(`${words} Latest news: ${time(data.time)}.`, ...report);
  };
  const ask = async () => {
    let fault = "";
    try {
      const tick = await load("tick");
      if (tick.version !== shown) { show(await load("data")); shown = tick.version; document.documentElement.dataset.version = shown; }
      if (`${shown} ${tick.beat}` !== pulse || tick.state === "ended") { pulse = `${shown} ${tick.beat}`; heard = Date.now(); }
      fault = "The process that watches has said nothing for some time; the same command goes on where it stopped.";
    } catch {
      // The folder is out of reach, or being moved: the next time, perhaps.
      fault = "The files beside this page cannot be read.";
    }
    byId("fault").textContent = fault;
    byId("fault").hidden = Date.now() - heard < LATE_MS;
    setTimeout(ask, EVERY_MS);
  };
  hpcxrf.live = { receive: (name, value) => { received.set(name, value); } };
  ask();
})();
