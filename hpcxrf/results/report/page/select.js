"use strict";
// Pixels chosen in a map: as a selection that JSON can hold, and as a mask (1 inside) of the picture's points.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});

  // Places that are inside by the even-odd rule, row by row: those between an odd and an even crossing of the outline.
  // A pixel's place is its row and column in the scan; a point of a coarser picture has that of its middle.
  const fillPolygon = (points, [height, width], factor) => {
    const mask = new Uint8Array(height * width);
    const toColumn = (x) => Math.min(Math.max(Math.ceil((x + 0.5) / factor - 0.5), 0), width);
    for (let row = 0; row < height; row += 1) {
      const y = (row + 0.5) * factor - 0.5;
      const crossings = [];
      for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
        const [[yi, xi], [yj, xj]] = [points[i], points[j]];
        if ((yi > y) !== (yj > y)) { crossings.push(((xj - xi) * (y - yi)) / (yj - yi) + xi); }
      }
      crossings.sort((a, b) => a - b);
      for (let k = 0; k + 1 < crossings.length; k += 2) {
        mask.fill(1, row * width + toColumn(crossings[k]), row * width + toColumn(crossings[k + 1]));
      }
    }
    return mask;
  };
  const fillBox = ({ y: [top, bottom], x: [left, right] }, [height, width], factor) => {
    const inside = (i, first, stop) => { const at = (i + 0.5) * factor - 0.5; return at >= first && at < stop; };
    const mask = new Uint8Array(height * width);
    const columns = Uint8Array.from({ length: width }, (_, x) => (inside(x, left, right) ? 1 : 0));
    for (let row = 0; row < height; row += 1) { if (inside(row, top, bottom)) { mask.set(columns, row * width); } }
    return mask;
  };
  const test = (values, fits) => {
    const mask = new Uint8Array(values.length);
    for (let i = 0; i < values.length; i += 1) { mask[i] = fits(values[i]) ? 1 : 0; }
    return mask;
  };

  // Eight pixels a byte, the first one the highest bit, row by row, as numpy.packbits has it.
  const pack = (mask) => {
    const bytes = new Uint8Array(Math.ceil(mask.length / 8));
    for (let i = 0; i < mask.length; i += 1) { if (mask[i]) { bytes[i >> 3] |= 128 >> (i & 7); } }
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) { text += String.fromCharCode(...bytes.subarray(i, i + 8192)); }
    return btoa(text);
  };
  const unpack = (bits, length) => {
    const bytes = Uint8Array.from(atob(bits), (c) => c.charCodeAt(0));
    const mask = new Uint8Array(length);
    for (let i = 0; i < length; i += 1) { mask[i] = (bytes[i >> 3] >> (7 - (i & 7))) & 1; }
    return mask;
  };
  // From points of a picture to the pixels of the scan, and back.
  const refine = (mask, [height, width], factor, [ny, nx]) => {
    if (factor === 1 && height === ny && width === nx) { return mask; }
    const whole = new Uint8Array(ny * nx);
    for (let y = 0; y < ny; y += 1) {
      for (let x = 0; x < nx; x += 1) { whole[y * nx + x] = mask[Math.floor(y / factor) * width + Math.floor(x / factor)]; }
    }
    return whole;
  };
  const coarsen = (whole, [ny, nx], [height, width], factor) => {
    if (factor === 1 && height === ny && width === nx) { return whole; }
    const mask = new Uint8Array(height * width);
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        const y = Math.min(Math.floor((row + 0.5) * factor), ny - 1);
        mask[row * width + column] = whole[y * nx + Math.min(Math.floor((column + 0.5) * factor), nx - 1)];
      }
    }
    return mask;
  };

  // The mask of a selection, at the points of a picture. `values` (of those points): the region labels for a region,
  // the map's values for a threshold.
  const toMask = (selection, { shape, factor, scanShape, values = null }) => {
    const all = shape[0] * shape[1];
    const kinds = {
      all: () => new Uint8Array(all).fill(1),
      pixel: ({ y, x }) => {
        const mask = new Uint8Array(all);
        mask[Math.floor(y / factor) * shape[1] + Math.floor(x / factor)] = 1;
        return mask;
      },
      box: (box) => fillBox(box, shape, factor),
      polygon: ({ points }) => fillPolygon(points, shape, factor),
      region: ({ number }) => test(values, (label) => label === number),
      // NaN is on neither side of a limit.
      threshold: ({ low, high }) => test(values, (value) => value >= (low ?? -Infinity) && value <= (high ?? Infinity)),
      mask: ({ bits }) => coarsen(unpack(bits, scanShape[0] * scanShape[1]), scanShape, shape, factor),
    };
    return kinds[selection.kind](selection);
  };
  const fromMask = (mask, { shape, factor, scanShape }) => ({ kind: "mask", bits: pack(refine(mask, shape, factor, scanShape)) });

  hpcxrf.select = { pack, unpack, refine, coarsen, toMask, fromMask };
})();
