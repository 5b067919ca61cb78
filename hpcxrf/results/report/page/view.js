"use strict";
// What pictures are made of: limits, colours, ratios, profiles, histograms, tables. Functions of their arguments alone.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const LEAST_SHARE = 1e-4; // of the upper limit: where a logarithmic scale begins at the lowest
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // Limits ------------------------------------------------------------------------------------------------------
  const sortFinite = (values) => {
    const finite = new Float32Array(values.length);
    let n = 0;
    for (let i = 0; i < values.length; i += 1) { if (Number.isFinite(values[i])) { finite[n] = values[i]; n += 1; } }
    return finite.subarray(0, n).sort();
  };
  const percentile = (sorted, share) => {
    if (sorted.length === 0) { return NaN; }
    const at = (clamp(share, 0, 100) / 100) * (sorted.length - 1);
    const first = Math.floor(at);
    const next = Math.min(first + 1, sorted.length - 1);
    return sorted[first] + (at - first) * (sorted[next] - sorted[first]);
  };
  // Lower and upper end of the colours; a map without spread gets a span of one unit.
  const findLimits = (sorted, wanted, log = false) => {
    if (sorted.length === 0) { return log ? [1, 10] : [0, 1]; }
    let [low, high] = wanted.kind === "given" ? [wanted.low, wanted.high] : [percentile(sorted, wanted.low), percentile(sorted, wanted.high)];
    if (!(high > low)) { high = low + 1; }
    if (!log) { return [low, high]; }
    if (high <= 0) { return [1, 10]; }
    const least = sorted.find((value) => value > 0) ?? high;
    if (low <= 0) { low = Math.max(Math.min(least, high / 10), LEAST_SHARE * high); }
    return high > low ? [low, high] : [low, 10 * low];
  };
  const joinLimits = (all) => [Math.min(...all.map(([low]) => low)), Math.max(...all.map(([, high]) => high))];
  // 0 at the lower, 1 at the upper limit.
  const place = (value, [low, high], log = false) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));

  // Colours -----------------------------------------------------------------------------------------------------
  // Pixels of a picture. `table`: 256 colours; `missing`: colour of NaN; `faint`: 0 where a pixel is drawn in grey.
  const paint = (values, { limits, log = false, table, missing, faint = null }) => {
    const pixels = new Uint32Array(values.length);
    const last = table.length - 1;
    const [low, high] = limits;
    const scale = log ? last / Math.log(high / low) : last / (high - low);
    for (let i = 0; i < values.length; i += 1) {
      const value = values[i];
      if (value !== value) { pixels[i] = missing; continue; }
      const step = log ? (value > low ? Math.log(value / low) * scale : 0) : (value - low) * scale;
      const colour = table[step <= 0 ? 0 : step >= last ? last : (step + 0.5) | 0];
      pixels[i] = faint !== null && !(faint[i] > 0) ? toGrey(colour) : colour;
    }
    return pixels;
  };
  const toGrey = (colour) => {
    const light = 0.2126 * (colour & 255) + 0.7152 * ((colour >> 8) & 255) + 0.0722 * ((colour >> 16) & 255);
    const grey = Math.round(110 + 0.35 * light);
    return hpcxrf.colours.pack(grey, grey, grey);
  };
  const paintCodes = (values, colourOf, missing) => {
    const known = new Map();
    const pixels = new Uint32Array(values.length);
    for (let i = 0; i < values.length; i += 1) {
      const code = values[i];
      if (Number.isNaN(code)) { pixels[i] = missing; continue; }
      if (!known.has(code)) { known.set(code, colourOf(code)); }
      pixels[i] = known.get(code);
    }
    return pixels;
  };
  const toByte = (part) => (255 * (part > 1 ? 1 : part) + 0.5) | 0;
  // Up to three maps at once; `primaries`: red, green and blue (0 to 1) of each. Missing where all are.
  const compose = (maps, limits, { log = false, primaries, missing }) => {
    const pixels = new Uint32Array(maps[0].length);
    const last = log ? limits.map(([low, high]) => 1 / Math.log(high / low)) : limits.map(([low, high]) => 1 / (high - low));
    for (let i = 0; i < pixels.length; i += 1) {
      let [known, red, green, blue] = [false, 0, 0, 0];
      for (let k = 0; k < maps.length; k += 1) {
        const value = maps[k][i];
        if (value !== value) { continue; }
        known = true;
        const share = log ? (value > 0 ? Math.log(value / limits[k][0]) * last[k] : 0) : (value - limits[k][0]) * last[k];
        const light = share <= 0 ? 0 : share >= 1 ? 1 : share;
        red += light * primaries[k][0];
        green += light * primaries[k][1];
        blue += light * primaries[k][2];
      }
      pixels[i] = known ? ((255 << 24) | (toByte(blue) << 16) | (toByte(green) << 8) | toByte(red)) >>> 0 : missing;
    }
    return pixels;
  };

  // Several maps ------------------------------------------------------------------------------------------------
  // NaN where the lower map is not positive, or where `known` is 0.
  const ratio = (above, below, known = null) => {
    const values = new Float32Array(above.length).fill(NaN);
    for (let i = 0; i < values.length; i += 1) { if (below[i] > 0 && (known === null || known[i] > 0)) { values[i] = above[i] / below[i]; } }
    return values;
  };
  const count = (mask) => {
    let number = 0;
    for (let i = 0; i < mask.length; i += 1) { number += mask[i]; }
    return number;
  };
  const ratioSigma = (a, sigmaA, b, sigmaB) => Math.abs(a / b) * Math.hypot(sigmaA / a, sigmaB / b);
  // Counts of pixels (bin of b, bin of a), row 0 the lowest b; `mask` leaves pixels out.
  const histogram = (a, b, bins, limitsA, limitsB, log = false, mask = null) => {
    const counts = new Uint32Array(bins * bins);
    for (let i = 0; i < a.length; i += 1) {
      if (mask !== null && !mask[i]) { continue; }
      const [across, up] = [place(a[i], limitsA, log), place(b[i], limitsB, log)];
      if (across >= 0 && up >= 0 && across <= 1 && up <= 1) {
        counts[Math.min(Math.floor(up * bins), bins - 1) * bins + Math.min(Math.floor(across * bins), bins - 1)] += 1;
      }
    }
    return counts;
  };
  const correlate = (a, b) => {
    let [n, meanA, meanB, aa, bb, ab] = [0, 0, 0, 0, 0, 0];
    for (let i = 0; i < a.length; i += 1) {
      if (!Number.isFinite(a[i]) || !Number.isFinite(b[i])) { continue; }
      n += 1;
      const [da, db] = [a[i] - meanA, b[i] - meanB];
      meanA += da / n;
      meanB += db / n;
      aa += da * (a[i] - meanA);
      bb += db * (b[i] - meanB);
      ab += da * (b[i] - meanB);
    }
    return n > 1 && aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : NaN;
  };
  const total = (values, mask) => {
    let [number, sum] = [0, 0];
    for (let i = 0; i < values.length; i += 1) {
      if (mask[i] && Number.isFinite(values[i])) { number += 1; sum += values[i]; }
    }
    return { number, sum, mean: number ? sum / number : NaN };
  };

  // Line profile ------------------------------------------------------------------------------------------------
  // Points of a line between two points [y, x] of the picture (0.5 is the middle of the first pixel), one a pixel.
  const followLine = ([y0, x0], [y1, x1], [height, width]) => {
    const steps = Math.max(1, Math.round(Math.max(Math.abs(y1 - y0), Math.abs(x1 - x0))));
    return Array.from({ length: steps + 1 }, (_, i) => {
      const share = i / steps;
      const [y, x] = [y0 + share * (y1 - y0), x0 + share * (x1 - x0)];
      const [row, column] = [clamp(Math.floor(y), 0, height - 1), clamp(Math.floor(x), 0, width - 1)];
      return { share, row, column, index: row * width + column };
    });
  };

  // Order, lengths, numbers, tables -----------------------------------------------------------------------------
  const ORDERS = {
    z: (a, b) => (a.z || 999) - (b.z || 999) || a.name.localeCompare(b.name),
    name: (a, b) => a.label.localeCompare(b.label),
    counts: (a, b, d) => (b.counts[d] ?? -Infinity) - (a.counts[d] ?? -Infinity),
    share: (a, b, d) => (b.share[d] ?? -Infinity) - (a.share[d] ?? -Infinity),
  };
  const order = (components, by, detector) => [...components].sort((a, b) => ORDERS[by](a, b, detector));
  // The largest of 1, 2 or 5 times a power of ten that is at most a third of the span.
  const niceLength = (span) => {
    const target = span / 3;
    const decade = 10 ** Math.floor(Math.log10(target));
    return Math.max(...[1, 2, 5].map((step) => step * decade).filter((step) => step <= target * (1 + 1e-9)));
  };
  const writeLength = (length, known) => (!known ? `${length} px` : length >= 1000 ? `${length / 1000} mm` : `${Number(length.toPrecision(3))} µm`);
  const ticks = (low, high, most = 5) => {
    if (!(high > low)) { return [low]; }
    const decade = 10 ** Math.floor(Math.log10((high - low) / most));
    const step = [1, 2, 2.5, 5, 10, 20].map((size) => size * decade)
      .find((size) => Math.floor(high / size + 1e-9) - Math.ceil(low / size - 1e-9) < most);
    const first = Math.ceil(low / step - 1e-9);
    return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
  };
  const logTicks = (low, high, most = 6) => {
    const found = [];
    const sizes = Math.log10(high / low) > 3 ? [1] : Math.log10(high / low) > 1.3 ? [1, 3] : [1, 2, 3, 5, 7];
    for (let n = Math.floor(Math.log10(low)); n <= Math.log10(high); n += 1) {
      sizes.forEach((size) => { const at = size * 10 ** n; if (at >= low * 0.999 && at <= high * 1.001) { found.push(Number(at.toPrecision(3))); } });
    }
    const every = Math.ceil(found.length / most);
    return found.length ? found.filter((_, i) => i % every === 0) : [low, high];
  };
  const write = (value, digits = 4) => {
    if (!Number.isFinite(value)) { return "–"; }
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-4 || size >= 1e9)) { return value.toExponential(digits - 2).replace("-", "−"); }
    const text = size >= 10 ** (digits - 1) ? value.toFixed(0) : String(Number(value.toPrecision(digits)));
    const [whole, part] = text.split(".");
    return (whole.replace(/\B(?=(\d{3})+(?!\d))/g, "\u2009") + (part ? `.${part}` : "")).replace("-", "−");
  };
  // As many digits as the uncertainty warrants: to its second digit.
  const writeWithSigma = (value, sigma) => {
    if (!(sigma > 0) || !Number.isFinite(value)) { return write(value); }
    const digits = value === 0 ? 2 : clamp(Math.floor(Math.log10(Math.abs(value))) - Math.floor(Math.log10(sigma)) + 2, 2, 9);
    return `${write(value, Math.max(digits, 2))} ± ${write(sigma, 2)}`;
  };
  // Quoted where needed, and no cell that a spreadsheet takes for a formula.
  const cell = (value) => {
    if (typeof value === "number") { return Number.isFinite(value) ? String(value) : ""; }
    const text = /^[=+\-@\t\r\n]/.test(value) ? `'${value}` : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (rows) => rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";

  hpcxrf.view = {
    clamp, sortFinite, percentile, findLimits, joinLimits, place, paint, paintCodes, compose, ratio, ratioSigma, histogram, correlate, total, count,
    followLine, order, niceLength, writeLength, ticks, logTicks, write, writeWithSigma, csv,
  };
})();
