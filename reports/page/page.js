// The page comes alive: what the reader chooses goes into the panels, the table and the address.
"use strict";
gatelens.SIGNED = ["candidate", "cell_state", "flow"];

// A quantity of the chosen layer's units, strongest first, as its picture has it: in 0..1, or -1..1.
gatelens.quantity = function ({ sample, layer }, name) {
  const { values, shape } = sample.array(`${name}.${layer}`);
  const length = shape[1];
  if (gatelens.SIGNED.includes(name)) return (row, t) => (values[row * length + t] - 128) / 127;
  return (row, t) => values[row * length + t] / 255;
};

gatelens.Page = class {
  constructor() {
    this.state = { number: 0, t: 0, explainer: 0, layer: 0, units: 32, outputStep: 0 };
    this.packs = [...document.querySelectorAll("script[data-sample]")];
    this.samples = new Map();
    this.controls = Object.fromEntries(
      ["sample", "explainer", "layer", "units", "output-step"].map((name) => [name, document.querySelector(`#${name}`)]),
    );
  }

  async start() {
    await this.read();
    this.panels = new gatelens.Panels(this.state);
    this.cursor = new gatelens.Cursor(this.state, this.panels);
    this.sheet = new gatelens.Sheet(this.state);
    this.tables = new gatelens.Tables(this.state, this.panels);
    this.panels.onchange = () => this.cursor.show();
    this.cursor.onchange = () => this.moved();
    this.panels.colours = gatelens.palette();
    this.listen();
    this.show();
    this.panels.theme();
    document.documentElement.classList.add("ready");
    performance.mark("gatelens:ready");
  }

  // Take sample and timestep from the address (#sample=3&t=42, both counted from 1), or the last one shown.
  async read() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const whole = (name) => (/^[0-9]{1,9}$/.test(wanted.get(name) ?? "") ? Number(wanted.get(name)) - 1 : null);
    const number = Math.min(Math.max(whole("sample") ?? 0, 0), this.packs.length - 1);
    await this.open(number);
    this.state.t = Math.min(Math.max(whole("t") ?? this.state.sample.length - 1, 0), this.state.sample.length - 1);
  }

  async open(number) {
    if (!this.samples.has(number)) {
      this.samples.set(number, new gatelens.Sample(await gatelens.inflate(this.packs[number].textContent)));
    }
    const first = !this.state.sample;
    this.state.number = number;
    this.state.sample = this.samples.get(number);
    const { sample } = this.state;
    this.state.t = Math.min(this.state.t, sample.length - 1);
    this.state.layer = Math.min(first ? sample.layers.length - 1 : this.state.layer, sample.layers.length - 1);
    if (first) this.state.explainer = sample.primary;
    const steps = sample.over_time?.steps.length ?? 0;
    this.state.outputStep = Math.min(first ? steps - 1 : this.state.outputStep, steps - 1);
  }

  listen() {
    const { sample, explainer, layer, units } = this.controls;
    const outputStep = this.controls["output-step"];
    sample?.addEventListener("change", () => this.choose(Number(sample.value)));
    explainer?.addEventListener("change", () => {
      this.state.explainer = explainer.value === "over_time" ? "over_time" : Number(explainer.value);
      this.show();
    });
    layer?.addEventListener("change", () => {
      this.state.layer = Number(layer.value);
      this.show();
    });
    units?.addEventListener("change", () => {
      this.state.units = units.value === "all" ? Infinity : Number(units.value);
      this.show();
    });
    outputStep?.addEventListener("input", () => {
      this.state.outputStep = Number(outputStep.value);
      this.state.explainer = "over_time";
      this.show();
    });
    for (const link of document.querySelectorAll("[data-sample-link]")) {
      link.addEventListener("click", () => this.choose(Number(link.dataset.sampleLink)));
    }
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.zoom(button.dataset.zoom));
    }
    for (const folded of document.querySelectorAll("details")) {
      folded.addEventListener("toggle", () => setTimeout(() => this.panels.soon(), 60));
    }
    addEventListener("hashchange", async () => {
      await this.read();
      this.show();
    });
    this.themes();
    this.printing();
  }

  async choose(number) {
    await this.open(number);
    this.show();
  }

  zoom(how) {
    const { start, end } = this.panels.time;
    const { sample, t } = this.state;
    if (how === "all") return this.panels.zoom(-0.5, sample.length - 0.5);
    const width = (end - start) * (how === "in" ? 0.5 : 2);
    return this.panels.zoom(t - width * ((t - start) / (end - start)), t + width * ((end - t) / (end - start)));
  }

  // -- what is chosen goes everywhere --------------------------------------------------------------------------------

  show() {
    const { state, panels, controls } = this;
    const { sample } = state;
    for (const part of document.querySelectorAll("[data-number]")) part.hidden = Number(part.dataset.number) !== state.number;
    if (controls.sample) controls.sample.value = state.number;
    if (controls.explainer) controls.explainer.value = state.explainer;
    if (controls.layer) controls.layer.value = state.layer;
    this.outputs();
    const effects = gatelens.effects(state);
    state.course = gatelens.summed(effects);
    state.label = state.explainer === "over_time" ? sample.over_time.label : sample.explainers[state.explainer].label;
    if (this.shown !== state.number) panels.zoom(-0.5, sample.length - 0.5);
    this.shown = state.number;
    this.inputs();
    this.bars();
    this.heat(effects);
    this.network();
    panels.soon();
    this.sheet.rebuild();
    this.tables.refresh();
    this.cursor.show();
    this.moved();
  }

  outputs() {
    const { over_time: over } = this.state.sample;
    const slider = this.controls["output-step"];
    if (!slider || !over) return;
    slider.max = over.steps.length - 1;
    slider.value = this.state.outputStep;
    const step = over.steps[this.state.outputStep];
    const text = `output at timestep ${step + 1}: ${gatelens.number(over.predictions[this.state.outputStep], { digits: 4 })}`;
    slider.setAttribute("aria-valuetext", text);
    document.querySelector("#output-step-text").textContent = text;
  }

  inputs() {
    const { sample } = this.state;
    if (!sample.has("inputs")) return;
    for (let place = 0; this.panels.has(`strip-${place}`); place++) {
      const feature = sample.strips[place];
      const host = document.querySelector(`[data-panel="strip-${place}"]`);
      host.hidden = feature === undefined;
      if (feature === undefined) continue;
      const { name, unit } = sample.features[feature];
      this.panels.line(`strip-${place}`, unit ? `${name} (${unit})` : name, sample.row("inputs", feature), sample.row("baseline", feature));
    }
  }

  bars() {
    const { sample } = this.state;
    const courses = sample.explainers.map((_, key) => gatelens.summed(gatelens.effects({ ...this.state, explainer: key })));
    const ends = (values) => [Math.min(0, ...values), Math.max(0, ...values)];
    const signed = sample.explainers.map(({ signed, timed }) => signed && timed);
    const shared = ends(courses.filter((_, key) => signed[key]).flatMap(ends));
    const word = (value) => (sample.percent ? gatelens.number(100 * value, { signed: true }) : gatelens.number(value));
    sample.explainers.forEach(({ label, timed }, key) => {
      if (!timed || !this.panels.has(`steps-${key}`)) return;
      const error = sample.has(`error.${key}`) ? sample.row(`error.${key}`, 0) : null;
      this.panels.bars(`steps-${key}`, label, courses[key], error, signed[key] ? shared : ends(courses[key]), word);
      document.querySelector(`[data-panel="steps-${key}"]`).classList.toggle("chosen", key === this.state.explainer);
    });
  }

  heat({ values, rows, length }) {
    const { sample } = this.state;
    if (!this.panels.has("heat")) return;
    const host = document.querySelector('[data-panel="heat"]');
    host.hidden = rows !== sample.features.length || rows < 2;
    const most = gatelens.largest(values) || 1;
    this.panels.title("heat", `${this.state.label}: each timestep and feature`);
    this.panels.map("heat", rows, (row, t) => values[row * length + t] / most, true, sample.features.map((one) => one.name));
    this.key("heat", `${gatelens.effect(-most, sample)}`, `${gatelens.effect(most, sample)}`);
  }

  network() {
    const { sample, layer, units } = this.state;
    const found = sample.layers[layer];
    if (!found) return;
    const count = Math.min(units, found.order.length);
    const labels = found.order.map((unit) => `#${unit}`);
    for (const name of gatelens.QUANTITIES) {
      if (!this.panels.has(name)) continue;
      const at = gatelens.quantity(this.state, name);
      const signed = gatelens.SIGNED.includes(name);
      this.panels.map(name, count, name === "forget_gate" ? (row, t) => 1 - at(row, t) : at, signed, labels);
      if (signed) this.key(name, gatelens.number(-found.scales[name]), gatelens.number(found.scales[name], { signed: true }));
    }
    if (this.panels.has("flow_sum")) this.sum();
    const gates = document.querySelector('[data-panel="gates"]');
    if (gates) {
      gates.hidden = !sample.has(`gates.${layer}`);
      if (!gates.hidden) {
        const { values, shape } = sample.array(`gates.${layer}`);
        const most = gatelens.largest(values) || 1;
        this.panels.map("gates", 4, (row, t) => values[row * shape[1] + t] / most, true, gatelens.GATE_WORDS.slice(0, 4));
        this.key("gates", gatelens.effect(-most, sample), gatelens.effect(most, sample));
      }
    }
    const share = count >= found.order.length ? 1 : found.share;
    const words =
      count >= found.units
        ? `All ${found.units} units of layer ${found.label}, strongest first by ${found.by}.`
        : `The ${count} strongest of ${found.units} units of layer ${found.label} by ${found.by}; they carry ${Math.round(100 * share)}\u00a0% of it.`;
    document.querySelector("#units-told").textContent = words;
  }

  sum() {
    const row = this.state.sample.row(`flow_sum.${this.state.layer}`, 0);
    const ends = [Math.min(0, ...row), Math.max(0, ...row)];
    this.panels.bars("flow_sum", "Memory flow, summed over all units", row, null, ends);
  }

  key(name, low, high) {
    const key = document.querySelector(`[data-panel="${name}"] .key`);
    if (!key) return;
    key.querySelector(".low").textContent = low;
    key.querySelector(".high").textContent = high;
  }

  moved() {
    this.sheet.show();
    clearTimeout(this.address);
    this.address = setTimeout(() => {
      const sample = this.packs.length > 1 ? `sample=${this.state.number + 1}&` : "";
      history.replaceState(null, "", `#${sample}t=${this.state.t + 1}`);
    }, 250);
  }

  // -- theme and print -----------------------------------------------------------------------------------------------

  themes() {
    const button = document.querySelector("#theme");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const root = document.documentElement;
    const now = () => root.dataset.theme || (dark.matches ? "dark" : "light");
    const label = () => (button.textContent = now() === "dark" ? "Light" : "Dark");
    button.addEventListener("click", () => {
      root.dataset.theme = now() === "dark" ? "light" : "dark";
      label();
      this.panels.theme();
    });
    dark.addEventListener("change", () => {
      label();
      this.panels.theme();
    });
    label();
  }

  printing() {
    const root = document.documentElement;
    let before = null;
    addEventListener("beforeprint", () => {
      const folded = [...document.querySelectorAll("details:not([data-table]):not([open])")];
      before = { theme: root.dataset.theme, folded };
      root.dataset.theme = "light";
      for (const one of folded) one.open = true;
      for (const part of document.querySelectorAll("[data-number]")) part.hidden = false;
      this.panels.theme();
    });
    addEventListener("afterprint", () => {
      if (!before) return;
      if (before.theme) root.dataset.theme = before.theme;
      else delete root.dataset.theme;
      for (const one of before.folded) one.open = false;
      this.panels.theme();
      this.show();
    });
  }
};

