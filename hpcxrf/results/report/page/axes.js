"use strict";
// Ticks of the axes of spectra, and places of labels that do not overlap.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  const raised = (n) => String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻");
  const write = (value) => {
    const size = Math.abs(value);
    if (size < 1e-12) { return "0"; }
    if (size >= 1e9) { return value.toExponential(2).replace(/e\+?(-?\d+)/, (_, n) => ` × 10${raised(n)}`); }
    const text = size >= 1000 ? value.toFixed(0) : size < 0.01 ? value.toFixed(2) : String(Number(value.toPrecision(3)));
    return text.replace(/\B(?=(\d{3})+(?!\d))/g, size >= 1000 ? "\u2009" : "").replace("-", "−");
  };
  const niceStep = (span, most) => {
    const decade = 10 ** Math.floor(Math.log10(span / most));
    return decade * [1, 2, 5, 10].find((size) => span / (size * decade) <= most);
  };
  const evenTicks = (low, high, most) => {
    const step = niceStep(high - low, most);
    const ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i <= Math.floor(high / step + 1e-9); i += 1) { ticks.push(i * step); }
    return { ticks, decimals: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
  };
  const decadeTicks = (low, high) => {
    const ticks = [];
    for (let n = Math.floor(Math.log10(low)); n <= Math.log10(high); n += 1) {
      for (let i = 1; i < 10; i += 1) {
        const at = i * 10 ** n;
        if (at >= low && at <= high) { ticks.push([at, i === 1 ? (n < 4 && n >= 0 ? write(at) : `10${raised(n)}`) : ""]); }
      }
    }
    return ticks;
  };
  // Sorted positions moved as little as it takes to be `gap` apart: pool adjacent violators.
  const spread = (positions, wanted, low, high) => {
    const gap = Math.min(wanted, (high - low) / Math.max(positions.length - 1, 1));
    const pools = [];
    positions.forEach((position, i) => {
      let [mean, size] = [position - gap * i, 1];
      while (pools.length && pools.at(-1)[0] > mean) {
        const [earlier, number] = pools.pop();
        mean = (mean * size + earlier * number) / (size + number);
        size += number;
      }
      pools.push([mean, size]);
    });
    const level = pools.flatMap(([mean, size]) => Array(size).fill(mean));
    return level.map((at, i) => clamp(at, low, high - gap * (positions.length - 1)) + gap * i);
  };

  hpcxrf.axes = { write, evenTicks, decadeTicks, spread };
})();
