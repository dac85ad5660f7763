// The learning-rate race of chapter 11: mean accuracy over seeds and its 95 % interval, two networks in colour.

const NAMES = { batchnorm: "batch norm", standard: "none (ReLU)", l1: "l1 batch norm", l2: "l2 batch norm",
  linf: "l∞ batch norm", ghost: "ghost batch norm", layernorm: "layer norm", groupnorm: "group norm",
  instancenorm: "instance norm", rmsnorm: "RMS norm", weightnorm: "weight norm", dynamictanh: "dynamic tanh",
  elu: "ELU, no norm", selu: "SELU, no norm" };
const { standard, ...REST } = NAMES;
const TOP = 46, BOTTOM = 268, MARGIN = 34;

// Mean over seeds and the Student-t interval around it.
const interval95 = (values, t) => {
  const m = mean(values), n = values.length;
  const half = t * Math.sqrt(variance(values) / (n - 1));
  return { mean: m, low: m - half, high: m + half };
};

const rateName = (v) => String(Number(v.toPrecision(2)));

explorable("bn-race", {
  controls: {
    batch: { label: "batch size", options: Object.fromEntries([32, 4, 256].map((n) => [`${n} images`, `${n} images`])) },
    first: { label: "in blue", options: NAMES },
    second: { label: "in orange", options: { standard, ...REST } },
    log_rate: { label: "learning rate", min: -2.5, max: 0.5, step: 0.5, value: -1, format: (v) => rateName(10 ** v) },
  },
  height: 310,
  hint: `Move the learning rate to the right until the orange network fails. Which networks still train there? Then
    change the batch size: does the order stay? Last, lay two networks over each other whose bands you expect to
    part, such as batch and group norm at batches of 4.`,
  view({ networks, batch_sizes, learning_rates, t, accuracy }, { batch, first, second, log_rate }, width) {
    const runs = accuracy[batch_sizes.indexOf(parseInt(batch))]; // network, learning rate, seed
    const curves = Object.fromEntries(networks.map((name, i) => [name, runs[i].map((v) => interval95(v, t))]));
    const logs = learning_rates.map(Math.log10);
    const at = logs.reduce((best, v, i) => (Math.abs(v - log_rate) < Math.abs(logs[best] - log_rate) ? i : best), 0);
    const best = (name) => curves[name].reduce((b, v, i, all) => (v.mean > all[b].mean ? i : b), 0);
    const order = [...networks].sort((a, b) => curves[b][at].mean - curves[a][at].mean);
    const numbers = { learning_rate: learning_rates[at], first: curves[first][at], second: curves[second][at],
      first_best: learning_rates[best(first)], second_best: learning_rates[best(second)], leader: order[0] };

    const x = (i) => MARGIN + ((logs[i] - logs[0]) / (logs.at(-1) - logs[0])) * (width - MARGIN - 16);
    const y = (v) => BOTTOM - (Math.min(100, Math.max(0, v)) / 90) * (BOTTOM - TOP);
    const path = (name, key) => curves[name].map((v, i) => `${x(i)},${y(v[key])}`);
    const grid = [0, 20, 40, 60, 80].map((v) => `<path d="M${MARGIN} ${y(v)}H${width}" stroke="currentColor" opacity="0.2"/>
      <text x="${MARGIN - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("");
    const rates = logs.map((_, i) => `<text x="${x(i)}" y="${BOTTOM + 18}" text-anchor="middle"
      >${rateName(learning_rates[i])}</text>`).join("");
    const others = networks.map((name) => `<polyline points="${path(name, "mean").join(" ")}" fill="none"
      stroke="currentColor" opacity="0.4"/>`).join("");
    const drawn = (name, color) => `<polygon points="${[...path(name, "low"), ...path(name, "high").reverse()].join(" ")}"
      fill="${color}" opacity="0.25"/><polyline points="${path(name, "mean").join(" ")}" fill="none" stroke="${color}"
      stroke-width="2.5"/><circle cx="${x(at)}" cy="${y(curves[name][at].mean)}" r="4.5" fill="${color}"/>`;
    const key = (name, color, left) => `<rect x="${left}" y="22" width="12" height="12" fill="${color}"/>
      <text x="${left + 17}" y="33">${NAMES[name]}</text>`;

    const say = (name) => `${NAMES[name]} ${show(curves[name][at].mean, 1)} % (95 % interval
      ${show(curves[name][at].low, 1)} to ${show(curves[name][at].high, 1)}; own best
      ${show(curves[name][best(name)].mean, 1)} % at ${rateName(learning_rates[best(name)])})`;
    const said = `Batches of ${batch}, learning rate ${rateName(learning_rates[at])}: ${say(first)}, ${say(second)}.
      Ahead of all fourteen here: ${order.slice(0, 3).map((name) => NAMES[name]).join(", ")}`.replace(/\s+/g, " ");
    return {
      numbers,
      picture: `<text x="0" y="12" class="title">test accuracy, %, against learning rate</text>
        ${grid}<path d="M${x(at)} ${TOP}V${BOTTOM}" stroke="currentColor" stroke-dasharray="3 3" opacity="0.6"/>
        ${others}${drawn(second, "var(--before)")}${drawn(first, "var(--after)")}
        ${key(first, "var(--after)", MARGIN)}${key(second, "var(--before)", MARGIN + 150)}${rates}
        <text x="${width}" y="${BOTTOM + 36}" text-anchor="end">learning rate; gray: the others</text>`,
      label: `Accuracy against learning rate, fourteen lines, two of them coloured with bands. ${said}.`,
      sentence: `${said}.`,
    };
  },
});
