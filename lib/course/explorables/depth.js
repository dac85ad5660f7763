// How spread and gradient pass through the layers of a wide random network, by the recursion of chapter 1:
// q -> w² E[f(√q z)²] going up, and a factor w² E[f'(√q z)²] for the mean square gradient coming down.

const ROOM = 150, LEFT = 46;

const recursion = ({ nodes, weights }, { activation, log_scale, depth }) => {
  const { f, slope } = ACTIVATIONS[activation];
  const w2 = 4 ** log_scale; // the square of the weight scale, which is 2 to the power log_scale
  const expectation = (g) => nodes.reduce((sum, z, i) => sum + weights[i] * g(z), 0);
  const spread = [], factor = [];
  for (let q = w2, layer = 0; layer < depth; layer += 1) {
    const s = Math.sqrt(q);
    spread.push(s);
    factor.push(Math.sqrt(w2 * expectation((z) => slope(s * z) ** 2)));
    q = w2 * expectation((z) => f(s * z) ** 2);
  }
  // The gradient at layer l over that at the last one: what the layers between them make of it.
  const gradient = new Array(depth).fill(1);
  for (let l = depth - 2; l >= 0; l -= 1) gradient[l] = gradient[l + 1] * factor[l];
  return { spread, factor, gradient, weight_scale: Math.sqrt(w2) };
};

const superscript = (v) => String(v).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻·"["0123456789-.".indexOf(c)]);

// A size in words: 0.42, or 3.2·10⁻⁵.
const powers = (v) => {
  if (v === 0) return "0";
  const exponent = Math.floor(Math.log10(v));
  return exponent >= -1 && exponent < 3 ? show(v, 2) : `${show(v / 10 ** exponent, 1)}·10${superscript(exponent)}`;
};

// A line over the layers on a logarithmic axis that reaches as far as it must, the same up and down.
const line = (values, width, top, color, title) => {
  const logs = values.map((v) => Math.log10(Math.max(v, 1e-300)));
  const need = Math.max(...logs.map(Math.abs));
  const reach = [0.5, 1, 2, 5, 10, 20, 40].find((r) => r >= need) ?? 320;
  const x = (i) => LEFT + (i / (values.length - 1)) * (width - LEFT - 8);
  const y = (v) => top + 20 + (1 - v / reach) * (ROOM - 45) / 2;
  const grid = [-reach, -reach / 2, 0, reach / 2, reach].map((v) => `
    <path d="M${LEFT} ${y(v)}H${width}" stroke="currentColor" opacity="${v === 0 ? 0.7 : 0.2}"/>
    <text x="${LEFT - 6}" y="${y(v) + 4}" text-anchor="end">${v === 0 ? 1 :
      Math.abs(v) < 1 ? show(10 ** v, v < 0 ? 2 : 1) : `10${superscript(v)}`}</text>`);
  const dots = logs.map((v, i) => `<circle cx="${x(i)}" cy="${y(v)}" r="3" fill="${color}"/>`);
  return `<text x="0" y="${top + 12}" class="title">${title}</text>${grid.join("")}
    <polyline points="${logs.map((v, i) => `${x(i)},${y(v)}`).join(" ")}" fill="none" stroke="${color}"/>${dots.join("")}`;
};

explorable("bn-depth", {
  controls: {
    activation: { label: "activation", options: names(...Object.keys(ACTIVATIONS)) },
    log_scale: { label: "weight scale", min: -2, max: 4, step: 0.1, value: 0, format: (v) => show(2 ** v) },
    depth: { label: "layers", min: 2, max: 30, step: 1, value: 30, format: String },
  },
  height: 2 * ROOM + 20,
  hint: `Sigmoid: find the weight scale at which the lower line is level. What is the spread of the inputs there, and
    how many of them lie beyond 3.6, where a sigmoid is saturated? Now the same for tanh and ReLU.`,
  view(parameters, settings, width) {
    const numbers = recursion(parameters, settings);
    const { spread, gradient, weight_scale } = numbers, depth = spread.length;
    const said = `${depth} layers of ${ACTIVATIONS[settings.activation].name}, weight scale ${show(weight_scale)}:
      in the last layer the inputs have spread ${powers(spread[depth - 1])}; the gradient in the first layer is
      ${powers(gradient[0])} times that in the last`;
    return {
      numbers,
      picture: line(spread, width, 0, "var(--before)", "spread of the inputs z, layer by layer")
        + line(gradient, width, ROOM + 5, "var(--after)", "gradient, relative to the last layer")
        + `<text x="${LEFT}" y="${2 * ROOM + 14}">layer 1</text>
           <text x="${width}" y="${2 * ROOM + 14}" text-anchor="end">layer ${depth}</text>`,
      label: `Two lines over the layers, on logarithmic axes. ${said}.`,
      sentence: `${said}.`,
    };
  },
});
