"use strict";
// Colour maps that people with colour blindness can read, from the tables in the page.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const STEPS = 256;
  let known = null;
  const tables = new Map();

  // Tables as hexadecimal red, green and blue; the block is read when the first picture is drawn.
  const read = () => {
    known ??= JSON.parse(document.getElementById("map-colours").textContent);
    return known;
  };
  const pack = (red, green, blue, opacity = 255) => ((opacity << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const fromHex = (text) => pack(...[1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const names = () => Object.keys(read().maps);

  // 256 pixels, as a picture's memory has them, from the low end to the high one.
  const table = (name, reversed = false) => {
    const key = `${name} ${reversed}`;
    if (!tables.has(key)) {
      const hex = read().maps[name];
      const steps = Uint32Array.from({ length: STEPS }, (_, i) => fromHex(`#${hex.slice(6 * i, 6 * i + 6)}`));
      tables.set(key, reversed ? steps.reverse() : steps);
    }
    return tables.get(key);
  };
  const css = (pixel) => `rgb(${pixel & 255} ${(pixel >> 8) & 255} ${(pixel >> 16) & 255})`;
  const gradient = (name, reversed = false, direction = "to top") => {
    const steps = table(name, reversed);
    return `linear-gradient(${direction}, ${Array.from({ length: 18 }, (_, i) => css(steps[15 * i])).join(", ")})`;
  };

  hpcxrf.colours = {
    names, table, gradient, css, pack, fromHex,
    get cycle() { return read().cycle; },
    get notFitted() { return fromHex(read().not_fitted); },
  };
})();
