// Colours of the theme, from the page's own CSS: roles for lines and bars, scales of 256 for maps.
"use strict";
gatelens.palette = function () {
  const style = getComputedStyle(document.documentElement);
  const roles = {};
  for (const role of ["paper", "ink", "muted", "rule", "raises", "lowers", "accent", "gate"]) {
    roles[role] = style.getPropertyValue(`--${role}`).trim();
  }
  const rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
  const scale = (...stops) => {
    const colours = stops.map(rgb);
    const result = new Uint32Array(256);
    for (let level = 0; level < 256; level++) {
      const place = (level / 255) * (colours.length - 1);
      const low = Math.min(Math.floor(place), colours.length - 2);
      const [r, g, b] = colours[low].map((one, part) => Math.round(one + (colours[low + 1][part] - one) * (place - low)));
      result[level] = (255 << 24) | (b << 16) | (g << 8) | r;
    }
    return result;
  };
  return {
    roles,
    signed: scale(roles.lowers, roles.paper, roles.raises), // zero is the paper in both themes
    sequential: scale(roles.paper, roles.gate),
  };
};
