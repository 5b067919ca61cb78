"use strict";
// Out of the explorer: texts to save, each with the command that uses it. Nothing is written where the run lies.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, button, save } = hpcxrf.dom;

  const build = (container, app) => {
    const text = make("pre", { class: "written", tabindex: 0 });
    const command = make("code", {});
    const name = make("b", {});
    const got = make("div", { hidden: true }, make("p", {}, name, " ", button("Save", "save the file", () => save(name.textContent, text.textContent, "text/plain")),
      button("Copy", "copy the text", () => navigator.clipboard?.writeText(text.textContent))), text, make("p", {}, "Then: ", command));
    const ask = async (kind) => {
      const written = await app.write(kind);
      if (!written) { return; }
      got.hidden = false;
      [name.textContent, text.textContent, command.textContent] = [written.file_name, written.text, written.command];
    };
    container.append(
      make("p", { class: "tools" },
        button("Run file", "a run file for the whole run with these elements, regions and theta", () => ask("run_file")),
        button("Override file", "parameters of this fit as MAPS reads them", () => ask("override")),
        button("Regions", "the regions that were drawn, as CSV", () => ask("regions"))),
      make("p", { class: "small" }, "Results are never changed: a new run file makes a new run."), got);
  };

  hpcxrf.writePanel = { build };
})();
