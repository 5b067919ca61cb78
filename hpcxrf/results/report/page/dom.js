"use strict";
// Elements made from names, attributes and texts: no text becomes markup.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const SVG = "http://www.w3.org/2000/svg";

  const fill = (node, attributes, children) => {
    Object.entries(attributes).forEach(([name, value]) => {
      if (value === false || value === null || value === undefined) { return; }
      node.setAttribute(name, value === true ? "" : value);
    });
    node.append(...children);
    return node;
  };
  const make = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
  const draw = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

  const button = (text, title, act, attributes = {}) => {
    const node = make("button", { type: "button", title, ...attributes }, text);
    node.addEventListener("click", act);
    return node;
  };
  // A choice with its label: options are [value, text].
  const choice = (label, options, value, act, name = label) => {
    const select = make("select", { "aria-label": name }, ...options.map(([key, text]) => make("option", { value: key }, text)));
    select.value = value;
    select.addEventListener("change", () => act(select.value));
    const node = make("label", { class: "field" }, make("span", {}, label), select);
    return { node, select, set: (key) => { select.value = key; } };
  };
  const check = (label, value, act, title = "") => {
    const input = make("input", { type: "checkbox", "aria-label": label });
    input.checked = value;
    input.addEventListener("change", () => act(input.checked));
    return { node: make("label", { class: "field check", title }, input, make("span", {}, label)), input, set: (on) => { input.checked = on; } };
  };
  const number = (label, act, name = label) => {
    const input = make("input", { type: "number", step: "any", size: 8, "aria-label": name });
    input.addEventListener("change", () => { if (Number.isFinite(input.valueAsNumber)) { act(input.valueAsNumber); } });
    const set = (value) => { input.value = String(Number(value.toPrecision(6))); };
    return { node: make("label", { class: "field" }, make("span", {}, label), input), input, set };
  };
  // Buttons of which one is pressed.
  const group = (label, options, value, act) => {
    const buttons = options.map(([key, text, title]) => button(text, title ?? "", () => act(key), { "data-key": key }));
    const set = (key) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.key === key)));
    set(value);
    return { node: make("span", { class: "pressed", role: "group", "aria-label": label }, ...buttons), set, buttons };
  };
  const save = (name, content, type) => {
    const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
    const link = make("a", { href: address, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  };
  const fileName = (...parts) => parts.join("_").replace(/[^\w.+-]+/g, "-").slice(0, 120);
  const isTyping = (target) => target instanceof Element && target.closest("input, select, textarea, [contenteditable]") !== null;

  hpcxrf.dom = { make, draw, button, choice, check, number, group, save, fileName, isTyping };
})();
