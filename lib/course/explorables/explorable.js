// What all explorables share: sliders, an SVG with axes and histograms, a spoken sentence.
// An explorable is one call of `explorable(tag, {...})`; see batch-norm.js.

const STYLE = `
  :host { display: block; margin: 1em 0; color: inherit; font-family: inherit; font-size: 0.95em; }
  .panel { border: 1px solid color-mix(in srgb, currentColor 30%, transparent); border-radius: 6px; padding: 0.8em; }
  .controls { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17em, 100%), 1fr)); gap: 0.35em 1.5em; }
  .row { display: grid; grid-template-columns: 7.5em minmax(4em, 1fr) 4em; gap: 0.5em; align-items: center; }
  .row output { text-align: right; font-variant-numeric: tabular-nums; }
  input[type=range] { width: 100%; min-width: 0; accent-color: var(--after); }
  select { font: inherit; color: inherit; background: transparent; grid-column: 2 / 4; }
  select option { color: black; background: white; }
  :host { --before: #d55e00; --after: #2a8fd0; }
  svg { width: 100%; height: auto; display: block; margin-top: 0.6em; }
  svg text { fill: currentColor; font: 12px sans-serif; }
  svg .title { font-weight: bold; }
  p { margin: 0.5em 0 0; line-height: 1.45; }
`;

// Horizontal axis from `low` to `high` with ticks, drawn at height `y` in a picture `width` wide.
const axis = (low, high, ticks, width, y) => {
  const at = (v) => ((v - low) / (high - low)) * width;
  const marks = ticks.map((t) => `<path d="M${at(t)} ${y}v5" stroke="currentColor"/>
    <text x="${at(t)}" y="${y + 18}" text-anchor="middle">${String(t).replace("-", "−")}</text>`);
  return `<path d="M0 ${y}H${width}" stroke="currentColor"/>${marks.join("")}`;
};

// How many of `values` fall into each of `bins` equal parts of [low, high]; what lies beyond is left out.
const histogram = (values, low, high, bins) => {
  const counts = new Array(bins).fill(0);
  for (const v of values) {
    const bin = Math.floor(((v - low) / (high - low)) * bins);
    if (bin >= 0 && bin < bins) counts[bin] += 1;
  }
  return counts;
};

// Bars standing on height `y`, `unit` pixels per count.
const bars = (counts, width, y, unit, color) => {
  const w = width / counts.length;
  return counts.map((n, i) => n === 0 ? "" :
    `<rect x="${i * w + 0.5}" y="${y - n * unit}" width="${w - 1}" height="${n * unit}" fill="${color}"/>`).join("");
};

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const variance = (values) => { const m = mean(values); return mean(values.map((v) => (v - m) ** 2)); };
const show = (v, digits = 2) => (Math.abs(v) < 0.5 * 10 ** -digits ? 0 : v).toFixed(digits).replace("-", "−");

// Define the element `tag`. `controls`: {name: {label, min, max, step, value, format?}} for a slider,
// {name: {label, options: {value: text}}} for a choice. `view(parameters, settings, width)` returns the
// numbers, a picture (SVG markup, `width` x `height` pixels), its label, and a sentence that says the numbers.
// `hint` says what to try.
const explorable = (tag, { controls, height, view, hint }) => {
  if (customElements.get(tag)) return;

  customElements.define(tag, class extends HTMLElement {
    connectedCallback() {
      if (this.shadowRoot) return;
      const parameters = JSON.parse(this.dataset.parameters);
      const root = this.attachShadow({ mode: "open" });
      root.innerHTML = `<style>${STYLE}</style><div class="panel">
        <div class="controls">${Object.entries(controls).map(row).join("")}</div>
        <svg role="img"></svg>
        <p class="sentence" aria-live="polite"></p><p class="hint"><em>Try this.</em> ${hint}</p></div>`;
      // JupyterLab would take the arrow keys for itself.
      root.addEventListener("keydown", (event) => event.stopPropagation());
      root.addEventListener("input", () => this.draw(parameters, root));
      this.draw(parameters, root);
      // Drawn for the width at hand, so that letters keep their size on a phone.
      let drawn = 0;
      new ResizeObserver(() => {
        if (this.clientWidth !== drawn) this.draw(parameters, root);
        drawn = this.clientWidth;
      }).observe(this);
    }

    draw(parameters, root) {
      const settings = {};
      for (const input of root.querySelectorAll("input, select")) {
        const { format } = controls[input.name];
        settings[input.name] = input.type === "range" ? Number(input.value) : input.value;
        const output = root.querySelector(`output[for="${input.id}"]`);
        if (output) output.textContent = format ? format(settings[input.name]) : show(settings[input.name]);
        if (format && output) input.setAttribute("aria-valuetext", output.textContent);
      }
      const svg = root.querySelector("svg");
      const width = svg.clientWidth || 600;
      const { numbers, picture, label, sentence } = view(parameters, settings, width);
      this.numbers = numbers; // at full precision, for tests and for the console
      svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
      svg.innerHTML = picture;
      svg.setAttribute("aria-label", label);
      root.querySelector(".sentence").textContent = sentence;
    }
  });
};

const row = ([name, control]) => control.options
  ? `<div class="row"><label for="${name}">${control.label}</label><select id="${name}" name="${name}">
      ${Object.entries(control.options).map(([v, text]) => `<option value="${v}">${text}</option>`).join("")}
    </select></div>`
  : `<div class="row"><label for="${name}">${control.label}</label>
      <input type="range" id="${name}" name="${name}" min="${control.min}" max="${control.max}"
        step="${control.step}" value="${control.value}"><output for="${name}"></output></div>`;
