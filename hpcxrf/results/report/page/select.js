"use strict";
// Pixels chosen in a map: as a selection that JSON can hold, and as a mask (1 inside) of the picture's points.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});

  // Even-odd rule; a point on an edge belongs to one of the two sides.
  const isInside = (y, x, points) => {
    let inside = false;
    for (let i = 0, j = points.length - 1; i < points.length; j = i, i += 1) {
      const [[yi, xi], [yj, xj]] = [points[i], points[j]];
      if ((yi > y) !== (yj > y) && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) { inside = !inside; }
    }
    return inside;
  };
  // A pixel's place is its row and column in the scan; a point of a coarser picture has that of its middle.
  const fromPlaces = (shape, factor, test) => {
    const [height, width] = shape;
    const mask = new Uint8Array(height * width);
    for (let row = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1) {
        mask[row * width + column] = test((row + 0.5) * factor - 0.5, (column + 0.5) * factor - 0.5) ? 1 : 0;
      }
    }
    return mask;
  };

  // Eight pixels a byte, the first one the highest bit, row by row, as numpy.packbits has it.
  const pack = (mask) => {
    const bytes = new Uint8Array(Math.ceil(mask.length / 8));
    mask.forEach((on, i) => { if (on) { bytes[i >> 3] |= 128 >> (i & 7); } });
    let text = "";
    for (let i = 0; i < bytes.length; i += 8192) { text += String.fromCharCode(...bytes.subarray(i, i + 8192)); }
    return btoa(text);
  };
  const unpack = (bits, length) => {
    const bytes = Uint8Array.from(atob(bits), (c) => c.charCodeAt(0));
    return Uint8Array.from({ length }, (_, i) => (bytes[i >> 3] >> (7 - (i & 7))) & 1);
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
      box: ({ y: [top, bottom], x: [left, right] }) => fromPlaces(shape, factor, (y, x) => y >= top && y < bottom && x >= left && x < right),
      polygon: ({ points }) => fromPlaces(shape, factor, (y, x) => isInside(y, x, points)),
      region: ({ number }) => Uint8Array.from(values, (label) => (label === number ? 1 : 0)),
      threshold: ({ low, high }) =>
        Uint8Array.from(values, (value) => (!Number.isNaN(value) && value >= (low ?? -Infinity) && value <= (high ?? Infinity) ? 1 : 0)),
      mask: ({ bits }) => coarsen(unpack(bits, scanShape[0] * scanShape[1]), scanShape, shape, factor),
    };
    return kinds[selection.kind](selection);
  };
  const fromMask = (mask, { shape, factor, scanShape }) => ({ kind: "mask", bits: pack(refine(mask, shape, factor, scanShape)) });

  hpcxrf.select = { isInside, pack, unpack, refine, coarsen, toMask, fromMask };
})();
