"use strict";
// Talking to the server that sent this page: JSON and maps, each answer once, errors as sentences.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const PATIENCE_MS = 60;

  // That a run has changed is news for the whole page, whoever asked: it is told as an event, too.
  const explain = async (answer) => {
    const body = await answer.json().catch(() => ({}));
    const fault = new Error(body.error ?? `The explorer answered ${answer.status}; look at the terminal that started it.`);
    if (body.changed) {
      fault.changed = body.changed;
      window.dispatchEvent(new CustomEvent("runchanged", { detail: body }));
    }
    return fault;
  };
  const ask = async (path, options) => {
    const answer = await fetch(path, { credentials: "same-origin", cache: "no-store", ...options }).catch(() => {
      throw new Error("The explorer does not answer: it was stopped, or the tunnel to it is closed. Start it again.");
    });
    if (!answer.ok) { throw await explain(answer); }
    return answer;
  };
  const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== null)).toString();
  const get = async (path, values = {}) => (await ask(`${path}?${query(values)}`)).json();
  const post = async (path, body = {}) => (await ask(path, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  })).json();
  const floats = async (path, values) => {
    const answer = await ask(`${path}?${query(values)}`);
    return {
      values: new Float32Array(await answer.arrayBuffer()),
      shape: answer.headers.get("X-Shape").split(",").map(Number),
      factor: Number(answer.headers.get("X-Factor") ?? 1),
      unit: decodeURIComponent(answer.headers.get("X-Unit") ?? ""),
    };
  };

  // The secret is in the part of the address that no server and no log sees; it is exchanged once for a cookie.
  const open = async () => {
    const secret = location.hash.slice(1);
    if (secret) {
      await post("/open", { secret });
      history.replaceState(null, "", location.pathname);
    }
  };

  const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
  // One fit at a time: a newer one makes the answer of an older one worthless, and it is never given.
  // Each page has a name of its own: a fit of one page does not end that of another.
  const page = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const makeFitter = (tell, tellCommand) => {
    let newest = 0;
    return async (request) => {
      newest += 1;
      const mine = newest;
      const started = performance.now();
      const { id, command } = await post("/api/fit", { ...request, page });
      tellCommand(command ?? "");
      for (;;) {
        if (mine !== newest) { return null; }
        const state = await get("/api/fit", { id });
        if (mine !== newest || state.state === "cancelled") { return null; }
        if (state.state === "done") { tell(null); return state.fit; }
        if (state.state === "failed") { tell(null); throw new Error(state.reason); }
        tell(state.state, (performance.now() - started) / 1000);
        await pause(PATIENCE_MS);
      }
    };
  };

  hpcxrf.client = { open, get, post, floats, makeFitter };
})();
