// The loss along the gradient at one step of a recorded training run: batch norm beside one other network.
// Every line is the middle one of the seeds, every band reaches from the lowest to the highest.

const QUANTITIES = {
  loss: { name: "loss", log: true, at: (run, t, k) => run.loss[t][k], start: (run, t) => run.loss0[t] },
  gradient_distance: { name: "gradient distance", log: true, at: (run, t, k) => run.gradient_distance[t][k] },
  relative_distance: {
    name: "relative gradient distance", log: true, mark: 1,
    at: (run, t, k) => run.gradient_distance[t][k] / run.gradient_norm[t],
  },
  cosine: { name: "cosine of the two gradients", log: false, mark: 0, at: (run, t, k) => run.cosine[t][k] },
  beta: {
    name: "beta", log: true,
    at: (run, t, k, s) => run.gradient_distance[t][k] / (s * run.gradient_norm[t]),
  },
};
const NETWORKS = { standard: "standard", batchnorm: "batch norm", l1: "l1", l2: "l2", linf: "l∞" };
const FLOOR = 290, TOP = 30, MARGIN = 48;

// The quantity of one network at look `t`: for each s the lowest, middle and highest of the seeds.
const spread = ({ step_sizes }, runs, { at, start }, t) => {
  const columns = step_sizes.map((s, k) => runs.map((run) => at(run, t, k, s)));
  if (start) columns.unshift(runs.map((run) => start(run, t)));
  const sorted = columns.map((column) => column.sort((a, b) => a - b));
  const middle = (v) => (v[(v.length - 1) >> 1] + v[v.length >> 1]) / 2;
  return { low: sorted.map((v) => v[0]), middle: sorted.map(middle), high: sorted.map((v) => v.at(-1)) };
};

// The axis holds all but the wildest hundredth of what the whole training shows; beyond it, lines run along its edge.
const domain = (parameters, quantity) => {
  const all = parameters.steps.flatMap((_, t) => Object.values(parameters.networks).flatMap((runs) => {
    const { low, high } = spread(parameters, runs, quantity, t);
    return [...low, ...high];
  })).sort((a, b) => a - b);
  if (!quantity.log) return [-1, 1];
  const [low, high] = [all[Math.floor(0.005 * all.length)], all[Math.ceil(0.995 * all.length) - 1]].map(Math.log10);
  return [Math.floor(2 * low) / 2, Math.ceil(2 * high) / 2];
};

const digits = (v) => (Math.abs(v) >= 100 ? v.toFixed(0) : show(v, Math.abs(v) >= 10 ? 1 : 2));

explorable("bn-landscape", {
  controls: {
    step: { label: "training step", min: 0, max: 960, step: 40, value: 480, format: String },
    quantity: {
      label: "quantity", options: Object.fromEntries(Object.entries(QUANTITIES).map(([k, q]) => [k, q.name])),
    },
    network: {
      label: "compare with", options: { standard: "standard", l1: "l1 norm", l2: "l2 norm", linf: "l∞ norm" },
    },
  },
  height: 330,
  hint: `Move through the training with the arrow keys and watch the loss at s = 0.4. Then take beta: where does the
    standard network lie, and where the dashed line 1/s? Last, replace the standard network by one of the others.`,
  view(parameters, settings, width) {
    const quantity = QUANTITIES[settings.quantity], t = parameters.steps.indexOf(settings.step);
    const ticks = [...(quantity.start ? [0] : []), ...parameters.step_sizes];
    const [floor, ceiling] = domain(parameters, quantity);
    const x = (i) => MARGIN + 14 + (i / (ticks.length - 1)) * (width - MARGIN - 130);
    const y = (v) => {
      const place = ((quantity.log ? Math.log10(v) : v) - floor) / (ceiling - floor);
      return FLOOR - Math.min(1, Math.max(0, place)) * (FLOOR - TOP);
    };
    const shown = [settings.network, "batchnorm"].map((name) => ({
      name, color: name === "batchnorm" ? "var(--after)" : "var(--before)",
      ...spread(parameters, parameters.networks[name], quantity, t),
    }));
    const points = (values) => values.map((v, i) => `${x(i)},${y(v)}`);
    const curves = shown.map(({ color, low, middle, high }) => `
      <polygon points="${[...points(low), ...points(high).reverse()].join(" ")}" fill="${color}" opacity="0.25"/>
      <polyline points="${points(middle).join(" ")}" fill="none" stroke="${color}" stroke-width="2"/>`);
    const ends = shown.map(({ middle }) => y(middle.at(-1)));
    if (Math.abs(ends[0] - ends[1]) < 16) {
      const centre = (ends[0] + ends[1]) / 2, up = ends[0] <= ends[1] ? 8 : -8;
      [ends[0], ends[1]] = [centre - up, centre + up];
    }
    const names = shown.map(({ name, color }, i) => `<text x="${x(ticks.length - 1) + 8}" y="${ends[i] + 4}"
      style="fill: ${color}; font-weight: bold">${NETWORKS[name]}</text>`);
    const levels = quantity.log
      ? Array.from({ length: Math.floor(ceiling) - Math.ceil(floor) + 1 }, (_, i) => 10 ** (Math.ceil(floor) + i))
      : [-1, -0.5, 0, 0.5, 1];
    const grid = levels.map((v) => `<path d="M${MARGIN} ${y(v)}H${width - 100}" stroke="currentColor"
      opacity="${v === quantity.mark ? 0.8 : 0.2}"/><text x="${MARGIN - 6}" y="${y(v) + 4}"
      text-anchor="end">${String(Number(v.toPrecision(6))).replace("-", "−")}</text>`);
    const inverse = settings.quantity !== "beta" ? "" : `<polyline fill="none" stroke="currentColor"
      stroke-dasharray="5 4" points="${ticks.map((s, i) => `${x(i)},${y(1 / s)}`).join(" ")}"/>
      <text x="${x(0) + 10}" y="${y(1 / ticks[0]) - 14}">1/s, and 2/lr = ${show(2 / parameters.lr, 0)} at its left end</text>`;
    const numbers = { ticks, shown: Object.fromEntries(shown.map(({ name, low, middle, high }) =>
      [name, { low, middle, high }])) };
    const at = (s) => shown.map(({ name, low, middle, high }) => {
      const i = ticks.indexOf(s);
      return `${NETWORKS[name]} ${digits(middle[i])} (${digits(low[i])} to ${digits(high[i])})`;
    }).join(", ");
    const last = ticks.at(-1);
    const said = `Training step ${settings.step}, ${quantity.name}. At s = ${parameters.lr}, the step that training takes:
      ${at(parameters.lr)}. At s = ${last}: ${at(last)}`;
    return {
      numbers,
      picture: `<text x="0" y="14" class="title">${quantity.name}</text>${grid.join("")}${inverse}${curves.join("")}
        ${names.join("")}${ticks.map((s, i) => `<text x="${x(i)}" y="${FLOOR + 18}" text-anchor="middle">${s}</text>`).join("")}
        <text x="${x(0)}" y="${FLOOR + 36}">step size s along the gradient</text>`,
      label: `Two lines over the step size. ${said}.`,
      sentence: `${said}. Middle of the seeds, and in brackets the lowest and the highest.`,
    };
  },
});
