// Reading figures: the cursor that all share, the values at it, a table, and words for who sees none.

const local = new Map(); // of figures that are not over steps, where their cursor is
const active = new Map(); // of each figure the panel whose values are read

const MANY = 8; // rows of a readout that have room for ranges

const overSteps = panel => panel.x.steps;
const panelOf = id => {
  const { panels } = drawings.get(id);
  return panels.find(panel => panel.index === active.get(id)) ?? panels[0];
};

// The values along which a figure's cursor moves.
function stopsOf(id) {
  const panel = panelOf(id);
  if (!panel) return [0];
  if (overSteps(panel)) return steps;
  const mark = panel.marks.find(one => one.kind === "curve" || one.kind === "density");
  if (!mark) return [0];
  const x = array(mark.kind === "density" ? mark.edges : mark.x).values;
  if (mark.kind !== "density") return x;
  return [...x].slice(1).map((v, i) => (v + x[i]) / 2).filter(v => v >= panel.scales.x.low && v <= panel.scales.x.high);
}

const cursorOf = id => overSteps(panelOf(id) ?? { x: {} }) ? state.cursor : local.get(id) ?? firstStop(id);
function firstStop(id) {
  const stops = stopsOf(id);
  const first = { distribution: 0, steps: 95, budget: 1 };
  return id in first ? nearest(stops, first[id]) : stops.length - 1;
}

function moveTo(id, stop) {
  const stops = stopsOf(id);
  stop = Math.max(0, Math.min(stops.length - 1, stop));
  if (overSteps(panelOf(id))) setCursor(stop);
  else { local.set(id, stop); follow(document.getElementById(id)); }
}

function setCursor(step) {
  state.cursor = Math.max(0, Math.min(steps.length - 1, step));
  for (const player of document.querySelectorAll(".player")) showStep(player);
  requestFollow();
}

let asked = false;
function requestFollow() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; for (const f of figures) if (inView.has(f)) follow(f); });
}

// Puts a figure's cursor, its densities and its readout where the cursor is.
function follow(figure) {
  const drawing = drawings.get(figure.id);
  if (!drawing) return;
  for (const panel of drawing.panels) {
    const group = figure.querySelector(`[data-panel="${panel.index}"]`);
    for (const mark of panel.marks) {
      if (mark.kind !== "density") continue;
      const [outline, area] = densityPaths(mark, panel);
      group.querySelector(`[data-density="${mark.network}"]`).setAttribute("d", area);
      group.querySelector(`.line[data-network="${mark.network}"]`).setAttribute("d", outline);
    }
    group.querySelector(".cursor").innerHTML = printing ? "" : cursorMarkup(panel, figure.id);
  }
  readOut(figure);
}

function indexOf(panel, id, mark) {
  return overSteps(panel) ? indexAt(mark, array(mark.x).values) : cursorOf(id);
}

function cursorMarkup(panel, id) {
  const { box, scales } = panel, y = height(panel);
  const curves = panel.marks.filter(mark => mark.kind === "curve");
  const points = curves.map(mark => {
    const { x, mean } = summaryOf(mark), i = indexOf(panel, id, mark);
    const [left, top] = [scales.x.at(shownX(panel.x, mark, moved(mark, x[i]))), y(mean[i])];
    return { mark, left, top };
  });
  const stop = stopsOf(id)[cursorOf(id)];
  const at = scales.x.at(curves.length ? shownX(panel.x, curves[0], stop) : stop);
  if (!(at >= box.left - 1 && at <= box.right + 1)) return "";
  return `<line x1="${at.toFixed(1)}" x2="${at.toFixed(1)}" y1="${box.top}" y2="${box.bottom}"/>`
    + points.filter(p => Number.isFinite(p.top) && p.top <= box.bottom + 1 && p.top >= box.top - 3).map(({ mark, left, top }) =>
      `<circle cx="${left.toFixed(1)}" cy="${top.toFixed(1)}" r="4" fill="${colourOf(mark.network)}"/>`).join("");
}

// Values at the cursor, one row for each line of the panel that is read.
function valuesAt(figure) {
  const panel = panelOf(figure.id), among = shownNetworks();
  if (!panel) return { where: "", rows: [] };
  const rows = panel.marks.filter(mark => mark.kind === "curve" || mark.kind === "density").map(mark => {
    const name = mark.kind === "curve" && mark.label || nameOf(study.networks[mark.network], among);
    return { mark, name, ...(mark.kind === "density" ? densityValue(panel, mark, figure.id) : curveValue(panel, mark, figure.id)) };
  });
  return { where: whereOf(panel, figure.id), rows };
}

function curveValue(panel, mark, id) {
  const { mean, low, high, count, runs } = summaryOf(mark), i = indexOf(panel, id, mark);
  const say = v => number(v, panel.y);
  if (!count[i]) return { value: runs.length > 1 ? `none of ${runs.length} seeds` : "none", range: "" };
  const some = count[i] < runs.length ? `, ${count[i]} of ${runs.length} seeds` : "";
  const range = runs.length > 1 ? `${say(low[i])} to ${say(high[i])}${some}` : "";
  return { value: Number.isFinite(mean[i]) ? say(mean[i]) : "–", range: range + failures(panel, mark, i) };
}

