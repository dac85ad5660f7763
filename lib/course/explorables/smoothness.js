// Two definitions to touch: the steepest chord of f and of its slope f', and a gradient step with its promise.

const DOMAIN = [-3, 3], PLOT = 190;

const FUNCTIONS = {
  abs: { name: "|x|", f: Math.abs, slope: Math.sign, values: [-1, 4], slopes: [-2, 2] },
  hinge: { name: "hinge", f: (x) => Math.max(0, 1 - x), slope: (x) => (x < 1 ? -1 : 0),
    values: [-1, 4], slopes: [-2, 2] },
  square: { name: "x²", f: (x) => x * x, slope: (x) => 2 * x, values: [-2, 10], slopes: [-7, 7] },
  softplus: { name: "softplus", f: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
    slope: (x) => 1 / (1 + Math.exp(-x)), values: [-1, 4], slopes: [-0.5, 1.5] },
  wave: { name: "wave", f: (x) => Math.sin(3 * x) / 3 + x * x / 10, slope: (x) => Math.cos(3 * x) + x / 5,
    values: [-1, 2], slopes: [-2, 2] },
};

// A quotient of differences; there is none between a point and itself.
const quotient = (g, x, y) => (x === y ? null : Math.abs(g(x) - g(y)) / Math.abs(x - y));

const measure = (parameters, { name, x, y, beta, step }) => {
  const { f, slope } = FUNCTIONS[name];
  const of_values = quotient(f, x, y), of_slopes = quotient(slope, x, y);
  // The largest so far belongs to this copy of the figure and to this function.
  const best = ((parameters.largest ??= {})[name] ??= { values: 0, slopes: 0 });
  best.values = Math.max(best.values, of_values);
  best.slopes = Math.max(best.slopes, of_slopes);
  const gradient = slope(x), landing = x - step * gradient;
  const promised = step * (1 - step * beta / 2) * gradient ** 2, came = f(x) - f(landing);
  return { value: f(x), gradient, of_values, of_slopes, largest_values: best.values, largest_slopes: best.slopes,
    landing, promised, came, kept: came >= promised - 1e-12 };
};

// A panel with axes of its own at height `top`; `draw` gets the two scales and returns what is clipped to it.
const panel = (title, [low, high], width, top, draw) => {
  const left = 30, across = width - left, tall = PLOT - 45;
  const h = (v) => ((v - DOMAIN[0]) / (DOMAIN[1] - DOMAIN[0])) * across;
  const v = (value) => (1 - (value - low) / (high - low)) * tall;
  const marks = [low, (low + high) / 2, high].map((t) => `<text x="${left - 5}" y="${top + 24 + v(t)}"
    text-anchor="end">${String(t).replace("-", "−")}</text>`);
  return `<text x="0" y="${top + 12}" class="title">${title}</text>${marks.join("")}
    <svg x="${left}" y="${top + 20}" width="${across}" height="${tall + 1}" style="margin: 0; overflow: hidden">
      <path d="M0 ${v(0)}H${across}" stroke="currentColor" opacity="0.3"/>${draw(h, v)}</svg>
    <g transform="translate(${left} 0)">${axis(...DOMAIN, [-2, -1, 0, 1, 2], across, top + 20 + tall)}</g>`;
};

const polyline = (points, look) =>
  `<polyline points="${points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ")}" fill="none" ${look}/>`;
const dot = (x, y, color, r = 5) => `<circle cx="${x}" cy="${y}" r="${r}" fill="${color}"/>`;

// The curve of g on the domain; a jump of a slope is left open.
const curve = (g, h, v) => {
  const xs = Array.from({ length: 301 }, (_, i) => DOMAIN[0] + i / 50);
  const pieces = [[]];
  xs.forEach((x, i) => {
    if (i && Math.abs(g(x) - g(xs[i - 1])) > 0.5) pieces.push([]);
    pieces.at(-1).push([h(x), v(g(x))]);
  });
  return pieces.map((p) => polyline(p, 'stroke="currentColor" stroke-width="2"')).join("");
};

const chord = (g, { x, y }, h, v) => polyline([[h(x), v(g(x))], [h(y), v(g(y))]],
  'stroke="var(--before)" stroke-width="2.5"') + dot(h(x), v(g(x)), "var(--before)") + dot(h(y), v(g(y)), "var(--before)");

// f(x) + f'(x) (z - x) + beta / 2 (z - x)², which a beta-smooth f never exceeds, and the step.
const promise = (f, { x, beta }, { value, gradient, landing }, h, v) => {
  const bound = (z) => value + gradient * (z - x) + beta / 2 * (z - x) ** 2;
  const zs = Array.from({ length: 121 }, (_, i) => DOMAIN[0] + i / 20);
  return polyline(zs.map((z) => [h(z), v(bound(z))]), 'stroke="var(--after)" stroke-dasharray="5 4" stroke-width="2"')
    + `<path d="M${h(landing)} ${v(bound(landing))}V${v(f(landing))}" stroke="var(--after)"/>`
    + dot(h(landing), v(f(landing)), "var(--after)", 6);
};

explorable("bn-smoothness", {
  controls: {
    name: { label: "function", options: Object.fromEntries(Object.entries(FUNCTIONS).map(([k, f]) => [k, f.name])) },
    x: { label: "point x", min: -3, max: 3, step: 0.01, value: -1 },
    y: { label: "point y", min: -3, max: 3, step: 0.01, value: 1.5 },
    step: { label: "step length η", min: 0, max: 3, step: 0.01, value: 0.5 },
    beta: { label: "β you claim", min: 0, max: 20, step: 0.05, value: 1 },
  },
  height: 2 * PLOT + 10,
  hint: `Hinge: bring x and y close together, one on each side of 1, and read the quotient of the slopes; then claim a β
    that keeps its promise for every x and η. Can you? Now x²: move both points outwards. Then claim β = 2,
    put x at 2, and lengthen the step past 1/β = 0.5 and 2/β = 1. What does the promise say there, and what came?`,
  view(parameters, settings, width) {
    const { f, slope, name, values, slopes } = FUNCTIONS[settings.name];
    const numbers = measure(parameters, settings);
    const { of_values, of_slopes, largest_values, largest_slopes, landing, promised, came, kept } = numbers;
    const quotients = of_values === null
      ? "x and y coincide: no quotient."
      : `Between x and y the quotient of values is ${show(of_values)}, that of slopes ${show(of_slopes)}.`;
    const change = came >= 0 ? `falls by ${show(came, 3)}` : `rises by ${show(-came, 3)}`;
    const said = `${name}. ${quotients} Largest so far: ${show(largest_values)} and ${show(largest_slopes)}.
      A step of ${show(settings.step)} leads from ${show(settings.x)} to ${show(landing)}; the function ${change}.
      β = ${show(settings.beta)} promises ${promised >= 0 ? "a fall of at least" : "a rise of at most"}
      ${show(Math.abs(promised), 3)}: ${kept ? "kept" : "broken"}.`;
    return {
      numbers,
      picture: panel("f and its chord; dashed: the bound of β; the step", values, width, 0,
        (h, v) => curve(f, h, v) + promise(f, settings, numbers, h, v) + chord(f, settings, h, v))
        + panel("the slope f′ and its chord", slopes, width, PLOT + 5,
          (h, v) => curve(slope, h, v) + chord(slope, settings, h, v)),
      label: `Two curves, the function and its slope, each with a chord between x and y. ${said}`,
      sentence: said,
    };
  },
});
