"use strict";
// What is shown, as a picture with its scales, and as a table.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { button, save, fileName } = hpcxrf.dom;
  const { view, colours } = hpcxrf;
  const INK = "#1d2430";
  const FONT = "system-ui, sans-serif";

  const drawScaleBar = (context, scan, [left, bottom], width) => {
    const span = scan.shape[1] * (scan.step_um ?? [1, 1])[1];
    const length = view.niceLength(span);
    const size = (width * length) / span;
    const text = view.writeLength(length, Boolean(scan.step_um));
    Object.assign(context, { fillStyle: "#fff", strokeStyle: "#000", lineWidth: 3, font: `600 15px ${FONT}`, textAlign: "left", textBaseline: "alphabetic" });
    context.strokeRect(left + 14, bottom - 18, size, 5);
    context.fillRect(left + 14, bottom - 18, size, 5);
    context.strokeText(text, left + 14, bottom - 26);
    context.fillText(text, left + 14, bottom - 26);
  };
  const drawColours = (context, core, current, [left, top], height) => {
    const { state } = core;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.font = `14px ${FONT}`;
    if (!current.limits) {
      (current.entries ?? []).forEach(([colour, text], i) => {
        context.fillStyle = colour;
        context.fillRect(left, top + 24 * i, 16, 16);
        context.strokeRect(left, top + 24 * i, 16, 16);
        context.fillStyle = INK;
        context.fillText(text, left + 24, top + 24 * i + 9);
      });
      return;
    }
    const table = colours.table(state.colours, state.reversed);
    for (let i = 0; i < height; i += 1) {
      context.fillStyle = colours.css(table[Math.round(255 * (1 - i / height))]);
      context.fillRect(left, top + i, 16, 1.5);
    }
    context.fillStyle = INK;
    (state.log ? view.logTicks(...current.limits) : view.ticks(...current.limits, 6)).forEach((at) => {
      const y = top + height * (1 - view.place(at, current.limits, state.log));
      context.fillRect(left + 16, y - 0.5, 4, 1);
      context.fillText(view.write(at, 3), left + 25, y);
    });
  };
  // The picture with title, colour bar and scale bar, as a canvas.
  const compose = (core) => {
    const { current, scan } = core;
    const aspect = hpcxrf.picture.findAspect(scan.shape, scan.step_um);
    const [ny, nx] = scan.shape;
    const width = Math.round(aspect >= 1 ? 900 : 900 * aspect);
    const height = Math.max(40, Math.round(width / aspect));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width + 190, height + 62];
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    Object.assign(context, { fillStyle: INK, font: `600 20px ${FONT}`, textBaseline: "middle" });
    const unit = current.unit ? `, ${current.unit}` : "";
    context.fillText(`${current.title}${current.codes ? "" : unit}`, 14, 24);
    Object.assign(context, { font: `14px ${FONT}`, textAlign: "right" });
    const layer = current.layer.label === current.title ? "" : `${current.layer.label} · `;
    context.fillText(`${layer}${scan.name} · ${hpcxrf.tools.nameDetector(core.detector(current.layer))}`.slice(0, 90), width + 176, 24);
    context.imageSmoothingEnabled = false;
    context.save();
    context.beginPath();
    context.rect(14, 48, width, height);
    context.clip();
    context.drawImage(core.big.canvas, 14, 48, (width * current.shape[1] * current.factor) / nx, (height * current.shape[0] * current.factor) / ny);
    drawScaleBar(context, scan, [14, 48 + height], width);
    context.restore();
    drawColours(context, core, current, [width + 28, 48], height);
    return canvas;
  };

  // A row for each point: its place, the values, whether it is selected.
  const tabulate = (core) => {
    const { current, scan, mask, state } = core;
    const [height, width] = current.shape;
    const unit = current.maps[0].unit && !current.codes ? ` (${current.maps[0].unit})` : "";
    const eightBit = scan.coarse && !current.codes ? ", 8 bit" : "";
    const names = current.names ?? [current.layer.each ? state.component : current.layer.label];
    const columns = [...current.maps.map((map) => map.values), ...(current.kind === "ratio" ? [current.values] : [])];
    const head = [
      "row", "column", ...(scan.step_um ? ["y_um", "x_um"] : []), ...names.map((name) => `${core.label(name)}${unit}${eightBit}`),
      ...(current.kind === "ratio" ? [current.title] : []), ...(mask ? ["selected"] : [])];
    const rows = [head];
    for (let i = 0; i < height * width; i += 1) {
      // The middle of the point: whole numbers are middles of pixels.
      const [y, x] = [Math.floor(i / width), i % width].map((at) => (at + 0.5) * current.factor - 0.5);
      const place = scan.step_um ? [y * scan.step_um[0], x * scan.step_um[1]].map((um) => Number(um.toPrecision(7))) : [];
      rows.push([y, x, ...place, ...columns.map((values) => Number(values[i].toPrecision(7))), ...(mask ? [mask[i]] : [])]);
    }
    return view.csv(rows);
  };

  const buildSave = (core) => {
    const name = (ending) => `${fileName(core.scan.name, core.current.title, core.current.layer.name)}.${ending}`;
    const savePicture = () => compose(core).toBlob((blob) => save(name("png"), blob, "image/png"));
    const nodes = [
      button("Save PNG", "the picture that is shown, with its scales", savePicture, { "data-save": "png" }),
      button("Save CSV", "the values that are shown, a row for each point", () => save(name("csv"), tabulate(core), "text/csv"), { "data-save": "csv" })];
    const draw = (current) => nodes.forEach((node) => { node.disabled = !current; });
    draw(null);
    return { nodes, draw };
  };

  hpcxrf.tools = { ...hpcxrf.tools, buildSave, composePicture: compose, tabulate };
})();
