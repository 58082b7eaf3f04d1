// The page's moving parts. Figures are Plotly's; their text is kept, and parsed anew for each theme.
"use strict";
const study = JSON.parse(document.getElementById("study").textContent);
const figures = [...document.querySelectorAll("figure[id]")];
const dark = matchMedia("(prefers-color-scheme: dark)");
// Pixels that a panel needs to be read, a page's width, and how much lower a row is there.
const [NARROWEST, NARROWEST_PRINTED, PRINTED, LOWER] = [230, 160, 680, 0.75];
let printing = false;

const plotOf = figure => figure.querySelector(".plot");
const chosen = () => document.querySelector("[name=rates]:checked")?.value ?? 0;
const chartOf = figure => study.figures[figure.id][chosen()] ?? study.figures[figure.id][0];

// Python writes the colours of light paper; the style sheet knows what they are in the dark.
function themed(text) {
  if (printing || !dark.matches) return JSON.parse(text);
  const style = getComputedStyle(document.documentElement);
  return JSON.parse(text.replace(/#[0-9a-f]{6}/g, colour =>
    colour in study.colours ? style.getPropertyValue(study.colours[colour]).trim() : colour));
}

// As many panels side by side as can be read, and a height that follows.
function arranged(layout, width, rowHeight, names) {
  const count = layout.grid.rows * layout.grid.columns;
  const columns = Math.max(1, Math.min(layout.grid.columns, Math.floor(width / (printing ? NARROWEST_PRINTED : NARROWEST))));
  const rows = Math.ceil(count / columns);
  const titles = layout.annotations.some(a => a.text);
  const legend = 18 * Math.ceil(names.reduce((sum, name) => sum + 58 + 7 * name.length, 0) / width);
  layout.grid = { ...layout.grid, rows, columns,
    xgap: 0.22, ygap: rowHeight < 200 ? 0.25 : 72 / rowHeight };
  for (const axis of Object.keys(layout).filter(key => key.startsWith("xaxis"))) {
    layout[axis].nticks = Math.max(3, Math.min(8, Math.floor(width / columns / 45)));
  }
  layout.margin.t = 16 + legend + (titles ? 18 : 0);
  layout.font.family = getComputedStyle(document.body).fontFamily;
  // A finger that drags scrolls the page.
  const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
  const height = 26 + layout.margin.t + rows * rowHeight;
  return { ...layout, width, height, dragmode, uirevision: "what the reader chose" };
}

function draw(figure) {
  const plot = plotOf(figure);
  const { data, layout } = themed(chartOf(figure));
  const width = printing ? PRINTED : figure.clientWidth;
  const player = figure.querySelector(".player");
  if (player) heightsAt(player.querySelector("input").value).forEach((y, i) => { data[i].y = y; });
  const config = { displayModeBar: false, doubleClick: "reset" };
  const names = data.filter(trace => trace.showlegend !== false).map(trace => trace.name);
  const rowHeight = plot.dataset.row * (printing ? LOWER : 1);
  Plotly.react(plot, data, arranged(layout, width, rowHeight, names), config);
  plot.dataset.drawn = "yes";
}

// Figures are drawn when they come near, so that the page is there at once.
const near = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    draw(target);
  }
}, { rootMargin: "800px" });
const redraw = () => figures.filter(f => plotOf(f).dataset.drawn).forEach(draw);
figures.forEach(figure => near.observe(figure));

dark.addEventListener("change", redraw);
document.querySelectorAll("[name=rates]").forEach(r => r.addEventListener("change", redraw));
let width = innerWidth;
addEventListener("resize", () => {
  if (printing || innerWidth === width) return; // a phone's toolbar comes and goes
  width = innerWidth;
  redraw();
});
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach(details => { details.open = true; });
  printing = true;
  figures.forEach(draw);
});
addEventListener("afterprint", () => { printing = false; figures.forEach(draw); });

for (const button of document.querySelectorAll(".save button")) {
  button.addEventListener("click", () => {
    const figure = button.closest("figure");
    const { offsetWidth: width, offsetHeight: height } = plotOf(figure);
    const filename = `${study.name}-${figure.id}`;
    Plotly.downloadImage(plotOf(figure), { format: button.value, filename, width, height, scale: 2 });
  });
}

// The slider: a byte for each height of each curve at each step.
const decoded = new Map();
function heightsAt(step) {
  const frames = study.frames[chosen()] ?? study.frames[0];
  if (!decoded.has(frames)) {
    decoded.set(frames, Uint8Array.from(atob(frames.bytes), c => c.charCodeAt(0)));
  }
  const [, curves, bins] = frames.shape;
  const bytes = decoded.get(frames);
  return Array.from({ length: curves }, (_, i) => {
    const start = (step * curves + i) * bins;
    return bytes.slice(start, start + bins);
  });
}
for (const player of document.querySelectorAll(".player")) {
  const [button, slider, output] = ["button", "input", "output"].map(n => player.querySelector(n));
  const plot = plotOf(player.closest("figure"));
  const { steps } = study.frames[0];
  const last = steps.length - 1;
  let timer;
  const say = () => {
    output.textContent = `step ${steps[slider.value]}`;
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  const show = () => {
    say();
    const y = heightsAt(slider.value);
    if (plot.dataset.drawn) Plotly.restyle(plot, { y }, y.map((_, i) => i));
  };
  const pause = () => { clearInterval(timer); timer = undefined; button.textContent = "Play"; };
  slider.max = slider.value = last;
  slider.addEventListener("input", () => { pause(); show(); });
  button.addEventListener("click", () => {
    if (timer) return pause();
    if (Number(slider.value) === last) slider.value = 0;
    button.textContent = "Pause";
    timer = setInterval(() => {
      if (Number(slider.value) === last) return pause();
      slider.value = Number(slider.value) + 1;
      show();
    }, 90);
  });
  say();
}

// Tables sort by the number a cell begins with, or else by its words; what is not known comes last.
const keyOf = (row, column) => {
  const text = row.cells[column].textContent.trim().replace("−", "-");
  return { text, number: parseFloat(text.replace(/^at (least|most) /, "")) };
};
function compare(a, b, sign) {
  const numbers = [a, b].map(key => Number.isFinite(key.number));
  if (numbers[0] && numbers[1]) return sign * (a.number - b.number);
  if (numbers[0] !== numbers[1]) return numbers[0] ? -1 : 1;
  return sign * a.text.localeCompare(b.text);
}
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const column = header.cellIndex;
    const body = header.closest("table").tBodies[0];
    const up = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].sort((a, b) => compare(keyOf(a, column), keyOf(b, column), up ? 1 : -1));
    body.append(...rows);
  });
}
