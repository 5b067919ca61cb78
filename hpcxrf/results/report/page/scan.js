"use strict";
// The maps that a report holds, as the viewer asks for them: levels of 8 bit from its pictures, blocks and side files.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const LEVELS = 255;
  const files = new Map();
  const received = new Map();

  const toBytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const inflate = async (bytes) => {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  // The levels of a picture are the indices of its palette, in rows that begin with a filter that is 0.
  const readPicture = async (address) => {
    const bytes = toBytes(address.slice(address.indexOf(",") + 1));
    const view = new DataView(bytes.buffer);
    const parts = [];
    let shape = [0, 0];
    for (let at = 8; at < bytes.length;) {
      const length = view.getUint32(at);
      const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
      if (kind === "IHDR") { shape = [view.getUint32(at + 12), view.getUint32(at + 8)]; }
      if (kind === "IDAT") { parts.push(bytes.subarray(at + 8, at + 8 + length)); }
      at += 12 + length;
    }
    const rows = await inflate(await new Blob(parts).arrayBuffer());
    const levels = new Uint8Array(shape[0] * shape[1]);
    for (let y = 0; y < shape[0]; y += 1) { levels.set(rows.subarray(y * (shape[1] + 1) + 1, (y + 1) * (shape[1] + 1)), y * shape[1]); }
    return { levels, shape };
  };
  // Level 0 is not known, 1 at or below the lower limit, 255 at or above the upper one.
  const toValues = (levels, [low, high], scale) => {
    const table = Float32Array.from({ length: LEVELS + 1 }, (_, level) => {
      const share = (level - 1) / (LEVELS - 1);
      return level === 0 ? NaN : scale === "log" ? low * (high / low) ** share : low + share * (high - low);
    });
    return Float32Array.from(levels, (level) => table[level]);
  };

  // A side file calls this; it is a script, since a page of file:// may load nothing else.
  const receive = (name, blocks) => { received.set(name, blocks); };
  const load = (name) => {
    if (!files.has(name)) {
      files.set(name, new Promise((resolve, reject) => {
        const inside = [...document.querySelectorAll("script.side")].find((block) => block.dataset.name === name);
        if (inside) { resolve(JSON.parse(inside.textContent)); return; }
        const address = `${document.documentElement.dataset.pages ?? ""}${name}`;
        const fail = () => reject(new Error(`${address} is missing beside this page; copy the folder pages of the run too`));
        const script = document.createElement("script");
        script.src = address;
        script.addEventListener("load", () => { script.remove(); if (received.has(name)) { resolve(received.get(name)); } else { fail(); } });
        script.addEventListener("error", fail);
        document.head.append(script);
      }));
    }
    return files.get(name);
  };

  const fromPage = (section) => {
    const told = JSON.parse(section.querySelector("script.scan").textContent);
    const { data, ...facts } = told;
    const decoded = new Map();
    const maps = new Map();
    const once = (key, act) => {
      if (!decoded.has(key)) { decoded.set(key, act()); }
      return decoded.get(key);
    };
    const find = async (key) => {
      const one = data[key];
      return one.file ? { ...one, ...(await load(one.file))[key] } : one;
    };
    const readBlock = async (key, index) => {
      const one = await find(key);
      if (one.figure) {
        const figure = [...section.querySelectorAll("figure[data-maps]")].find((node) => node.dataset.maps === one.figure);
        const image = figure.querySelectorAll(".picture img")[one.first + index];
        const { levels, shape } = await once(`${one.figure} ${one.first + index}`, () => readPicture(image.src));
        return { levels, shape, limits: one.limits[index], scale: "linear" };
      }
      const all = await once(key, () => inflate(toBytes(one.levels)));
      const size = one.shape[0] * one.shape[1];
      return { levels: all.subarray(index * size, (index + 1) * size), shape: one.shape, limits: one.limits[index], scale: one.scale };
    };
    const read = async (detector, layer, component) => {
      const about = facts.layers.find((one) => one.name === layer);
      const names = about.components ?? facts.components.map((one) => one.name);
      const index = about.each ? names.indexOf(component) : 0;
      const key = layer.startsWith("regions") ? layer : `${detector}/${layer}`;
      if (index < 0 || !(key in data)) { throw new Error(`no ${about.label} of ${about.each ? component : detector} in this page`); }
      const { levels, shape, limits, scale } = await readBlock(key, index);
      // Values at the ends of the levels may lie beyond them.
      const range = about.codes || scale === "log" ? null : limits;
      return { values: toValues(levels, limits, scale), shape, factor: facts.factor, unit: about.unit, range };
    };
    const map = (detector, layer, component) => {
      const key = JSON.stringify([detector, layer, component]);
      if (!maps.has(key)) { maps.set(key, read(detector, layer, component)); }
      return maps.get(key);
    };
    const thumbnails = async (detector, layer) => {
      const about = facts.layers.find((one) => one.name === layer);
      const names = about.components ?? facts.components.map((one) => one.name);
      return Promise.all(names.map(async (component) => ({ component, ...(await map(detector, layer, component)) })));
    };
    return { ...facts, coarse: true, map, thumbnails };
  };

  hpcxrf.scan = { ...hpcxrf.scan, fromPage, receive };
})();
