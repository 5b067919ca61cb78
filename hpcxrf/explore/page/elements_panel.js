"use strict";
// The periodic table: what the energy excites can be added by a click, what is listed can be taken out.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button } = hpcxrf.dom;
  const { short } = hpcxrf.fitPanel;

  const describe = (family) => {
    if (!family.excited) { return `not excited: its edge is at ${short(family.edge_kev, 4)} keV`; }
    const words = [`strongest line at ${short(family.strongest_kev, 4)} keV`];
    const proof = family.evidence;
    if (proof) { words.push(`z ${short(proof.z, 3)}`, `${short(proof.counts, 4)} ± ${short(proof.sigma, 2)} counts`, `detection limit ${short(proof.limit, 3)}`); }
    if (proof?.overlaps.length) { words.push(`overlaps with ${proof.overlaps.join(", ")}`); }
    return words.join(" · ");
  };

  const build = (container, app) => {
    const table = make("div", { class: "periodic", role: "group", "aria-label": "periodic table" });
    const about = make("div", { class: "families", "aria-live": "polite" }, make("p", { class: "small" }, "Choose an element: its families, and what the fit says of them."));
    container.append(table, about);
    let chosen = null;

    const tell = (element) => {
      chosen = element.symbol;
      about.replaceChildren(
        make("h4", {}, `${element.name} (${element.symbol}, Z = ${element.z})`),
        ...element.families.map((family) => make("p", {},
          button(family.listed ? `Remove ${family.name}` : `Add ${family.name}`, family.excited ? "and fit again" : describe(family),
            () => app.toggleElement(family.name), { disabled: !family.excited && !family.listed }),
          make("span", {}, ` ${describe(family)}`))));
    };
    const draw = (elements) => {
      table.replaceChildren(...elements.map((element) => {
        const listed = element.families.some((one) => one.listed);
        const excited = element.families.some((one) => one.excited);
        const best = Math.max(0, ...element.families.map((one) => one.evidence?.z ?? 0));
        const node = button(element.symbol, element.families.map((one) => `${one.name}: ${describe(one)}`).join("\n"), () => tell(element), {
          class: ["element", listed ? "listed" : "", excited ? "excited" : "dark", best >= 3 ? "seen" : ""].join(" "),
          "aria-pressed": String(listed), disabled: !excited && !listed, "aria-label": `${element.name}${listed ? ", in the list" : ""}`,
        });
        node.style.gridColumn = String(element.column);
        node.style.gridRow = String(element.row);
        return node;
      }));
      const again = elements.find((one) => one.symbol === chosen);
      if (again) { tell(again); }
    };
    app.on("elements", draw);
  };

  hpcxrf.elementsPanel = { build };
})();
