// Every picture as a table, made when it is opened: the numbers the picture is drawn from.
"use strict";
gatelens.Tables = class {
  constructor(state, panels) {
    this.state = state;
    this.panels = panels;
    this.all = [...document.querySelectorAll("details[data-table]")];
    for (const details of this.all) details.addEventListener("toggle", () => details.open && this.fill(details));
  }

  refresh() {
    for (const details of this.all) if (details.open) this.fill(details);
  }

  fill(details) {
    const { head, rows } = this.content(details.dataset.table);
    const table = document.createElement("table");
    table.className = "data";
    const header = table.createTHead().insertRow();
    for (const text of head) {
      const cell = document.createElement("th");
      cell.scope = "col";
      cell.textContent = text;
      header.append(cell);
    }
    gatelens.fill(table.createTBody(), rows);
    details.querySelector(".scroll").replaceChildren(table);
  }

  content(name) {
    const { sample } = this.state;
    const steps = sample.labels.map((_, t) => t);
    const line = (t, cells) => [gatelens.stepName(sample, t), ...cells];
    const effect = (value) => gatelens.number(value, { digits: 4, signed: true });
    if (name === "inputs") {
      const shown = sample.features.map((_, row) => row);
      const head = ["Timestep", ...shown.map((row) => gatelens.featureName(sample, row))];
      return { head, rows: steps.map((t) => line(t, shown.map((row) => gatelens.number(sample.row("inputs", row)[t], { digits: 4 })))) };
    }
    if (name === "steps") {
      const timed = sample.explainers.map((one, key) => ({ ...one, key })).filter((one) => one.timed);
      const courses = timed.map(({ key }) => gatelens.summed(gatelens.effects({ ...this.state, explainer: key })));
      const rows = steps.map((t) => line(t, courses.map((course) => effect(course[t]))));
      return { head: ["Timestep", ...timed.map((one) => one.label)], rows };
    }
    if (name === "heat") {
      const effects = gatelens.effects(this.state);
      const names = effects.rows === sample.features.length ? sample.features.map((one) => one.name) : ["all features"];
      const cells = (t) => names.map((_, row) => effect(gatelens.effectAt(effects, row, t)));
      const rows = this.state.course ? steps.map((t) => line(t, cells(t))) : [["whole sequence", ...cells(0)]];
      return { head: ["Timestep", ...names], rows };
    }
    if (name === "gates") {
      return {
        head: ["Timestep", ...gatelens.GATE_WORDS.slice(0, 4)],
        rows: steps.map((t) => line(t, [0, 1, 2, 3].map((gate) => effect(sample.row(`gates.${this.state.layer}`, gate)[t])))),
      };
    }
    const layer = sample.layers[this.state.layer];
    const count = Math.min(this.state.units, layer.order.length);
    const at = gatelens.drawn(this.state, name);
    const text = (unit, t) => gatelens.number(at(unit, t) * layer.scales[name]);
    const units = Array.from({ length: count }, (_, unit) => unit);
    return {
      head: ["Timestep", ...units.map((unit) => `#${layer.order[unit]}`)],
      rows: steps.map((t) => line(t, units.map((unit) => text(unit, t)))),
    };
  }
};
