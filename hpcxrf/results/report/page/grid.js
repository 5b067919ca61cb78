"use strict";
// The grid of small maps, one a component, in the order that is chosen.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, choice } = hpcxrf.dom;
  const { view, picture } = hpcxrf;
  const ORDERS = [["z", "Z"], ["name", "name"], ["counts", "counts"], ["share", "share above limit"]];

  const build = (core, actions = []) => {
    const { scan, state } = core;
    const list = make("div", { class: "thumbs", role: "group", "aria-label": "maps of all components" });
    list.style.setProperty("--aspect", String(picture.findAspect(scan.shape, scan.step_um)));
    const by = choice("Sort by", ORDERS, state.by, (value) => core.set({ by: value }));
    const thumbs = new Map(scan.components.map((component) => {
      const canvas = make("canvas");
      const value = make("output", {});
      const caption = make("span", { class: "thumb-name" }, component.label);
      const fact = make("span", { class: "thumb-fact" });
      const node = make("button", { type: "button", class: "thumb" },
        make("span", { class: "thumb-head" }, caption, fact), make("span", { class: "thumb-picture" }, canvas, value));
      node.addEventListener("click", () => core.choose(component.name));
      return [component.name, { component, node, canvas, value, fact }];
    }));

    const arrange = () => {
      const ordered = view.order(scan.components, state.by, state.detector).map((one) => thumbs.get(one.name).node);
      if (ordered.some((node, i) => list.children[i] !== node)) { list.append(...ordered); }
    };
    const describe = ({ component, node, fact }) => {
      const counts = component.counts[state.detector];
      const share = component.share[state.detector];
      const found = component.found[state.detector] !== false;
      const parts = { counts: Number.isFinite(counts) ? view.write(counts, 3) : "", share: Number.isFinite(share) ? `${Math.round(100 * share)} %` : "" };
      fact.textContent = !found ? "not found" : state.by === "share" ? parts.share : parts.counts;
      node.classList.toggle("low", !found);
      node.title = `${component.label}${component.z ? `, Z = ${component.z}` : ""}: ${parts.counts || "–"} counts in the integrated spectrum, ` +
        `${parts.share || "–"} of the pixels above the decision limit${found ? "" : "; not found"}`;
      node.setAttribute("aria-pressed", String(core.shown().includes(component.name)));
    };
    const draw = async () => {
      arrange();
      thumbs.forEach(describe);
      const turn = core.turn;
      const small = await core.thumbnails();
      if (turn !== core.turn) { return; }
      thumbs.forEach(({ node }, name) => { node.disabled = !small.has(name); });
      thumbs.forEach((thumb, name) => { if (!small.has(name)) { thumb.values = null; thumb.canvas.width = 0; } });
      small.forEach((one, name) => {
        const thumb = thumbs.get(name);
        if (!thumb) { return; }
        picture.putPixels(thumb.canvas, core.paint(one), one.shape);
        picture.cover(thumb.canvas, one.shape, one.factor, scan.shape);
        thumb.values = one;
      });
    };
    // The values of all in one pixel.
    const tell = (place) => thumbs.forEach(({ values, value }) => {
      value.textContent = place && values ? core.writeValue(values, core.valueAt(values, place)) : "";
    });
    const step = (by_) => {
      const names = view.order(scan.components, state.by, state.detector).map((one) => one.name).filter((name) => !thumbs.get(name).node.disabled);
      const at = names.indexOf(state.component);
      return names[(at + by_ + names.length) % names.length];
    };
    const bar = make("div", { class: "bar" }, by.node, make("span", { class: "push" }, ...actions));
    const reveal = (name) => thumbs.get(name)?.node.scrollIntoView({ block: "nearest" });
    return { node: make("div", { class: "grid-side" }, bar, list), draw, tell, step, reveal };
  };

  hpcxrf.grid = { build };
})();
