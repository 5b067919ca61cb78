"use strict";
// The values of all maps of a detector in the pixel under the cursor, from the 8-bit pictures and their limits.
(() => {
  const block = document.getElementById("map-colours");
  if (!block) { return; }
  const LEVELS = 255;
  const hex = JSON.parse(block.textContent);
  const levels = new Map();
  for (let level = LEVELS; level > 0; level -= 1) { levels.set(parseInt(hex.slice(6 * level - 6, 6 * level), 16), level); }

  const number = (value) => (Math.abs(value) >= 1000 ? value.toFixed(0).replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009") : String(Number(value.toPrecision(3)))).replace("-", "−");
  const readLevels = (image) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    return Uint8Array.from({ length: data.length / 4 }, (_, i) => levels.get((data[4 * i] << 16) | (data[4 * i + 1] << 8) | data[4 * i + 2]) ?? 0);
  };
  const write = (level, [low, high]) => {
    if (level === 0) { return "not fitted"; }
    const value = number(low + ((level - 1) / (LEVELS - 1)) * (high - low));
    return level === 1 ? `≤ ${value}` : level === LEVELS ? `≥ ${value}` : value;
  };

  document.querySelectorAll("figure.maps .grid:has(> script.numbers)").forEach((grid) => {
    const { unit, factor, shape, step_um: step, limits } = JSON.parse(grid.querySelector("script.numbers").textContent);
    const panels = [...grid.querySelectorAll(".picture")].map((picture, i) => {
      const output = document.createElement("output");
      const mark = document.createElement("u");
      return { picture, output, mark, image: picture.querySelector("img"), limits: limits[i] };
    });
    const clear = () => panels.forEach((panel) => { panel.output.remove(); panel.mark.remove(); });
    const show = (chosen, x, y) => {
      const { naturalWidth: width, naturalHeight: height } = chosen.image;
      const [wide, high] = [(100 * factor) / shape[1], (100 * factor) / shape[0]];
      const [px, py] = [x * factor, y * factor];
      const place = step ? `x ${number(px * step[1])} µm, y ${number(py * step[0])} µm` : `column ${px}, row ${py}`;
      panels.forEach((panel) => {
        panel.levels ??= readLevels(panel.image);
        const value = write(panel.levels[y * width + x], panel.limits);
        panel.output.textContent = panel === chosen ? `${value}${unit && value !== "not fitted" ? ` ${unit}` : ""} at ${place}` : value;
        Object.assign(panel.mark.style, { left: `${x * wide}%`, top: `${y * high}%`, width: `${wide}%`, height: `${high}%` });
        if (y < height) { panel.picture.append(panel.output, panel.mark); }
      });
    };
    panels.forEach((panel) => {
      panel.picture.addEventListener("pointermove", (event) => {
        const box = panel.picture.getBoundingClientRect();
        const share = (value, size) => Math.min(Math.max(value / size, 0), 1 - 1e-9);
        show(panel, Math.floor((share(event.clientX - box.left, box.width) * shape[1]) / factor), Math.floor((share(event.clientY - box.top, box.height) * shape[0]) / factor));
      });
      panel.picture.addEventListener("pointerleave", clear);
    });
  });
})();
