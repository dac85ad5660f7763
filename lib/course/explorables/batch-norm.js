// One unit's batch before and after batch normalization ([1] Alg. 1 in training, Alg. 2 in test mode).

const MOMENTUM = 0.1;
const LOW = -9, HIGH = 9, BINS = 60, ROW = 130;

const transform = ({ values }, { shift, scale, gamma, beta, log_eps, steps, mode }) => {
  const before = values.map((u) => shift + scale * u);
  const m = before.length, eps = 10 ** log_eps;
  const batch_mean = mean(before), batch_var = variance(before);
  // After `steps` updates on such batches, from the initial values 0 and 1; the stored variance is unbiased.
  const old = (1 - MOMENTUM) ** steps;
  const running_mean = (1 - old) * batch_mean;
  const running_var = old + (1 - old) * batch_var * m / (m - 1);
  const [mu, v] = mode === "train" ? [batch_mean, batch_var] : [running_mean, running_var];
  const after = before.map((x) => gamma * (x - mu) / Math.sqrt(v + eps) + beta);
  return { before, after, batch_mean, batch_std: Math.sqrt(batch_var), running_mean, running_var,
    output_mean: mean(after), output_std: Math.sqrt(variance(after)) };
};

const panel = (values, width, top, color, title) => {
  const counts = histogram(values, LOW, HIGH, BINS);
  const unit = (ROW - 45) / Math.max(12, ...counts);
  const beyond = values.filter((v) => v < LOW || v >= HIGH).length;
  return `<text x="0" y="${top + 12}" class="title">${title}</text>
    ${beyond ? `<text x="${width}" y="${top + 12}" text-anchor="end">${beyond} values beyond the axis</text>` : ""}
    ${bars(counts, width, top + ROW - 24, unit, color)}
    ${axis(LOW, HIGH, [-8, -6, -4, -2, 0, 2, 4, 6, 8], width, top + ROW - 24)}`;
};

explorable("bn-batch-norm", {
  controls: {
    shift: { label: "input shift", min: -4, max: 4, step: 0.1, value: 2 },
    scale: { label: "input scale", min: 0.1, max: 3, step: 0.1, value: 1.5 },
    gamma: { label: "gamma (γ)", min: 0, max: 3, step: 0.1, value: 1 },
    beta: { label: "beta (β)", min: -4, max: 4, step: 0.1, value: 0 },
    log_eps: { label: "epsilon (ε)", min: -5, max: 0, step: 0.5, value: -5,
      format: (v) => show(10 ** v, Math.ceil(-v)) },
    mode: { label: "mode", options: { train: "training (this batch)", test: "test (running statistics)" } },
    steps: { label: "steps trained", min: 0, max: 60, step: 1, value: 5, format: String },
  },
  height: 2 * ROW + 10,
  hint: `Move the input shift and scale: in training mode the lower histogram does not move. Set the scale to 0.1
    and raise ε to 1: now the output shrinks. Switch to test mode, and give the running statistics more steps.`,
  view(parameters, settings, width) {
    const numbers = transform(parameters, settings);
    const moments = (name) => `mean ${show(numbers[`${name}_mean`])}, standard deviation ${show(numbers[`${name}_std`])}`;
    const running = `running mean ${show(numbers.running_mean)}, running variance ${show(numbers.running_var)}`;
    return {
      numbers,
      picture: panel(numbers.before, width, 0, "var(--before)", "before")
        + panel(numbers.after, width, ROW + 10, "var(--after)", "after"),
      label: `Two histograms of ${numbers.before.length} values: before with ${moments("batch")}; after with ${moments("output")}.`,
      sentence: `Before: ${moments("batch")}. After: ${moments("output")}.` +
        (settings.mode === "test" ? ` Used: ${running}.` : ""),
    };
  },
});
