"use strict";
// The run file as a form and as text, in step: each change goes to the server, which gives text, values and faults.
(() => {
  const hpcxrf = (window.hpcxrf ??= {});
  const { client, dom: { make, button, save }, runList: { prose } } = hpcxrf;
  const TYPING_MS = 350;
  const OPEN = ["input", "sample"];

  const shownText = (field, told) => {
    if (!told.given) { return ""; }
    if (field.kind === "text" && typeof told.value === "string") { return told.value; }
    if (field.kind === "list" && Array.isArray(told.value) && told.value.every((one) => typeof one === "string")) { return told.value.join(field.one_a_line ? "\n" : ", "); }
    return told.value === null ? "null" : told.text;
  };
  const defaultText = (field) => {
    const value = field.default;
    if (field.required) { return "must be given"; }
    if (value === null || (Array.isArray(value) && !value.length) || (typeof value === "object" && !Object.keys(value).length)) { return "none"; }
    return Array.isArray(value) ? value.join(", ") : String(value);
  };
  // The reference says None where a run file says null, or nothing at all.
  const explain = (field) => {
    const [first, later] = field.default === null ? ["Not given:", "not given:"] : ["null:", "null:"];
    return field.help.replace(/(^|\. )None:/g, `$1${first}`).replaceAll("None:", later);
  };
  const readTyped = (field, typed) => {
    const text = typed.trim();
    if (!text) { return null; }
    if (field.kind === "number") { return { value: text === "null" ? null : Number.isFinite(Number(text)) ? Number(text) : text }; }
    if (field.kind === "text") { return { value: text === "null" && field.nullable ? null : text }; }
    if (field.kind === "list") { return { value: text.split(field.one_a_line ? /\n/ : /[,\n]/).map((one) => one.trim()).filter(Boolean) }; }
    return { yaml: text };
  };

  // The control of an option: a node, `set` to show a value.
  const makeControl = (field, label, change) => {
    const named = { "aria-label": label };
    if (field.kind === "switch") {
      const input = make("input", { type: "checkbox", ...named });
      input.addEventListener("change", () => change({ value: input.checked }));
      return { node: make("span", {}, input), focus: input, set: (told) => { input.checked = told.value === true; } };
    }
    if (field.kind === "choice") {
      const select = make("select", named, ...field.choices.map((one) => make("option", { value: JSON.stringify(one) }, one === null ? "–" : String(one))));
      select.addEventListener("change", () => change({ value: JSON.parse(select.value) }));
      return { node: select, focus: select, set: (told) => { select.value = JSON.stringify(told.value); } };
    }
    if (field.kind === "choices") {
      const inputs = field.choices.map((one) => make("input", { type: "checkbox", value: one }));
      inputs.forEach((input) => input.addEventListener("change", () => change({ value: inputs.filter((one) => one.checked).map((one) => one.value) })));
      const node = make("span", { class: "several", role: "group", ...named }, ...inputs.map((input) => make("label", { class: "field check" }, input, make("span", {}, input.value))));
      return { node, focus: inputs[0], set: (told) => inputs.forEach((input) => { input.checked = Array.isArray(told.value) && told.value.includes(input.value); }) };
    }
    const long = field.one_a_line && field.kind === "list";
    const listed = field.choices.length ? `choices-${field.place}` : null;
    const input = make(long ? "textarea" : "input", { ...named, spellcheck: "false", placeholder: defaultText(field), ...(long ? { rows: 2 } : { type: "text", autocomplete: "off", list: listed }) });
    if (field.kind === "number") { input.classList.add("number"); input.inputMode = "decimal"; }
    input.addEventListener("change", () => change(readTyped(field, input.value)));
    const node = make("span", { class: "typed" }, input, ...(listed ? [make("datalist", { id: listed }, ...field.choices.map((one) => make("option", { value: one })))] : []));
    return { node, focus: input, set: (told) => { input.value = shownText(field, told); if (long) { input.rows = Math.min(8, Math.max(2, input.value.split("\n").length)); } } };
  };

  const makeField = (field, send) => {
    const name = field.place.split(".")[1];
    const control = makeControl(field, field.place, (change) => send({ [field.place]: change }));
    const reset = button("↺", `take ${field.place} out of the run file: ${defaultText(field)}`, () => send({ [field.place]: null }), { class: "quiet", hidden: true, "aria-label": `reset ${field.place}` });
    const fault = make("p", { class: "fault", id: `fault-${field.place}` });
    const hints = [["yaml"].includes(field.kind) ? "YAML" : field.kind === "list" ? (field.one_a_line ? "one a line" : "commas between") : "", field.range, field.required ? "must be given" : `default: ${defaultText(field)}`];
    const node = make("div", { class: "option", "data-place": field.place },
      make("p", { class: "key" }, make("code", {}, name), " ", reset),
      make("div", { class: "value" }, control.node, make("span", { class: "small hint" }, hints.filter(Boolean).join(" · "))),
      make("p", { class: "small help" }, ...prose(explain(field)), ...(field.inner.length ? [make("span", {}, ` Within it: ${field.inner.join(", ")}.`)] : [])), fault);
    control.focus.setAttribute("aria-describedby", fault.id);
    const set = (told, faults) => {
      if (document.activeElement !== control.focus || !["INPUT", "TEXTAREA"].includes(control.focus.tagName) || control.focus.type === "checkbox") { control.set(told); }
      node.classList.toggle("changed", told.changed);
      reset.hidden = !told.given;
      fault.textContent = faults.join("\n");
      node.classList.toggle("wrong", faults.length > 0);
      control.focus.setAttribute("aria-invalid", String(faults.length > 0));
    };
    return { node, set, control, place: field.place, words: `${field.place} ${field.help}`.toLowerCase() };
  };

  // A fault whose option, where it begins with one, leads there.
  const describeFault = ({ places: [place], text }, reveal) => {
    const link = place && text.startsWith(place) ? button(place, "go to this option", () => reveal(place), { class: "link" }) : null;
    if (link) { return [link, ...prose(text.slice(place.length))]; }
    return place ? [button(place, "go to this option", () => reveal(place), { class: "link" }), ": ", ...prose(text)] : prose(text);
  };

  const build = (container, app, told) => {
    const text = make("textarea", { class: "yaml", spellcheck: "false", "aria-label": "text of the run file", rows: 15, wrap: "off" });
    const faultList = make("ul", { class: "faults", "aria-live": "polite" });
    const summary = make("p", { class: "checked", role: "status" });
    const groups = make("div", { class: "groups" });
    const state = { text: "", faults: [], changed: 0, queue: Promise.resolve(), waiting: 0 };
    // Changes that are on their way: an answer to an earlier one does not put their options back.
    const sent = [];
    const fields = [];

    const show = (answer) => {
      [state.text, state.faults] = [answer.text, answer.faults];
      if (text.value !== answer.text) { text.value = answer.text; }
      groups.classList.toggle("unread", answer.values === null);
      groups.inert = answer.values === null;
      if (answer.values) {
        const underway = new Set(sent.flat());
        fields.filter((field) => !underway.has(field.place)).forEach((field) => field.set(answer.values[field.place], answer.faults.filter((one) => one.places.includes(field.place)).map((one) => one.text)));
        sections.forEach((section) => section.tell(answer));
      }
      state.changed = answer.values ? Object.values(answer.values).filter((one) => one.changed).length : 0;
      faultList.replaceChildren(...answer.faults.map((one) => make("li", {}, ...describeFault(one, reveal))));
      summary.textContent = answer.faults.length ? `${answer.faults.length} ${answer.faults.length === 1 ? "fault" : "faults"}` : `No fault · ${answer.workload} · ${state.changed} changed`;
      summary.classList.toggle("wrong", answer.faults.length > 0);
      app.checked(answer);
    };
    // One after the other: each change is made to the text that the one before has left.
    const send = (changes, typed) => {
      state.waiting += 1;
      sent.push(Object.keys(changes));
      state.queue = state.queue.then(async () => {
        state.waiting -= 1;
        // What was typed meanwhile counts, and has a request of its own.
        if (typed !== undefined && state.waiting) { sent.shift(); return; }
        try {
          const answer = await client.post("/api/runs/text", { text: typed ?? state.text, changes });
          sent.shift();
          if (typed === undefined || text.value === typed) { show(answer); }
          app.fault("");
        } catch (error) { sent.shift(); app.fault(error.message); }
      });
      return state.queue;
    };
    const reveal = (place) => {
      const found = fields.find((one) => one.place === place);
      const group = sections.find((one) => one.name === place.split(".")[0]);
      if (group) { group.node.open = true; }
      (found?.node ?? group?.node)?.scrollIntoView({ block: "center" });
      found?.control.focus.focus();
    };
    const sections = told.sections.map((section) => {
      const own = section.fields.map((field) => makeField(field, send));
      fields.push(...own);
      const count = make("span", { class: "small" });
      const fault = make("p", { class: "fault" });
      const node = make("details", { class: "group", open: OPEN.includes(section.name) }, make("summary", {}, make("b", {}, section.name), " ", count),
        make("p", { class: "small" }, section.help), fault, ...own.map((one) => one.node));
      const tell = (answer) => {
        const changed = own.filter((one) => answer.values[one.place].changed).length;
        const wrong = answer.faults.filter((one) => one.places.some((place) => place.split(".")[0] === section.name));
        count.textContent = [changed ? `${changed} changed` : "", wrong.length ? `${wrong.length} ${wrong.length === 1 ? "fault" : "faults"}` : ""].filter(Boolean).join(", ");
        node.classList.toggle("wrong", wrong.length > 0);
        fault.textContent = answer.faults.filter((one) => one.places.includes(section.name)).map((one) => one.text).join("\n");
      };
      return { name: section.name, node, own, tell };
    });
    const find = make("input", { type: "search", size: 18 });
    find.addEventListener("input", () => {
      const wanted = find.value.trim().toLowerCase();
      sections.forEach((section) => {
        const hits = section.own.filter((one) => one.words.includes(wanted));
        section.own.forEach((one) => { one.node.hidden = wanted !== "" && !hits.includes(one); });
        section.node.hidden = wanted !== "" && !hits.length;
        section.node.open = wanted !== "" ? hits.length > 0 : OPEN.includes(section.name) || section.node.classList.contains("wrong");
      });
    });
    const onlyChanged = hpcxrf.dom.check("Changed only", false, (on) => groups.classList.toggle("changed-only", on));
    groups.append(...sections.map((section) => section.node));
    let typing = 0;
    text.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => { state.text = text.value; send({}, text.value); }, TYPING_MS);
    });
    container.append(
      make("div", { class: "form-side" }, make("p", { class: "tools filters" }, make("label", { class: "field" }, make("span", {}, "Find an option"), find), onlyChanged.node), groups),
      make("div", { class: "text-side" },
        make("h3", {}, "Run file ", button("Save", "save the text", () => save("run.yaml", state.text, "text/yaml"))), text, summary, faultList, app.steps));

    const load = async (key) => { await state.queue; show(await client.get("/api/runs/start", key ? { run: key } : {})); };
    // What is in a control but was not left yet belongs to the run file, too.
    const settle = async () => {
      clearTimeout(typing);
      document.activeElement?.blur?.();
      if (text.value !== state.text) { state.text = text.value; send({}, text.value); }
      await state.queue;
      return state;
    };
    return { load, settle, state, reveal };
  };

  hpcxrf.runForm = { build, describeFault };
})();
