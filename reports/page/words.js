// Numbers as the page's words write them (wording.py has the same rules), and a timestep's name.
"use strict";
gatelens.MINUS = "\u2212";

// Decimals as Python writes them: what lies in the middle goes to the even neighbour.
gatelens.decimals = function (size, places) {
  const scaled = size * 10 ** places;
  const middle = scaled % 1 === 0.5 && Number.isInteger(size * 2 ** (places + 1)); // exactly, not by rounding
  return (middle && Math.floor(scaled) % 2 === 0 ? Math.floor(scaled) / 10 ** places : size).toFixed(places);
};

gatelens.number = function (value, { digits = 3, signed = false } = {}) {
  if (!Number.isFinite(value)) return "not a number";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size < 1e-4 || size >= 1e9) {
    const [mantissa, power] = size.toExponential(digits - 1).split("e");
    const exponent = Number(power);
    text = `${mantissa}e${exponent < 0 ? gatelens.MINUS : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  } else if (size >= 10 ** (digits - 1)) {
    text = gatelens.decimals(size, 0).replace(/\B(?=(\d{3})+$)/g, ",");
  } else {
    text = gatelens.decimals(size, Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
    if (text.includes(".")) text = text.replace(/0+$/, "").replace(/\.$/, "");
  }
  return (value < 0 ? gatelens.MINUS : signed ? "+" : "") + text;
};

gatelens.effect = function (value, sample) {
  if (!sample.percent) return `${gatelens.number(value, { signed: true })} ${sample.unit}`.trim();
  const points = value * 100;
  const size = Math.abs(points);
  const sign = points < 0 ? gatelens.MINUS : "+";
  if (size >= 9.95) return `${sign}${gatelens.decimals(size, 0)} points`;
  if (size >= 0.05) return `${sign}${gatelens.decimals(size, 1)} points`;
  return `${gatelens.number(points, { digits: 1, signed: true })} points`;
};

// Beside an axis there is room for few letters.
gatelens.tick = function (value, options) {
  if (Math.abs(value) < 1e6) return gatelens.number(value, options);
  const [mantissa, power] = Math.abs(value).toExponential(2).split("e");
  return `${value < 0 ? gatelens.MINUS : options?.signed ? "+" : ""}${mantissa}e${power}`;
};

gatelens.short = (text, most = 12) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);

// Short names of one list; those that begin alike keep their end, which tells them apart.
gatelens.shortNames = function (texts, most = 12) {
  const taken = texts.map((text) => gatelens.short(text, most));
  const alike = new Set(taken.filter((text, place) => taken.indexOf(text) !== place));
  const half = Math.floor(most / 2);
  return texts.map((text, place) =>
    alike.has(taken[place]) && text.length > most ? `${text.slice(0, most - half - 1)}\u2026${text.slice(-half)}` : taken[place],
  );
};

gatelens.featureName = function (sample, row) {
  const { name, unit } = sample.features[row];
  return unit ? `${name} (${unit})` : name;
};

gatelens.stepName = function (sample, t) {
  const label = sample.labels[t];
  const token = sample.tokens ? ` \u201c${sample.tokens[t]}\u201d` : "";
  return label === String(t + 1) ? `timestep ${label}${token}` : `${label} \u00b7 timestep ${t + 1}${token}`;
};
