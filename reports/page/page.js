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

// As it is drawn: the forget gate as what it erases, else it is one dark slab.
gatelens.drawn = function (state, name) {
  const at = gatelens.quantity(state, name);
  return name === "forget_gate" ? (row, t) => 1 - at(row, t) : at;
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
    this.late = null;
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
    const last = this.state.sample.length - 1;
    this.state.t = Math.min(Math.max(whole("t") ?? last, 0), last);
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
    if (!this.chosen) this.state.explainer = sample.primary; // the reasons' own, which need not be every sample's
    const steps = sample.over_time?.steps.length ?? 0;
    this.state.outputStep = Math.min(first ? (sample.over_time?.first ?? 0) : this.state.outputStep, steps - 1);
  }

  listen() {
    const { sample, explainer, layer, units } = this.controls;
    const outputStep = this.controls["output-step"];
    sample?.addEventListener("change", () => this.choose(Number(sample.value)));
    explainer?.addEventListener("change", () => {
      this.chosen = true;
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
      this.chosen = true;
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
      this.cursor.reveal();
    });
    // On narrow screens only the bar's last line stays in view; the table begins below the bar.
    const bar = document.querySelector(".controls");
    new ResizeObserver(() => {
      const [whole, line] = [bar, document.querySelector("#readout")].map((one) => one.offsetHeight);
      document.documentElement.style.setProperty("--bar", `${whole}px`);
      document.documentElement.style.setProperty("--fold", `${line - whole}px`);
    }).observe(bar);
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
    if (how === "earlier" || how === "later") return this.panels.pan(how === "later" ? 0.5 : -0.5);
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
    const shown = state.explainer === "over_time" ? { ...sample.over_time, timed: true } : sample.explainers[state.explainer];
    state.course = shown.timed ? gatelens.summed(effects) : null; // null: timesteps are not told apart
    state.label = shown.label;
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
    document.querySelector(".shaded")?.toggleAttribute("hidden", !sample.spans.length);
    if (!sample.has("inputs")) return;
    for (let place = 0; this.panels.has(`strip-${place}`); place++) {
      const feature = sample.strips[place];
      const host = document.querySelector(`[data-panel="strip-${place}"]`);
      host.hidden = feature === undefined;
      if (feature === undefined) continue;
      const [values, baseline] = ["inputs", "baseline"].map((name) => sample.row(name, feature));
      this.panels.line(`strip-${place}`, gatelens.featureName(sample, feature), values, baseline);
    }
  }

  bars() {
    const { sample } = this.state;
    const courses = sample.explainers.map((_, key) => gatelens.summed(gatelens.effects({ ...this.state, explainer: key })));
    const errors = courses.map((_, key) => (sample.has(`error.${key}`) ? sample.row(`error.${key}`, 0) : null));
    const ends = courses.map((course, key) => {
      const moved = (sign) => course.map((value, t) => value + sign * (errors[key]?.[t] ?? 0));
      return gatelens.ends(moved(1), ...gatelens.ends(moved(-1), 0));
    });
    const signed = sample.explainers.map(({ signed, timed }) => signed && timed);
    const shared = gatelens.ends(ends.filter((_, key) => signed[key]).flat(), 0);
    const word = (value) => gatelens.tick(sample.percent ? 100 * value : value, { signed: true });
    sample.explainers.forEach(({ label, timed }, key) => {
      if (!timed || !this.panels.has(`steps-${key}`)) return;
      this.panels.bars(`steps-${key}`, label, courses[key], errors[key], signed[key] ? shared : ends[key], word);
      document.querySelector(`[data-panel="steps-${key}"]`).classList.toggle("chosen", key === this.state.explainer);
    });
  }

  heat(effects) {
    const { sample, label, course } = this.state;
    if (!this.panels.has("heat")) return;
    const host = document.querySelector('[data-panel="heat"]');
    host.hidden = effects.rows !== sample.features.length || effects.rows < 2;
    const most = gatelens.largest(effects.values);
    const at = (row, t) => gatelens.effectAt(effects, row, t);
    const names = sample.features.map((one) => one.name);
    const tell = (row, t) => gatelens.effect(at(row, t), sample);
    this.panels.title("heat", `${label}: ${course ? "each timestep and feature" : "each feature, over the whole sequence"}`);
    this.panels.map("heat", effects.rows, (row, t) => at(row, t) / (most || 1), true, names, tell);
    this.key("heat", gatelens.effect(-most, sample), gatelens.effect(most, sample));
  }

  network() {
    const { sample, layer, units } = this.state;
    const found = sample.layers[layer];
    if (!found) return;
    const count = Math.min(units, found.order.length);
    const labels = found.order.map((unit) => `#${unit}`);
    for (const name of gatelens.QUANTITIES) {
      if (!this.panels.has(name)) continue;
      document.querySelector(`[data-panel="${name}"]`).hidden = !sample.has(`${name}.${layer}`);
      if (!sample.has(`${name}.${layer}`)) continue;
      const at = gatelens.drawn(this.state, name);
      const signed = gatelens.SIGNED.includes(name);
      const tell = (row, t) => gatelens.number(at(row, t) * found.scales[name]);
      this.panels.map(name, count, at, signed, labels, tell);
      if (signed) this.key(name, gatelens.number(-found.scales[name]), gatelens.number(found.scales[name], { signed: true }));
    }
    if (this.panels.has("flow_sum")) this.sum();
    const gates = document.querySelector('[data-panel="gates"]');
    if (gates) {
      gates.hidden = !sample.has(`gates.${layer}`);
      if (!gates.hidden) {
        const { values, shape } = sample.array(`gates.${layer}`);
        const most = gatelens.largest(values);
        const at = (row, t) => values[row * shape[1] + t];
        const tell = (row, t) => gatelens.effect(at(row, t), sample);
        this.panels.map("gates", 4, (row, t) => at(row, t) / (most || 1), true, gatelens.GATE_WORDS.slice(0, 4), tell);
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
    const name = `flow_sum.${this.state.layer}`;
    document.querySelector('[data-panel="flow_sum"]').hidden = !this.state.sample.has(name);
    if (!this.state.sample.has(name)) return;
    const row = this.state.sample.row(name, 0);
    this.panels.bars("flow_sum", "Memory flow, summed over all units", row, null, gatelens.ends(row, 0));
  }

  key(name, low, high) {
    const key = document.querySelector(`[data-panel="${name}"] .key`);
    if (!key) return;
    key.querySelector(".low").textContent = low;
    key.querySelector(".high").textContent = high;
  }

  // The line and its readout come first; the table is written in the frame after, once for all moves until then.
  moved() {
    this.late ??= requestAnimationFrame(() => {
      this.late = null;
      this.sheet.show();
    });
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
      this.repaint();
    });
    dark.addEventListener("change", () => {
      label();
      this.repaint();
    });
    label();
  }

  // Panels and pictures in the theme that holds; pictures know the system's only, so their conditions are rewritten.
  repaint() {
    this.panels.theme();
    const chosen = document.documentElement.dataset.theme;
    const met = { undefined: "(prefers-color-scheme: dark)", dark: "(min-width: 0)", light: "(max-width: 0)" }[chosen];
    for (const source of document.querySelectorAll("picture source")) {
      source.dataset.media ??= source.media;
      source.media = source.dataset.media.replace("(prefers-color-scheme: dark)", met);
    }
  }

  printing() {
    const root = document.documentElement;
    let before = null;
    addEventListener("beforeprint", () => {
      const folded = [...document.querySelectorAll("details:not([data-table]):not([open])")];
      before ??= { theme: root.dataset.theme, folded };
      root.dataset.theme = "light";
      root.classList.add("printing"); // panels as wide as a sheet of paper
      for (const one of folded) one.open = true;
      for (const part of document.querySelectorAll("[data-number]")) part.hidden = false;
      const told = document.querySelector(".printed");
      if (told) told.textContent = `The panels show ${this.state.sample.name}.`;
      this.repaint();
      this.panels.now(true);
    });
    addEventListener("afterprint", () => {
      if (!before) return;
      if (before.theme) root.dataset.theme = before.theme;
      else delete root.dataset.theme;
      for (const one of before.folded) one.open = false;
      before = null;
      root.classList.remove("printing");
      this.repaint();
      this.panels.now(false);
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
  const wanted = Number(new URLSearchParams(location.hash.slice(1)).get("sample")) - 1 || 0;
  const parts = [...document.querySelectorAll("[data-number]")];
  const shown = parts.some((part) => Number(part.dataset.number) === wanted) ? wanted : 0;
  for (const part of parts) part.hidden = Number(part.dataset.number) !== shown; // before all words are painted
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
gatelens.boot().catch((error) => {
  document.documentElement.classList.add("failed"); // the page says so, and all samples' words and tables are there
  for (const part of document.querySelectorAll("[data-number]")) part.hidden = false;
  throw error;
});