// Canvases are no stops of the keyboard; the slider is.
gatelens.unfocus = function (element) {
  if (element.tabIndex === 0) element.tabIndex = -1;
  for (const child of [...element.children, ...(element.shadowRoot?.children ?? [])]) gatelens.unfocus(child);
};

// Bokeh is inflated and started after the words have been painted. Its text is one that the page's policy names by its
// hash; the style elements that it makes get the policy's nonce.
gatelens.boot = async function () {
  await new Promise((done) => {
    new PerformanceObserver(done).observe({ type: "paint", buffered: true });
    setTimeout(done, 400); // a page in the background is not painted
  });
  const nonce = document.querySelector("style[nonce]").nonce;
  const create = Document.prototype.createElement;
  Document.prototype.createElement = function (name, ...rest) {
    const made = create.call(this, name, ...rest);
    if (String(name).toLowerCase() === "style") made.setAttribute("nonce", nonce);
    return made;
  };
  performance.mark("gatelens:library");
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await gatelens.inflate(document.querySelector("#bokeh").textContent));
  document.body.append(script);
  Bokeh.logger.set_level?.("error");
  const figures = document.querySelector("#figures");
  const { document: json } = JSON.parse(figures.textContent);
  const roots = JSON.parse(figures.dataset.roots);
  const places = Object.fromEntries(Object.entries(roots).map(([name, id]) => [id, `plot-${name}`]));
  await Bokeh.embed.embed_items({ page: json }, [{ docid: "page", roots: places, root_ids: Object.values(roots) }]);
  for (const view of Bokeh.index.roots) gatelens.unfocus(view.el);
  await new gatelens.Page().start();
};
gatelens.boot();
