// One cursor through all panels: a single element that is moved, so that no canvas is drawn again. It follows the
// pointer and the native slider, whose keys (arrows, Home, End) are the keyboard's way; the slider speaks its value.
"use strict";
gatelens.Cursor = class {
  constructor(state, panels) {
    this.state = state;
    this.panels = panels;
    this.line = document.querySelector(".cursor");
    this.host = document.querySelector(".panels");
    this.slider = document.querySelector("#step");
    this.slider.addEventListener("input", () => this.set(Number(this.slider.value), true));
    this.host.addEventListener("pointermove", (event) => this.follow(event));
    this.host.addEventListener("pointerdown", (event) => this.follow(event));
    for (const token of document.querySelectorAll("[data-step]")) {
      token.addEventListener("click", () => this.set(Number(token.dataset.step), true));
    }
  }

  follow(event) {
    const frame = this.panels.anyFrame();
    if (!frame || !event.target.closest(".plot")) return;
    const { start, end } = this.panels.time;
    const share = (event.clientX - frame.left) / (frame.right - frame.left);
    if (share < 0 || share > 1) return;
    this.pointed = { name: event.target.closest("[data-panel]").dataset.panel, y: event.clientY };
    this.set(Math.round(start + share * (end - start)), false);
  }

  set(t, spoken) {
    const last = this.state.sample.length - 1;
    this.state.t = Math.max(0, Math.min(last, t));
    if (spoken) this.pointed = null;
    if (spoken) this.reveal();
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.show(false);
      this.onchange?.();
    });
  }

  // Bring the step into view where the panels are zoomed in.
  reveal() {
    const { start, end } = this.panels.time;
    const { t } = this.state;
    if (t < start || t > end) this.panels.zoom(t - (end - start) / 2, t + (end - start) / 2);
  }

  // A live text tells what was chosen; the slider speaks for itself, and the pointer's way is not read out.
  show(live = true) {
    const { sample, t } = this.state;
    this.slider.max = sample.length - 1;
    this.slider.value = t;
    const { start, end } = this.panels.time;
    const frame = this.panels.anyFrame();
    const share = (t - start) / (end - start);
    this.line.hidden = !frame || share < 0 || share > 1;
    if (frame) {
      const left = frame.left - this.host.getBoundingClientRect().left + share * (frame.right - frame.left);
      this.line.style.transform = `translateX(${left}px)`;
    }
    const { course, label } = this.state;
    const name = gatelens.stepName(sample, t);
    const text = course ? `${name}: ${gatelens.effect(course[t], sample)}` : name;
    this.slider.setAttribute("aria-valuetext", course ? `${text} (${label})` : text);
    const readout = document.querySelector("#readout");
    const manner = live ? "polite" : "off";
    if (readout.getAttribute("aria-live") !== manner) readout.setAttribute("aria-live", manner);
    readout.textContent = text + this.cell();
  }

  // What the map under the pointer holds there.
  cell() {
    if (!this.pointed) return "";
    const { name, y } = this.pointed;
    const row = this.panels.rowAt(name, y);
    if (row < 0) return "";
    const { labels, tell } = this.panels.maps.get(name);
    return ` \u00b7 ${labels[row]} ${tell(row, this.state.t)}`;
  }
};
