// The panels: what is chosen goes into Bokeh's models. Maps are painted for what is visible; where several cells share
// a pixel, the one of the largest magnitude is seen.
"use strict";
gatelens.Panels = class {
  constructor(state) {
    this.state = state;
    this.document = Bokeh.documents[0];
    this.time = this.model("time");
    this.maps = new Map();
    this.views = new Map();
    for (const view of Bokeh.index.roots) if (view.model.renderers) this.views.set(view.model.name, view);
    const repaint = () => this.soon();
    this.time.properties.start.change.connect(repaint);
    this.time.properties.end.change.connect(repaint);
    new ResizeObserver(repaint).observe(document.querySelector(".panels"));
    if (matchMedia("(pointer: coarse)").matches) {
      for (const view of this.views.values()) view.model.toolbar.active_drag = null; // fingers scroll the page
    }
  }

  model(name) {
    return this.document.get_model_by_name(name);
  }

  has(name) {
    return this.views.has(name);
  }

  // The plot's frame in px of the window, or null while it is folded away.
  frame(name) {
    const view = this.views.get(name);
    const box = view?.frame_view?.bbox ?? view?.frame?.bbox;
    if (!box || !(box.width > 0) || !view.el.offsetParent) return null;
    const outer = view.el.getBoundingClientRect();
    return { left: outer.left + box.left, right: outer.left + box.right, top: outer.top + box.top, height: box.height };
  }

  anyFrame() {
    for (const name of this.views.keys()) {
      const frame = this.frame(name);
      if (frame) return frame;
    }
    return null;
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
      this.ticks();
      this.onchange?.();
    });
  }

  zoom(start, end) {
    const last = this.state.sample.length - 0.5;
    const width = Math.min(Math.max(end - start, 3), last + 0.5);
    const first = Math.min(Math.max(start, -0.5), last - width);
    this.time.setv({ start: first, end: first + width });
  }

  // -- data ----------------------------------------------------------------------------------------------------------

  line(name, title, values, base) {
    this.title(name, title);
    const x = Float64Array.from(values, (_, t) => t);
    this.model(`${name}.data`).data = { x, y: Float64Array.from(values), base: Float64Array.from(base) };
    this.limits(name, [...values, ...base].filter(Number.isFinite));
  }

  // Bars on a scale from low <= 0 to high >= 0; `word` writes its ends.
  bars(name, title, values, error, [lowest, highest], word = gatelens.number) {
    this.title(name, title);
    const x = Float64Array.from(values, (_, t) => t);
    const up = Float64Array.from(values, (value) => Math.max(value, 0));
    const down = Float64Array.from(values, (value) => Math.min(value, 0));
    const low = Float64Array.from(values, (value, t) => value - (error ? error[t] : 0));
    const high = Float64Array.from(values, (value, t) => value + (error ? error[t] : 0));
    this.model(`${name}.data`).data = { x, up, down, low, high };
    const size = highest - lowest || 1;
    this.model(`${name}.y`).setv({ start: lowest - 0.04 * size, end: highest + 0.04 * size });
    this.yTicks(name, [lowest, 0, highest].filter((tick) => tick === 0 || Math.abs(tick) > 0.15 * size), word);
  }

  limits(name, values) {
    let low = Math.min(...values);
    let high = Math.max(...values);
    if (!(high > low)) [low, high] = [low - 1, high + 1];
    const room = 0.08 * (high - low);
    this.model(`${name}.y`).setv({ start: low - room, end: high + room });
    this.yTicks(name, [low, high]);
  }

  yTicks(name, ticks, word = gatelens.number) {
    const shown = [...new Set(ticks)];
    const axis = this.model(`${name}.yaxis`);
    axis.ticker.ticks = shown;
    axis.major_label_overrides = new Map(shown.map((tick) => [tick, word(tick)]));
  }

  title(name, text) {
    const title = document.querySelector(`[data-panel="${name}"] .title`);
    if (title) title.textContent = text;
  }

  // A map of rows x time; `at(row, t)` gives a number in -1..1 or 0..1.
  map(name, rows, at, signed, labels) {
    this.maps.set(name, { rows, at, signed });
    const host = document.querySelector(`[data-panel="${name}"] .rows`);
    if (!host) return;
    host.replaceChildren();
    const most = Math.max(1, Math.floor(host.clientHeight / 14) || rows);
    const every = Math.ceil(rows / most);
    for (let row = 0; row < rows; row += every) {
      const label = document.createElement("span");
      label.textContent = labels[row];
      label.title = labels[row];
      label.style.top = `${((row + 0.5) / rows) * 100}%`;
      host.append(label);
    }
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  paint() {
    for (const name of this.maps.keys()) this.paintMap(name);
    this.shade();
  }

  // The timesteps that the reasons name, shaded behind all panels.
  shade() {
    const host = document.querySelector(".panels");
    const frame = this.anyFrame();
    for (const old of host.querySelectorAll(".span")) old.remove();
    if (!frame) return;
    const { start, end } = this.time;
    const [left, width] = [frame.left - host.getBoundingClientRect().left, frame.right - frame.left];
    for (const [first, last] of this.state.sample.spans) {
      const from = Math.max(0, (first - 0.5 - start) / (end - start));
      const to = Math.min(1, (last + 0.5 - start) / (end - start));
      if (to <= from) continue;
      const span = document.createElement("div");
      span.className = "span";
      span.style.left = `${left + from * width}px`;
      span.style.width = `${(to - from) * width}px`;
      host.prepend(span);
    }
  }

  paintMap(name) {
    const frame = this.frame(name);
    if (!frame) return;
    const { rows, at, signed } = this.maps.get(name);
    const length = this.state.sample.length;
    const first = Math.max(0, Math.floor(this.time.start + 0.5));
    const stop = Math.min(length, Math.ceil(this.time.end + 0.5));
    const columns = Math.max(1, Math.min(stop - first, Math.round(frame.right - frame.left)));
    const lines = Math.max(1, Math.min(rows, Math.round(frame.height)));
    const colours = signed ? this.colours.signed : this.colours.sequential;
    const image = new Uint32Array(lines * columns);
    for (let line = 0; line < lines; line++) {
      const [rowFirst, rowStop] = [Math.floor((line * rows) / lines), Math.floor(((line + 1) * rows) / lines)];
      for (let column = 0; column < columns; column++) {
        const from = first + Math.floor((column * (stop - first)) / columns);
        const to = first + Math.floor(((column + 1) * (stop - first)) / columns);
        let value = 0;
        for (let row = rowFirst; row < rowStop; row++) {
          for (let t = from; t < to; t++) {
            const one = at(row, t);
            if (Math.abs(one) > Math.abs(value)) value = one;
          }
        }
        const level = signed ? 127.5 + 127.5 * value : 255 * value;
        image[(lines - 1 - line) * columns + column] = colours[Math.max(0, Math.min(255, Math.round(level)))];
      }
    }
    const source = this.model(`${name}.data`);
    const NDArray = source.data.image[0].constructor;
    source.data = { image: [new NDArray(image.buffer, [lines, columns])], x: [first - 0.5], dw: [stop - first] };
  }

  ticks() {
    const { sample } = this.state;
    const [start, end] = [Math.max(0, this.time.start), Math.min(sample.length - 1, this.time.end)];
    const frame = this.anyFrame();
    const room = Math.max(2, Math.floor((frame ? frame.right - frame.left : 600) / 90));
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((n) => (end - start) / n <= room) || 20000;
    const ticks = [];
    const last = sample.length - 1;
    for (let t = last - Math.floor((last - start) / every) * every; t <= end; t += every) ticks.push(t);
    const labels = new Map(ticks.map((t) => [t, sample.tokens ? sample.tokens[t] : sample.labels[t]]));
    for (const name of this.views.keys()) {
      const axis = this.model(`${name}.x`);
      if (axis.visible) {
        axis.ticker.ticks = ticks;
        axis.major_label_overrides = labels;
      }
    }
  }

  theme() {
    this.colours = gatelens.palette();
    const { roles } = this.colours;
    for (const view of this.views.values()) {
      const plot = view.model;
      for (const renderer of plot.renderers) {
        const [what, role] = (renderer.name || "").split(":");
        if (role) renderer.glyph[`${what}_color`] = roles[role];
      }
      for (const axis of [this.model(`${plot.name}.x`), this.model(`${plot.name}.yaxis`)]) {
        axis.major_label_text_color = roles.muted;
      }
    }
    this.paint();
  }
};
