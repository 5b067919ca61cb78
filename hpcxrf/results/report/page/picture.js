"use strict";
// The large picture of a map: its pixels, what is drawn over them, and the pointer in it.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { make, draw } = hpcxrf.dom;
  const { clamp, niceLength, writeLength } = hpcxrf.view;
  const SHADE = (150 << 24) >>> 0; // black, over what is not selected
  const CLEAR = 0;

  const putPixels = (canvas, pixels, [height, width]) => {
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer, 0, pixels.byteLength), width, height), 0, 0);
  };
  // Width over height, kept between 1:3 and 4:1 so that a line scan can be seen.
  const findAspect = ([ny, nx], step) => {
    const [dy, dx] = step ?? [1, 1];
    return clamp((nx * dx) / (ny * dy), 1 / 3, 4);
  };
  // Points of a picture may reach beyond the scan.
  const cover = (node, [height, width], factor, [ny, nx]) => {
    node.style.width = `${(100 * width * factor) / nx}%`;
    node.style.height = `${(100 * height * factor) / ny}%`;
  };
  const makeScaleBar = ([, nx], step) => {
    const width = nx * (step ?? [1, 1])[1];
    const length = niceLength(width);
    const bar = make("i", { class: "scale-bar", "aria-hidden": "true" }, make("span", {}, writeLength(length, step !== null && step !== undefined)));
    bar.style.width = `${(100 * length) / width}%`;
    return bar;
  };

  // options: scan's shape and step; act: hover(place | null), pick(place), line(from, to), box(selection), lasso(selection)
  const build = ({ shape, step, label, act }) => {
    const [ny, nx] = shape;
    const map = make("canvas", { class: "map-pixels" });
    const shade = make("canvas", { class: "map-shade" });
    const over = draw("svg", { viewBox: `0 0 ${nx} ${ny}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    const message = make("p", { class: "stage-message", role: "status" });
    const stage = make("div", { class: "stage", tabindex: 0, role: "application", "aria-label": label }, map, shade, over, makeScaleBar(shape, step), message);
    stage.style.setProperty("--aspect", String(findAspect(shape, step)));
    let tool = "look";
    let drawn = [];
    let cursor = [Math.floor(ny / 2), Math.floor(nx / 2)];
    const lines = { pixel: draw("g", { class: "pixel" }), cursor: draw("g", { class: "cursor" }), path: draw("g", { class: "path" }) };
    over.append(...Object.values(lines));

    const outline = (d) => [draw("path", { d, class: "under" }), draw("path", { d, class: "upper" })];
    const square = ({ y, x }, size = 1) => `M${x} ${y}h${size}v${size}h${-size}Z`;
    const put = (group, d) => lines[group].replaceChildren(...(d ? outline(d) : []));

    const locate = (event) => {
      const box = stage.getBoundingClientRect();
      const share = (value, size) => clamp(value / size, 0, 1 - 1e-9);
      return [share(event.clientY - box.top, box.height) * ny, share(event.clientX - box.left, box.width) * nx];
    };
    const pixelOf = ([y, x]) => ({ y: Math.floor(y), x: Math.floor(x) });
    const hover = (place) => {
      put("cursor", place && tool === "look" ? square(place) : "");
      act.hover(place);
    };

    const draft = {
      line: (points) => `M${points[0][1]} ${points[0][0]}L${points.at(-1)[1]} ${points.at(-1)[0]}`,
      box: ([[y0, x0], ...rest]) => { const [y1, x1] = rest.at(-1) ?? [y0, x0]; return `M${x0} ${y0}H${x1}V${y1}H${x0}Z`; },
      lasso: (points) => `M${points.map(([y, x]) => `${x} ${y}`).join("L")}Z`,
    };
    const finish = {
      line: (points) => act.line(points[0], points.at(-1)),
      box: (points) => {
        const span = (axis) => {
          const ends = [points[0][axis], points.at(-1)[axis]].sort((a, b) => a - b);
          return [Math.floor(ends[0]), Math.max(Math.ceil(ends[1]), Math.floor(ends[0]) + 1)];
        };
        act.select({ kind: "box", y: span(0), x: span(1) });
      },
      // Points of a polygon count from the middle of the first pixel.
      lasso: (points) => act.select({ kind: "polygon", points: points.map(([y, x]) => [y - 0.5, x - 0.5]) }),
    };
    stage.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) { return; }
      if (tool === "look") { return; }
      event.preventDefault();
      stage.setPointerCapture(event.pointerId);
      drawn = [locate(event)];
    });
    stage.addEventListener("pointermove", (event) => {
      const at = locate(event);
      cursor = [Math.floor(at[0]), Math.floor(at[1])];
      hover(pixelOf(at));
      if (drawn.length) {
        drawn.push(at);
        put("path", draft[tool](drawn));
      }
    });
    stage.addEventListener("pointerup", (event) => {
      if (tool === "look") { if (event.button === 0) { act.pick(pixelOf(locate(event))); } return; }
      if (drawn.length === 0) { return; }
      const points = [...drawn, locate(event)];
      drawn = [];
      // A lasso or a line of no extent is a click.
      const extent = Math.max(...points.map(([y, x]) => Math.max(Math.abs(y - points[0][0]), Math.abs(x - points[0][1]))));
      if (tool !== "box" && extent < 0.3) { put("path", ""); act.pick(pixelOf(points[0])); return; }
      if (tool !== "line") { put("path", ""); }
      finish[tool](points);
    });
    stage.addEventListener("pointercancel", () => { drawn = []; put("path", ""); });
    stage.addEventListener("pointerleave", () => { if (!drawn.length) { hover(null); } });
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    stage.addEventListener("keydown", (event) => {
      if (event.shiftKey && event.key in moves) {
        const [dy, dx] = moves[event.key];
        cursor = [clamp(cursor[0] + dy, 0, ny - 1), clamp(cursor[1] + dx, 0, nx - 1)];
        hover(pixelOf(cursor));
      } else if (event.key === "Enter") { act.pick(pixelOf(cursor)); } else { return; }
      event.preventDefault();
      event.stopPropagation();
    });

    return {
      node: stage,
      show: (pixels, size, factor) => {
        putPixels(map, pixels, size);
        cover(map, size, factor, shape);
        message.textContent = "";
      },
      say: (text) => { message.textContent = text; },
      // Points outside the mask are darkened.
      shade: (mask, size, factor) => {
        shade.hidden = mask === null;
        if (mask === null) { return; }
        const pixels = new Uint32Array(mask.length);
      for (let i = 0; i < mask.length; i += 1) { pixels[i] = mask[i] ? CLEAR : SHADE; }
      putPixels(shade, pixels, size);
        cover(shade, size, factor, shape);
      },
      outline: (d) => put("path", d),
      pin: (place) => put("pixel", place ? square(place) : ""),
      setTool: (name) => { tool = name; drawn = []; stage.dataset.tool = name; put("path", ""); put("cursor", ""); },
      canvas: map,
    };
  };

  hpcxrf.picture = { build, putPixels, findAspect, cover, makeScaleBar };
})();
