// Activation functions with their slopes, as PyTorch has them, for the explorables that offer a choice.

const sigmoid = (z) => 1 / (1 + Math.exp(-z));
const sigmoid_slope = (z) => sigmoid(z) * (1 - sigmoid(z));
const exponential_unit = (name, scale, alpha) => ({
  name,
  f: (z) => scale * (z > 0 ? z : alpha * Math.expm1(z)),
  slope: (z) => scale * (z > 0 ? 1 : alpha * Math.exp(z)),
  steepest: scale * Math.max(1, alpha),
});

const ACTIVATIONS = {
  sigmoid: { name: "sigmoid", f: sigmoid, slope: sigmoid_slope, steepest: 1 / 4 },
  centred: { name: "sigmoid, centred", f: (z) => sigmoid(z) - 0.5, slope: sigmoid_slope, steepest: 1 / 4 },
  tanh: { name: "tanh", f: Math.tanh, slope: (z) => 1 - Math.tanh(z) ** 2, steepest: 1 },
  relu: { name: "ReLU", f: (z) => Math.max(0, z), slope: (z) => (z > 0 ? 1 : 0), steepest: 1 },
  elu: exponential_unit("ELU", 1, 1),
  selu: exponential_unit("SELU", 1.0507009873554805, 1.6732632423543772),
};

// The options of a choice among some of them.
const names = (...keys) => Object.fromEntries(keys.map((key) => [key, ACTIVATIONS[key].name]));
