// The table beside the panels: what the cursor's timestep holds. Rows are made once for what is chosen; moving the
// cursor only writes numbers.
"use strict";
gatelens.QUANTITIES = ["input_gate", "forget_gate", "candidate", "output_gate", "cell_state", "flow"];
gatelens.GATE_WORDS = ["Input gate", "Forget gate", "Candidate", "Output gate", "Cell state", "Memory flow"];

gatelens.fill = function (body, rows) {
  body.replaceChildren(
    ...rows.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((cell, index) => {
        const one = document.createElement(index ? "td" : "th");
        if (!index) one.scope = "row";
        one.textContent = cell;
        row.append(one);
      });
      return row;
    }),
  );
};

gatelens.Sheet = class {
  constructor(state) {
    this.state = state;
    this.features = document.querySelector("#sheet-features tbody");
    this.units = document.querySelector("#sheet-units tbody");
    this.most = 12;
  }

  // The rows: features by their effect over the whole sequence, then units by rank.
  rebuild() {
    const { sample } = this.state;
    const effects = gatelens.effects(this.state);
    const apart = effects.rows > 1;
    const totals = Array.from({ length: effects.rows }, (_, row) => {
      const part = effects.values.subarray(row * effects.length, (row + 1) * effects.length);
      return part.reduce((all, one) => all + Math.abs(one), 0);
    });
    const ranked = totals.map((_, row) => row).sort((one, two) => totals[two] - totals[one]);
    this.rows = apart ? ranked.slice(0, this.most) : sample.features.map((_, row) => row).slice(0, this.most);
    this.apart = apart;
    this.effects = effects;
    this.sums = gatelens.summed(effects);
    const lines = sample.tokens && !apart ? [["token", "", ""]] : this.rows.map((row) => [gatelens.featureName(sample, row), "", ""]);
    const heading = this.features.closest("table").tHead.rows[0].cells[2];
    heading.textContent = this.state.course ? "Effect" : "Effect of the whole sequence";
    const left = effects.rows - this.rows.length;
    if (apart && left > 0) lines.push([`${left} more, together`, "", ""]);
    lines.push(["all", "", ""]);
    gatelens.fill(this.features, lines);
    const layer = sample.layers[this.state.layer];
    this.units?.closest("table").toggleAttribute("hidden", !layer);
    if (layer && this.units) {
      const { shape } = sample.array(`exact.${this.state.layer}`);
      this.count = shape[0];
      gatelens.fill(
        this.units,
        Array.from({ length: this.count }, (_, unit) => [`#${layer.order[unit]}`, ...gatelens.QUANTITIES.map(() => "")]),
      );
    }
  }

  show() {
    const { sample, t, layer } = this.state;
    document.querySelector("#sheet-step").textContent = gatelens.stepName(sample, t);
    const rows = [...this.features.rows];
    let told = 0;
    this.rows.forEach((feature, place) => {
      const cells = rows[place]?.cells;
      if (!cells) return;
      if (sample.has("inputs")) cells[1].textContent = gatelens.number(sample.row("inputs", feature)[t], { digits: 4 });
      else cells[1].textContent = sample.tokens ? sample.tokens[t] : "withheld";
      if (!this.apart) return;
      const value = gatelens.effectAt(this.effects, feature, t);
      told += value;
      this.write(cells[2], value);
    });
    const whole = this.sums[this.sums.length > 1 ? t : 0];
    if (this.apart && rows.length > this.rows.length + 1) this.write(rows[this.rows.length].cells[2], whole - told);
    this.write(rows[rows.length - 1].cells[2], whole);
    if (!sample.layers[layer] || !this.units) return;
    for (let unit = 0; unit < this.count; unit++) {
      gatelens.QUANTITIES.forEach((_, quantity) => {
        const value = sample.row(`exact.${layer}`, unit, quantity)[t];
        this.units.rows[unit].cells[quantity + 1].textContent = Number.isNaN(value) ? "" : gatelens.number(value);
      });
    }
  }

  write(cell, value) {
    cell.textContent = gatelens.effect(value, this.state.sample);
    const side = value > 0 ? "raises" : value < 0 ? "lowers" : "";
    if (cell.className !== side) cell.className = side;
  }
};