// How many of a network's runs at the cursor are marked as failed.
function failures(panel, { network, x }, i) {
  const crosses = panel.marks.filter(mark => mark.shape === "cross" && mark.network === network);
  const failed = crosses.flatMap(mark => [...array(mark.x).values]).filter(v => v === array(x).values[i]).length;
  return failed ? `, ${failed} did not learn` : "";
}

function densityValue(panel, mark, id) {
  const edges = array(mark.edges).values, heights = densityAt(mark);
  const bin = [...edges].findLastIndex(v => v <= stopsOf(id)[cursorOf(id)]);
  return { value: `${(100 * heights[bin] * (edges[bin + 1] - edges[bin])).toFixed(1)} %`, range: `${number(edges[bin])} to ${number(edges[bin + 1])}` };
}

function whereOf(panel, id) {
  const stop = stopsOf(id)[cursorOf(id)];
  const title = panel.title ? `${panel.title}, ` : "";
  if (printing) return `at step ${steps[state.cursor]}`;
  if (!overSteps(panel)) {
    return id === "distribution" ? `${title}step ${steps[state.cursor]}: share near ${number(stop)}` : `${panel.x.label.replace(/ \(%\)$/, "")} ${number(stop, panel.x)}`;
  }
  if (state.x === "step") return `${title}step ${stop}`;
  const [first] = shownNetworks();
  return `${title}${stepLabel[state.x]} ${number(shownX(panel.x, { network: first?.number ?? 0 }, stop))}`;
}

function readOut(figure) {
  const { where, rows } = valuesAt(figure), few = rows.length <= MANY;
  figure.querySelector(".readout").innerHTML = `<caption>${escaped(where)}</caption>`
    + rows.map(({ mark, name, value, range }) => `<tr><th scope="row">${swatch(mark)}${escaped(name)}</th><td>${escaped(value)}</td>${few ? `<td>${escaped(range)}</td>` : ""}</tr>`).join("");
  const plot = plotOf(figure), stop = cursorOf(figure.id);
  plot.setAttribute("aria-valuemax", stopsOf(figure.id).length - 1);
  plot.setAttribute("aria-valuenow", stop);
  plot.setAttribute("aria-valuetext", `${where}. ${rows.map(r => `${r.name} ${r.value}${r.range && ` (${r.range})`}`).join("; ")}`);
}

const swatch = mark => `<svg class="swatch" width="24" height="8" aria-hidden="true"><line x1="1" x2="23" y1="4" y2="4" stroke="${colourOf(mark.network)}" stroke-dasharray="${dashOf(mark)}"/></svg>`;

// ---- Words and a table of the numbers.

function describe(figure) {
  const { panels } = drawings.get(figure.id);
  const among = shownNetworks();
  const parts = panels.map(panel => {
    const said = panel.marks.filter(mark => mark.kind === "curve").map(mark => sentence(panel, mark, among));
    const marks = panel.marks.filter(mark => mark.kind === "marks").flatMap(mark => mark.said.map(s => `${nameOf(study.networks[mark.network], among)} ${s}`));
    return [panel.title, [...said, ...marks].join("; ")].filter(Boolean).join(": ");
  });
  figure.querySelector(".says").textContent = `${parts.join(". ")}.`;
  const table = figure.querySelector(".numbers");
  if (table?.open) fill(table, figure);
}

function sentence(panel, mark, among) {
  const { x, mean, low, high } = summaryOf(mark);
  const known = [...mean.keys()].filter(i => Number.isFinite(mean[i]));
  const name = mark.label || nameOf(study.networks[mark.network], among);
  if (!known.length) return `${name} has no values`;
  const at = i => `${number(mean[i], panel.y)} (${number(low[i], panel.y)} to ${number(high[i], panel.y)}) at ${panel.x.label} ${number(x[i], panel.x)}`;
  const peak = known.reduce((a, b) => mean[b] > mean[a] ? b : a), [first, last] = [known[0], known.at(-1)];
  return `${name} goes from ${at(first)} to ${at(last)}${peak === first || peak === last ? "" : `, highest ${at(peak)}`}`;
}

const ROWS = 12;
function fill(details, figure) {
  const among = shownNetworks();
  details.querySelector("div").innerHTML = drawings.get(figure.id).panels.map(panel => {
    const curves = panel.marks.filter(mark => mark.kind === "curve");
    if (!curves.length) return "";
    const x = array(curves[0].x).values;
    const chosen = [...new Set(Array.from({ length: ROWS }, (_, i) => Math.round(i * (x.length - 1) / (ROWS - 1))))];
    const head = curves.map(mark => `<th scope="col">${escaped(mark.label || nameOf(study.networks[mark.network], among))}</th>`).join("");
    const body = chosen.map(i => `<tr><th scope="row">${number(x[i], panel.x)}</th>${curves.map(mark => {
      const { mean, low, high, count } = summaryOf(mark);
      return `<td>${count[i] ? `${number(mean[i], panel.y)} (${number(low[i], panel.y)} to ${number(high[i], panel.y)})` : "none"}</td>`;
    }).join("")}</tr>`).join("");
    return `<table><caption>${escaped(panel.title || panel.y.label)}</caption><thead><tr><th scope="col">${escaped(panel.x.label)}</th>${head}</tr></thead><tbody>${body}</tbody></table>`;
  }).join("");
}
