// A batch of inputs on its way through one activation function: where they fall, and how steep it is there.

const THRESHOLD = 0.1; // saturated: less than this share of the steepest slope, as in bnlab.saturation
const INPUTS = [-10, 10], BINS = 50, ROOM = 150;

const pass = ({ values }, { mean: shift, spread, activation }) => {
  const { f, slope, steepest } = ACTIVATIONS[activation];
  const inputs = values.map((v) => shift + spread * v);
  const outputs = inputs.map(f);
  const saturated = inputs.map((z) => slope(z) < THRESHOLD * steepest);
  return { inputs, outputs, saturated, mean_slope: mean(inputs.map(slope)), share: mean(saturated.map(Number)),
    output_mean: mean(outputs), output_std: Math.sqrt(variance(outputs)) };
};

// Two histograms in one: the saturated values in one colour stand on the others.
const stacked = (values, saturated, [low, high], width, top, title, ticks) => {
  const part = (wanted) => histogram(values.filter((_, i) => saturated[i] === wanted), low, high, BINS);
  const steep = part(false), flat = part(true), floor = top + ROOM - 24;
  const unit = (ROOM - 45) / Math.max(...steep.map((n, i) => n + flat[i]), values.length / 10);
  const w = width / BINS;
  const raised = flat.map((n, i) => n === 0 ? "" : `<rect x="${i * w + 0.5}" y="${floor - (steep[i] + n) * unit}"
    width="${w - 1}" height="${n * unit}" fill="var(--before)"/>`).join("");
  return `<text x="0" y="${top + 12}" class="title">${title}</text>
    ${bars(steep, width, floor, unit, "var(--after)")}${raised}${axis(low, high, ticks, width, floor)}`;
};

// The curve itself over the inputs, drawn between the top and the floor of the upper panel.
const curve = (f, width) => {
  const zs = Array.from({ length: 101 }, (_, i) => INPUTS[0] + (i / 100) * (INPUTS[1] - INPUTS[0]));
  const [low, high] = [Math.min(...zs.map(f)), Math.max(...zs.map(f))];
  const points = zs.map((z, i) => `${(i / 100) * width},${ROOM - 26 - ((f(z) - low) / (high - low)) * (ROOM - 50)}`);
  return `<polyline points="${points.join(" ")}" fill="none" stroke="currentColor" stroke-dasharray="4 3"/>`;
};

explorable("bn-saturation", {
  controls: {
    mean: { label: "input mean", min: -6, max: 6, step: 0.1, value: 0 },
    spread: { label: "input spread", min: 0.1, max: 6, step: 0.1, value: 1 },
    activation: { label: "activation", options: names("sigmoid", "tanh", "relu", "elu", "selu") },
  },
  height: 2 * ROOM + 10,
  hint: `Sigmoid, mean 0: raise the spread from 1 to 6 and watch the outputs pile up at the two ends. Then spread 1,
    and move the mean to 6. Which activations saturate on one side only? Which of the five does not care about
    the spread?`,
  view(parameters, settings, width) {
    const numbers = pass(parameters, settings);
    const { f } = ACTIVATIONS[settings.activation];
    const bounded = { sigmoid: [-0.04, 1.04, [0, 0.25, 0.5, 0.75, 1]],
      tanh: [-1.08, 1.08, [-1, -0.5, 0, 0.5, 1]] };
    const [low, high, ticks] = bounded[settings.activation] ?? [-3, 10, [-2, 0, 2, 4, 6, 8, 10]];
    const said = `mean slope ${show(numbers.mean_slope, 3)}, ${show(100 * numbers.share, 0)} % saturated`;
    return {
      numbers,
      picture: stacked(numbers.inputs, numbers.saturated, INPUTS, width, 0, "input z, and the curve (dashed)",
        [-8, -4, 0, 4, 8]) + curve(f, width)
        + stacked(numbers.outputs, numbers.saturated, [low, high], width, ROOM + 10, "output f(z)", ticks),
      label: `Two histograms of ${numbers.inputs.length} values, before and after ${ACTIVATIONS[settings.activation].name}: ${said}.`,
      sentence: `${ACTIVATIONS[settings.activation].name}: ${said} (the orange values). Output mean ${show(numbers.output_mean)},
        spread ${show(numbers.output_std)}.`,
    };
  },
});
