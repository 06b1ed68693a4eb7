// The numbers of the page: packs are inflated when they are first needed (payload.py says how they are laid out).
"use strict";
const gatelens = {};

gatelens.inflate = async function (text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
};

// One sample: its header, and `array(name)` -> {values, shape}; rows of 8 bits are summed up along time once.
gatelens.Sample = class {
  constructor(buffer) {
    const size = new DataView(buffer).getUint32(0, true);
    Object.assign(this, JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size))));
    this.buffer = buffer;
    this.start = 4 + size;
    this.found = new Map();
  }

  has(name) {
    return name in this.arrays;
  }

  array(name) {
    if (!this.found.has(name)) {
      const { type, shape, offset } = this.arrays[name];
      const count = shape.reduce((all, one) => all * one, 1);
      const kind = type === "u1" ? Uint8Array : Float32Array;
      const values = new kind(this.buffer, this.start + offset, count);
      if (type === "u1") {
        const length = shape[shape.length - 1];
        for (let at = 0; at < count; at++) if (at % length) values[at] += values[at - 1];
      }
      this.found.set(name, { values, shape });
    }
    return this.found.get(name);
  }

  // A row of a float array, at the last axis.
  row(name, ...index) {
    const { values, shape } = this.array(name);
    const length = shape[shape.length - 1];
    const at = index.reduce((all, one, axis) => all * shape[axis] + one, 0);
    return values.subarray(at * length, (at + 1) * length);
  }
};

// Contributions of what is chosen, (D or 1, L), summed over features, and the most that any timestep has.
gatelens.effects = function (state) {
  const { sample, explainer, outputStep } = state;
  const over = explainer === "over_time";
  const { values, shape } = sample.array(over ? "over_time" : `effect.${explainer}`);
  const rows = shape[shape.length - 2];
  const length = sample.length;
  const part = over ? values.subarray(outputStep * rows * length, (outputStep + 1) * rows * length) : values;
  return { values: part, rows, length };
};

gatelens.summed = function ({ values, rows, length }) {
  const sums = new Float64Array(length);
  for (let row = 0; row < rows; row++) for (let t = 0; t < length; t++) sums[t] += values[row * length + t];
  return sums;
};

gatelens.largest = function (values) {
  let most = 0;
  for (const value of values) most = Math.max(most, Math.abs(value));
  return most;
};
