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
    const host = document.querySelector(".panels");
    host.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    if (matchMedia("(pointer: coarse)").matches) {
      for (const view of this.views.values()) view.model.toolbar.active_drag = null; // fingers scroll the page
    }
  }

  // Sideways wheels and two fingers on a pad move along the time.
  wheel(event) {
    const along = event.shiftKey ? event.deltaX || event.deltaY : event.deltaX;
    if (!event.target.closest(".plot") || Math.abs(along) < Math.abs(event.shiftKey ? 0 : event.deltaY) || !along) return;
    event.preventDefault();
    this.pan(Math.sign(along) * 0.1);
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
    if (!box || !(box.width > 0) || !(view.el.checkVisibility?.() ?? view.el.offsetParent)) return null;
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

  pan(share) {
    const { start, end } = this.time;
    this.zoom(start + share * (end - start), end + share * (end - start));
  }

  // -- data ----------------------------------------------------------------------------------------------------------

  line(name, title, values, base) {
    this.title(name, title);
    const x = Float64Array.from(values, (_, t) => t);
    this.model(`${name}.data`).data = { x, y: Float64Array.from(values), base: Float64Array.from(base) };
    this.limits(name, [...gatelens.ends(values), ...gatelens.ends(base)]);
  }

  // Bars on a scale from low <= 0 to high >= 0; `word` writes its ends.
  bars(name, title, values, error, [lowest, highest], word = gatelens.tick) {
    this.title(name, title);
    const x = Float64Array.from(values, (_, t) => t);
    const up = Float64Array.from(values, (value) => Math.max(value, 0));
    const down = Float64Array.from(values, (value) => Math.min(value, 0));
    const low = Float64Array.from(values, (value, t) => value - (error ? error[t] : 0));
    const high = Float64Array.from(values, (value, t) => value + (error ? error[t] : 0));
    this.model(`${name}.data`).data = { x, up, down, low, high };
    const size = highest - lowest || 1;
    const far = (tick) => Math.abs(tick) > 0.3 * size; // nearer ones would be written over the zero
    this.yTicks(name, lowest - 0.04 * size, highest + 0.04 * size, [lowest, highest].filter(far).concat(0), word);
  }

  limits(name, values) {
    let [low, high] = gatelens.ends(values);
    if (low > high) [low, high] = [0, 0]; // no number at all
    const room = 0.08 * (high - low) || Math.abs(low) || 1;
    this.yTicks(name, low - room, high + room, high > low ? [low, high] : [low]);
  }

  // The scale, and what is written beside it.
  yTicks(name, start, end, ticks, word = gatelens.tick) {
    this.model(`${name}.y`).setv({ start, end });
    this.rowLabels(name, ticks.map((tick) => [(end - tick) / (end - start), word(tick)]));
  }

  // Labels left of a panel, each at a share of its height from the top.
  rowLabels(name, labels) {
    document.querySelector(`[data-panel="${name}"] .rows`).replaceChildren(
      ...labels.map(([share, text, whole = text]) => {
        const label = document.createElement("span");
        label.textContent = text;
        label.title = whole;
        label.style.top = `${100 * share}%`;
        return label;
      }),
    );
  }

  title(name, text) {
    const title = document.querySelector(`[data-panel="${name}"] .title`);
    if (title) title.textContent = text;
  }

  // A map of rows x time; `at(row, t)` gives a number in -1..1 or 0..1, `tell(row, t)` what it stands for.
  map(name, rows, at, signed, labels, tell) {
    this.maps.set(name, { rows, at, signed, labels, tell });
    const height = this.views.get(name).model.height;
    const every = Math.ceil(rows / Math.max(1, Math.floor(height / 14)));
    const shown = Array.from({ length: Math.ceil(rows / every) }, (_, place) => place * every);
    const short = gatelens.shortNames(labels);
    this.rowLabels(name, shown.map((row) => [(row + 0.5) / rows, short[row], labels[row]]));
  }

  // The row of a map at a height of the window, or -1.
  rowAt(name, y) {
    const found = this.maps.get(name);
    const frame = this.frame(name);
    if (!found || !frame) return -1;
    const share = (y - frame.top) / frame.height;
    return share < 0 || share >= 1 ? -1 : Math.floor(share * found.rows);
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  // Lay out and draw without waiting for the next frame: a printer does not wait, and prints a canvas on which nothing
  // was drawn, that of Bokeh's overlays, as a white sheet over the other.
  now(printed) {
    for (const view of this.views.values()) view.invalidate_layout();
    this.paint();
    this.ticks();
    for (const view of this.views.values()) {
      for (const { model, glyph, all_indices: all } of view.renderer_views.values()) glyph?.set_visuals(model.data_source, all);
      view.canvas_view.overlays.el.style.display = printed ? "none" : "";
      view.request_paint();
      view.repaint();
    }
  }

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
    const width = frame ? frame.right - frame.left : 600;
    const word = (t) => (sample.tokens ? gatelens.short(sample.tokens[t]) : sample.labels[t]);
    const wide = this.labelWidth(sample, word);
    const room = Math.max(1, Math.floor(width / Math.max(90, wide + 16)));
    const every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000].find((n) => (end - start) / n <= room) || 20000;
    const ticks = [];
    const step = width / (this.time.end - this.time.start);
    const fits = end - Math.max(0, wide / 2 - 18 - (this.time.end - end) * step) / step; // a label ends with the panel
    const last = Math.max(start, Math.min(sample.length - 1, Math.floor(fits)));
    for (let t = Math.ceil(last - Math.floor((last - start) / every) * every); t <= last; t += every) ticks.push(t);
    if (!ticks.length && Math.ceil(start) <= end) ticks.push(Math.ceil(start));
    const labels = new Map(ticks.map((t) => [t, word(t)]));
    this.dots(step >= 8 ? 4 : 0);
    for (const name of this.views.keys()) {
      const axis = this.model(`${name}.x`);
      if (axis.visible) {
        axis.ticker.ticks = ticks;
        axis.major_label_overrides = labels;
      }
    }
  }

  // Readings are dots on the line where they stand apart; closer ones would only make it thick.
  dots(size) {
    for (const view of this.views.values()) {
      const dots = view.model.renderers.find(({ name }) => name?.endsWith(":dots"));
      if (dots && dots.glyph.size.value !== size) dots.glyph.size = { value: size };
    }
  }

  // How wide the widest of the labels below the panels is, in px.
  labelWidth(sample, word) {
    if (this.measured?.sample !== sample) {
      const pen = document.createElement("canvas").getContext("2d");
      pen.font = "12px system-ui, sans-serif";
      const longest = sample.labels.reduce((most, _, t) => (word(t).length > most.length ? word(t) : most), "");
      this.measured = { sample, width: pen.measureText(longest).width };
    }
    return this.measured.width;
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
      this.model(`${plot.name}.x`).major_label_text_color = roles.muted;
    }
    this.paint();
  }
};
