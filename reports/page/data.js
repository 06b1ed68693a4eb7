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

// Contributions of what is chosen, (D or 1, L). Methods that do not tell timesteps apart have one column, their sums.
gatelens.effects = function (state) {
  const { sample, explainer, outputStep } = state;
  const { length } = sample;
  const over = explainer === "over_time";
  const { values, shape } = sample.array(over ? "over_time" : `effect.${explainer}`);
  const rows = shape[shape.length - 2];
  if (over) return { values: values.subarray(outputStep * rows * length, (outputStep + 1) * rows * length), rows, length };
  if (sample.explainers[explainer].timed) return { values, rows, length };
  const sums = Float64Array.from({ length: rows }, (_, row) =>
    values.subarray(row * length, (row + 1) * length).reduce((all, one) => all + one, 0),
  );
  return { values: sums, rows, length: 1 };
};

// A row's contribution at a timestep, or over the whole sequence where timesteps are not told apart.
gatelens.effectAt = ({ values, length }, row, t) => values[row * length + (length > 1 ? t : 0)];

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

// The lowest and highest of finite numbers and of what they are to hold, e.g. 0.
gatelens.ends = function (values, low = Infinity, high = -low) {
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
};
