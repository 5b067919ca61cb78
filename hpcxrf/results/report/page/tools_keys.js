"use strict";
// Keys of the viewer, and their list.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button, isTyping } = hpcxrf.dom;
  const LIST = [
    ["← →", "previous and next component"], ["[  ]", "less and more contrast"], ["l", "logarithmic or linear colours"],
    ["Escape", "clear the selection"], ["Shift + arrows", "move over the large map, when it has the focus"], ["Enter", "keep the pixel"], ["?", "this list"]];
  let latest = null;

  const buildKeys = (core) => {
    const rows = [...LIST, ...(core.options.keys ?? [])].map(([key, text]) => make("tr", {}, make("td", {}, make("kbd", {}, key)), make("td", {}, text)));
    const dialog = make("dialog", { class: "keys", "aria-label": "keys" }, make("h3", {}, "Keys"), make("table", {}, make("tbody", {}, ...rows)));
    dialog.append(button("Close", "", () => dialog.close()));
    core.showKeys = () => { if (!dialog.isConnected) { core.container.append(dialog); } dialog.showModal(); };
    const acts = {
      ArrowLeft: () => core.step(-1),
      ArrowRight: () => core.step(1),
      "[": () => core.contrast(-1),
      "]": () => core.contrast(1),
      l: () => core.set({ log: !core.state.log }),
      Escape: () => (core.state.selection ? core.selectPixels(null) : null),
      "?": () => core.showKeys(),
    };
    const onKey = (event) => {
      const act = acts[event.key];
      const elsewhere = event.target instanceof Element && event.target.closest(".spectrum svg") !== null;
      if (!act || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || dialog.open || elsewhere) { return; }
      // The viewer with the focus, else the one last used, if it can be seen.
      const inside = event.target instanceof Element ? event.target.closest(".viewer") : null;
      if ((inside ?? latest) !== core.container || core.container.offsetParent === null) { return; }
      event.preventDefault();
      act();
    };
    const use = () => { latest = core.container; };
    return {
      attach: () => {
        latest ??= core.container;
        ["pointerenter", "focusin", "pointerdown"].forEach((name) => core.container.addEventListener(name, use));
        document.addEventListener("keydown", onKey);
      },
      detach: () => {
        if (latest === core.container) { latest = null; }
        document.removeEventListener("keydown", onKey);
      },
    };
  };

  hpcxrf.tools = { ...hpcxrf.tools, buildKeys };
})();
