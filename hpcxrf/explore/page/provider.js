"use strict";
// The scan as the viewer wants it, from the server: maps with all their digits, fetched when they are looked at.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const KEPT_MAPS = 60;
  const THUMBNAIL_SIDE = 128;

  const fromServer = async (dataset) => {
    const { client } = hpcxrf;
    const about = await client.get("/api/scan", { dataset });
    const kept = new Map();
    const keep = (key, make) => {
      if (!kept.has(key)) {
        const made = make();
        made.catch(() => kept.delete(key));
        kept.set(key, made);
        if (kept.size > KEPT_MAPS) { kept.delete(kept.keys().next().value); }
      }
      return kept.get(key);
    };
    const map = (detector, layer, component) => keep(
      JSON.stringify([detector, layer, component]), () => client.floats("/api/map", { dataset, detector, layer, component }));
    const thumbnails = (detector, layer) => keep(JSON.stringify([detector, layer]), async () => {
      const { values, shape: [n, high, wide], factor, unit } = await client.floats("/api/thumbnails", { dataset, detector, layer, side: THUMBNAIL_SIDE });
      return Array.from({ length: n }, (_, i) => ({
        component: about.components[i].name, values: values.subarray(i * high * wide, (i + 1) * high * wide), shape: [high, wide], factor, unit,
      }));
    });
    return { ...about, coarse: false, map, thumbnails };
  };

  hpcxrf.scan = { ...hpcxrf.scan, fromServer };
})();
