"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  const value = (row, column) => {
    const cell = row.cells[column];
    const number = Number.parseFloat(cell.dataset.value ?? cell.textContent);
    return Number.isNaN(number) ? cell.textContent.trim().toLowerCase() : number;
  };
  const compare = (a, b) => {
    if (typeof a === typeof b) { return typeof a === "number" ? a - b : a.localeCompare(b); }
    return typeof a === "number" ? -1 : 1;
  };
  const sort = (table, head, column) => {
    const sign = head.ariaSort === "descending" ? 1 : -1;
    all("th", table).forEach((other) => { other.ariaSort = null; });
    head.ariaSort = sign < 0 ? "descending" : "ascending";
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort((a, b) => sign * compare(value(a, column), value(b, column))));
  };
  all("table.sortable").forEach((table) => {
    const twoRows = table.tHead.rows.length > 1;
    all("th", table).filter((head) => head.colSpan === 1 && head.textContent).forEach((head) => {
      const column = twoRows && head.parentNode.rowIndex === 1 ? head.cellIndex + 1 : head.cellIndex;
      const button = document.createElement("button");
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head, column));
      head.append(button);
    });
  });

  // Rows whose text has all the words, and whose data are those chosen.
  all(".filters").forEach((box) => {
    const table = document.getElementById(box.dataset.table);
    const fields = all("[data-filter]", box);
    const rows = [...table.tBodies[0].rows];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    const output = box.querySelector("output");
    const filter = () => {
      const wanted = Object.fromEntries(fields.map((field) => [field.dataset.filter, field.value.trim()]));
      const words = wanted.text.toLowerCase().split(/\s+/).filter(Boolean);
      const shown = rows.filter((row) => {
        const isChosen = ["status", "verdict"].every((name) => !wanted[name] || row.dataset[name] === wanted[name]);
        const fits = isChosen && words.every((word) => texts.get(row).includes(word));
        row.hidden = !fits;
        return fits;
      });
      output.textContent = shown.length === rows.length ? `${rows.length} datasets` : `${shown.length} of ${rows.length} datasets`;
    };
    fields.forEach((field) => field.addEventListener("input", filter));
    filter();
  });

  const show = (scale) => {
    root.dataset.scale = scale;
    all("[data-scale][aria-pressed]").forEach((b) => { b.ariaPressed = String(b.dataset.scale === scale); });
    root.dispatchEvent(new Event("scalechange"));
  };
  all(".tools").forEach((tools) => { tools.hidden = false; });
  all("button[data-scale]").forEach((b) => b.addEventListener("click", () => show(b.dataset.scale)));
  show("log");

  const setOpen = (open) => all("details.dataset").forEach((d) => { d.open = open; });
  all("button[data-do]").forEach((b) => b.addEventListener("click", () => setOpen(b.dataset.do === "open")));
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", reveal);
  all('a[href^="#"]').forEach((a) => a.addEventListener("click", () => setTimeout(reveal)));

  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details").filter((d) => !d.open);
    closed.forEach((d) => { d.open = true; });
  });
  window.addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));

  window.addEventListener("load", () => {
    reveal();
    root.dataset.images = `${all("img").filter((i) => i.naturalWidth > 0).length}/${all("img").length}`;
  });
})();
