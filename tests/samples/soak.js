"use strict";
// What `soak.py` needs in the page: a record of answers, a list of what can be used, and the use of one of them.
(() => {
  const PLACES = [
    "dialog", ".controls", ".grid-side", ".viewer-tools", ".large", ".tabs", "#panels", "#right", "header", ".form-side",
    ".text-side", "#runs", "body"];
  const real = window.fetch;
  const seen = [];
  let nodes = [];

  // Every answer of counts, and every refusal, as the page gets it.
  window.fetch = async (path, options) => {
    const answer = await real(path, options);
    if (String(path) === "/api/spectrum" || !answer.ok) {
      const [method, body] = [options?.method ?? "GET", options?.body ?? ""];
      seen.push({ path: String(path), method, body, status: answer.status, text: await answer.clone().text() });
    }
    return answer;
  };

  const isUsable = (node) => node.checkVisibility({ visibilityProperty: true }) && !node.disabled && !node.closest("[inert]");
  // Only what lies in a dialog where one is open; links lead to other pages.
  const list = () => {
    const root = document.querySelector("dialog[open]") ?? document.body;
    nodes = [...root.querySelectorAll("button, select, input, textarea, summary")].filter(isUsable);
    return nodes.map((node) => ({
      place: PLACES.find((place) => node.closest(place)) ?? "body", tag: node.tagName,
      name: (node.getAttribute("aria-label") || node.textContent || node.title || "").trim().slice(0, 60),
    }));
  };
  const write = (node, share) => {
    if (node.type === "textarea") { return node.value + (share < 0.5 ? "\n# a word" : "\nfit: {suggest: false}"); }
    const near = String(Number(node.value) * (0.9 + 0.2 * share));
    // A field of numbers takes no words, and says so in the console.
    const texts = [node.value, "", "0", "-1", "1", "12.5", "1e300", node.type === "number" ? "3e-300" : "abc", near];
    return texts[Math.floor(share * texts.length)];
  };
  const act = ([index, share]) => {
    const node = nodes[index];
    if (!node?.isConnected) { return; }
    const tell = (...names) => names.forEach((name) => node.dispatchEvent(new Event(name, { bubbles: true })));
    node.focus();
    if (node.tagName === "SELECT") {
      node.selectedIndex = Math.floor(share * node.options.length);
      tell("input", "change");
    } else if (node.type === "range") {
      node.value = String(Number(node.min) + share * (node.max - node.min));
      tell("input");
      setTimeout(() => tell("change"), 60);
    } else if (["number", "text", "search", "textarea"].includes(node.type)) {
      node.value = write(node, share);
      tell("input", "change");
    } else { node.click(); }
  };
  // Where something is to be drawn on, once it is in sight; null: it is not there now.
  const locate = (selector) => {
    const node = document.querySelector("dialog[open]") ? null : [...document.querySelectorAll(selector)].find(isUsable);
    if (!node) { return null; }
    node.scrollIntoView({ block: "center" });
    const { x, y, width, height } = node.getBoundingClientRect();
    return { x, y, width, height };
  };
  // Values of a map, base64.
  const readMap = async (asked) => {
    const answer = await real(`/api/map?${new URLSearchParams(asked)}`);
    let text = "";
    new Uint8Array(await answer.arrayBuffer()).forEach((byte) => { text += String.fromCharCode(byte); });
    return btoa(text);
  };

  // Everything is looked at once: what the server keeps of it within its bounds is no growth.
  const warm = async (dataset) => {
    const get = async (path, values = {}) => (await real(`${path}?${new URLSearchParams(values)}`)).arrayBuffer();
    const post = async (path, body) => (await real(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).arrayBuffer();
    const scan = JSON.parse(new TextDecoder().decode(await get("/api/scan", { dataset })));
    for (const { name: layer, each, detectors } of scan.layers) {
      for (const detector of detectors) {
        await get("/api/thumbnails", { dataset, layer, detector });
        for (const component of each ? scan.components.map((one) => ({ component: one.name })) : [{}]) {
          await get("/api/map", { dataset, layer, detector, ...component });
        }
      }
    }
    const [high, wide] = scan.shape;
    const points = [[0.3, 0.3], [high - 1.3, 2.3], [2.3, wide - 1.3]];
    for (const detector of scan.detectors) {
      for (const selection of [{ kind: "all" }, { kind: "polygon", points }]) { await post("/api/spectrum", { dataset, detector, selection }); }
      await get("/api/elements", { dataset, detector });
      // Blocks of counts are kept, too, as many as their bound allows.
      for (let y = 0; y < high; y += 16) {
        for (let x = 0; x < wide; x += 16) { await post("/api/spectrum", { dataset, detector, selection: { kind: "pixel", y, x } }); }
      }
    }
    for (const path of ["/api/runs", "/api/runs/form", "/api/runs/start", "/api/history"]) { await get(path); }
  };

  window.soak = { list, act, locate, readMap, warm, take: () => seen.splice(0) };
})();
