// Draws the page's Vega-Lite charts, again when the reader switches between the light and the dark theme.
(function () {
  const ink = () => getComputedStyle(document.body).color;

  function draw(holder) {
    const spec = JSON.parse(holder.querySelector("script").textContent);
    delete spec.$schema; // stored as version 5 for JupyterLab; the bundle reads it as its own
    const target = holder.querySelector(".bn-vega-view") || holder.appendChild(document.createElement("div"));
    target.className = "bn-vega-view";
    const color = ink();
    const config = {
      background: null,
      axis: { labelColor: color, titleColor: color, domainColor: color, tickColor: color, gridOpacity: 0.25,
        labelFontSize: 12, titleFontSize: 12 },
      legend: { labelColor: color, titleColor: color, labelFontSize: 12, symbolOpacity: 1 },
      title: { color: color, subtitleColor: color },
      header: { labelColor: color, titleColor: color },
      text: { color: color },
      view: { stroke: null },
    };
    return window.vegaEmbed(target, spec, { actions: false, mode: "vega-lite", renderer: "svg", config });
  }

  const drawAll = () => document.querySelectorAll(".bn-vega").forEach(draw);
  document.addEventListener("DOMContentLoaded", drawAll);
  new MutationObserver(drawAll).observe(document.documentElement, {
    attributes: true,
    attributeFilter: ["data-theme"],
  });
})();
