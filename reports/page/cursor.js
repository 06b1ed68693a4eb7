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
    this.set(Math.round(start + share * (end - start)), false);
  }

  set(t, spoken) {
    const last = this.state.sample.length - 1;
    this.state.t = Math.max(0, Math.min(last, t));
    if (spoken) this.reveal();
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.show();
      this.onchange?.();
    });
  }

  // Bring the step into view where the panels are zoomed in.
  reveal() {
    const { start, end } = this.panels.time;
    const { t } = this.state;
    if (t < start || t > end) this.panels.zoom(t - (end - start) / 2, t + (end - start) / 2);
  }

  show() {
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
    const effect = gatelens.effect(this.state.course[t], sample);
    const text = `${gatelens.stepName(sample, t)}: ${effect}`;
    this.slider.setAttribute("aria-valuetext", `${text} (${this.state.label})`);
    document.querySelector("#readout").textContent = text;
  }
};
