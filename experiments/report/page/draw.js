// Figures as SVG: panels in a grid as wide as there is room, their axes and their marks.

const NARROWEST = { screen: 210, phone: 165, print: 160 }; // pixels that a panel needs
const PRINTED = 660;
const LABELLED = 430; // pixels of a panel that has room for names at its lines' ends
const MOST_NAMES = 0.34; // of a panel's width; what is left must be drawn on
const EARLY = 0.12; // of a panel's width, between a line's end and its own
const [LETTER, BOLD] = [7, 7.6]; // pixels of a letter, of text of 12 pixels
const [TICKS, NAMED] = [22, 40]; // pixels below a panel: for ticks, and for a name too
let printing = false;

const figures = [...document.querySelectorAll("figure[id]")];
const plotOf = figure => figure.querySelector(".plot");
const drawings = new Map(); // of each figure what is drawn: its panels, with their scales
const zooms = new Map(); // of each figure the ends that the reader chose, by axis

function draw(figure) {
  const plot = plotOf(figure), view = panelsOf(figure.id);
  const width = printing ? PRINTED : Math.max(plot.clientWidth, 120);
  const columns = columnsOf(view, width), each = width / columns;
  const tops = topsOf(view.panels, columns, Number(plot.dataset.row) * (printing ? 0.75 : 1));
  const height = tops.at(-1);
  const zoom = zooms.get(figure.id) ?? {};
  const shared = view.shared && alike(view.panels.map(panel => endsOf(panel, "y")));
  const panels = view.panels.map((panel, i) => {
    const [top, bottom] = tops.slice(Math.floor(i / columns));
    const place = { left: (i % columns) * each, top, width: each, height: bottom - top };
    const ends = { x: zoom.x ?? endsOf(panel, "x"), y: zoom.y?.[panel.index] ?? zoom.y?.all ?? shared ?? endsOf(panel, "y") };
    return laidOut(panel, place, ends);
  });
  const drawing = { figure, panels, width, height };
  plot.querySelector("svg")?.remove();
  plot.insertAdjacentHTML("afterbegin", `<svg width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" aria-hidden="true">`
    + panels.map(panel => panelMarkup(panel, figure.id)).join("") + `<rect class="zoom" hidden/></svg>`);
  drawings.set(figure.id, drawing);
  figure.querySelector(".reset").hidden = !zooms.has(figure.id);
  follow(figure);
  describe(figure);
}

// As many panels beside each other as there is room for, and for their titles, in rows alike.
function columnsOf({ panels, columns = 1 }, width) {
  const titles = panels.map(panel => titleOf(panel).length * BOLD + 40);
  const narrowest = NARROWEST[printing ? "print" : width < 480 ? "phone" : "screen"];
  const most = Math.max(1, Math.min(columns, Math.floor(width / Math.max(narrowest, ...titles))));
  return Math.ceil(panels.length / Math.ceil(panels.length / most)) || 1;
}

// Where rows of panels begin, and where the last one ends. A row whose axes are named is higher than
// one whose axes are not, so that all panels are equally high.
function topsOf(panels, columns, row) {
  const below = panels.map(panel => panel.x.label ? NAMED : TICKS), tops = [0];
  for (let i = 0; i < panels.length; i += columns) {
    tops.push(tops.at(-1) + row + Math.max(...below.slice(i, i + columns)) - Math.min(...below));
  }
  return tops;
}

function titleOf({ network, title }) {
  return network === undefined ? title ?? "" : nameOf(study.networks[network], shownNetworks());
}

const alike = ends => ends.length ? [Math.min(...ends.map(e => e[0])), Math.max(...ends.map(e => e[1]))] : undefined;

function laidOut(given, { left, top, width, height }, ends) {
  const panel = { ...given, title: titleOf(given) };
  const labels = endLabels(panel, width);
  const room = labels.reduce((most, { text }) => Math.max(most, text.length * BOLD + 12), 0);
  const box = { top: top + (panel.title ? 24 : 10), bottom: top + height - (panel.x.label ? NAMED : TICKS), right: left + width - Math.max(room, 18) };
  const vertical = makeScale(panel.y, ends.y, [box.bottom, box.top]);
  const ticks = ticksOf(panel.y, vertical, 14);
  const widest = Math.max(2, ...ticks.map(([, text]) => text.length));
  box.left = left + 12 + widest * LETTER;
  const x = makeScale({ ...panel.x, ticks: panel.x.ticks }, ends.x, [box.left, box.right]);
  return { ...panel, box, end: left + width, scales: { x, y: vertical }, yTicks: ticks, xTicks: ticksOf(panel.x, x, 44), labels };
}

// Names at the ends of lines: where there is room, or where lines are told apart in no other way.
function endLabels(panel, width) {
  const among = shownNetworks();
  const curves = panel.marks.filter(mark => mark.kind === "curve");
  const own = curves.filter(mark => mark.label && panel.x.steps);
  if (own.length) return own.map(mark => ({ mark, text: mark.label }));
  if (width < LABELLED || !curves.length) return [];
  const named = curves.map(mark => ({ mark, text: short(mark.label || nameOf(study.networks[mark.network], among)) }));
  return Math.max(...named.map(({ text }) => text.length)) * BOLD > MOST_NAMES * width ? [] : named;
}

const short = text => text.length > 34 ? `${text.slice(0, 33)}…` : text;

function panelMarkup(panel, id) {
  const { box, title, scales } = panel, clip = `clip-${id}-${panel.index}`;
  const marks = panel.marks.map(mark => MARKUP[mark.kind](mark, panel)).join("");
  return `<g class="panel" data-panel="${panel.index}">`
    + `<clipPath id="${clip}"><rect x="${box.left - 1}" y="${box.top - 2}" width="${box.right - box.left + 5}" height="${box.bottom - box.top + 3}"/></clipPath>`
    + (title ? `<text class="title" x="${box.left}" y="${box.top - 9}">${escaped(clipped(title, panel.end - box.left))}</text>` : "")
    + axesMarkup(panel) + `<g clip-path="url(#${clip})">${marks}</g>`
    + endsMarkup(panel) + `<g class="cursor"></g></g>`;
}

const clipped = (text, room) => {
  const most = Math.floor(room / BOLD);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
};

function axesMarkup({ box, scales, xTicks, yTicks, x: axis }) {
  const rows = yTicks.map(([v, text]) => {
    const y = scales.y.at(v).toFixed(1);
    return `<line class="grid" x1="${box.left}" x2="${box.right}" y1="${y}" y2="${y}"/>`
      + `<text class="tick" x="${box.left - 7}" y="${y}" dy=".33em" text-anchor="end">${escaped(text)}</text>`;
  });
  const columns = xTicks.map(([v, text]) => {
    const x = scales.x.at(v).toFixed(1);
    return `<line class="axis" x1="${x}" x2="${x}" y1="${box.bottom}" y2="${box.bottom + 4}"/>`
      + `<text class="tick" x="${x}" y="${box.bottom + 17}" text-anchor="middle">${escaped(text)}</text>`;
  });
  const label = axis.steps ? stepLabel[state.x] : axis.label;
  return rows.join("") + columns.join("")
    + `<line class="axis" x1="${box.left}" x2="${box.right}" y1="${box.bottom}" y2="${box.bottom}"/>`
    + `<text class="name" x="${box.right}" y="${box.bottom + 33}" text-anchor="end">${escaped(label)}</text>`;
}

// ---- Marks.

function path(xs, ys) {
  let d = "", pen = "M";
  for (let i = 0; i < xs.length; i++) {
    if (!Number.isFinite(xs[i]) || !Number.isFinite(ys[i])) { pen = "M"; continue; }
    d += `${pen}${xs[i].toFixed(1)} ${ys[i].toFixed(1)}`;
    pen = "L";
  }
  return d;
}

// What an axis cannot show, such as zero on a logarithmic one, lies below it.
const height = ({ scales, box }) => v => {
  const y = scales.y.at(v);
  return Number.isNaN(y) && Number.isFinite(v) ? box.bottom + 20 : Math.max(-9999, Math.min(9999, y));
};

const MARKUP = {
  curve(mark, panel) {
    const { x, runs, mean, low, high } = summaryOf(mark);
    const colour = colourOf(mark.network), y = height(panel);
    const xs = [...x].map(v => panel.scales.x.at(shownX(panel.x, mark, moved(mark, v))));
    const each = runs.map(run => `<path class="seed" stroke="${colour}" d="${path(xs, [...run].map(y))}"/>`).join("");
    const points = mark.points ? runs.flatMap(run => [...run].map((v, i) =>
      `<circle class="point" fill="${colour}" cx="${xs[i].toFixed(1)}" cy="${y(v).toFixed(1)}" r="2.5"/>`)).join("") : "";
    const alone = state.seeds || mark.every;
    const band = mark.points || alone ? "" : bandMarkup(xs, low, high, y, colour);
    return band + (alone && !mark.points ? each : points)
      + `<path class="line" data-network="${mark.network}" stroke="${colour}" stroke-dasharray="${dashOf(mark)}" d="${path(xs, [...mean].map(y))}"/>`;
  },
  marks(mark, panel) {
    const xs = array(mark.x).values, ys = array(mark.y).values, colour = colourOf(mark.network), y = height(panel);
    return [...xs].map((v, i) => {
      const [left, top] = [panel.scales.x.at(shownX(panel.x, mark, moved(mark, v))), y(ys[i])];
      if (!Number.isFinite(left)) return "";
      const d = mark.shape === "cross" ? "M-4-4L4 4M-4 4L4-4" : "M0-5L5 0L0 5L-5 0Z";
      const label = mark.labels[i] ? `<text class="tick" x="${left + 8}" y="${top}" dy=".33em">${escaped(mark.labels[i])}</text>` : "";
      return `<path class="${mark.shape}" style="--own: ${colour}" transform="translate(${left.toFixed(1)} ${top.toFixed(1)})" d="${d}"><title>${escaped(mark.said[i])}</title></path>${label}`;
    }).join("");
  },
  level(mark, { box, scales, yTicks }) {
    const y = scales.y.at(mark.y).toFixed(1);
    const said = yTicks.some(([v]) => Math.abs(scales.y.at(v) - y) < 3); // by a tick already
    const label = mark.label && !said ? `<text class="tick" x="${box.right - 4}" y="${y}" dy="-.35em" text-anchor="end">${escaped(mark.label)}</text>` : "";
    return `<line class="level" x1="${box.left}" x2="${box.right}" y1="${y}" y2="${y}"/>${label}`;
  },
  reference(mark, { box, scales }) {
    const xs = [...array(mark.x).values].map(v => scales.x.at(v));
    const ys = [...array(mark.y).values].map(v => box.bottom - 0.9 * v * (box.bottom - box.top));
    return `<path class="reference" d="${path(xs, ys)}"><title>${escaped(mark.label)}</title></path>`;
  },
  density(mark, panel) {
    const [outline, area] = densityPaths(mark, panel);
    return `<path class="area" data-density="${mark.network}" fill="${colourOf(mark.network)}" d="${area}"/>`
      + `<path class="line" data-network="${mark.network}" stroke="${colourOf(mark.network)}" stroke-dasharray="${dashOf(mark)}" d="${outline}"/>`;
  },
};

function bandMarkup(xs, low, high, y, colour) {
  let markup = "", piece = [];
  for (let i = 0; i <= xs.length; i++) {
    if (i < xs.length && Number.isFinite(low[i]) && Number.isFinite(xs[i])) { piece.push(i); continue; }
    if (piece.length > 1) {
      const upper = path(piece.map(k => xs[k]), piece.map(k => y(high[k])));
      const lower = path(piece.map(k => xs[k]).reverse(), piece.map(k => y(low[k])).reverse());
      markup += `<path class="band" fill="${colour}" d="${upper}${lower.replace("M", "L")}Z"/>`;
    }
    piece = [];
  }
  return markup;
}

// A density at the cursor: a step of constant height for each bin, so that areas are masses.
function densityAt(mark) {
  const { shape: [, bins], values } = array(mark.heights);
  const start = indexAt(mark, array(mark.x).values) * bins;
  return Array.from({ length: bins }, (_, i) => mark.highest * (values[start + i] / 255) ** 2);
}

function densityPaths(mark, { scales, box }) {
  const edges = array(mark.edges).values, heights = densityAt(mark);
  const xs = [], ys = [];
  heights.forEach((v, i) => {
    xs.push(scales.x.at(edges[i]), scales.x.at(edges[i + 1]));
    const y = Math.max(scales.y.at(v), box.top - 9);
    ys.push(y, y);
  });
  const outline = path(xs, ys.map(y => y < box.bottom - 0.3 ? y : NaN)), filled = path(xs, ys);
  return [outline, `${filled}L${xs.at(-1).toFixed(1)} ${box.bottom}L${xs[0].toFixed(1)} ${box.bottom}Z`];
}

// Names beside the lines' last points, moved apart where they would overlap.
function endsMarkup(panel) {
  const { box, labels, scales } = panel, y = height(panel);
  const placed = labels.map(({ mark, text }) => {
    const { mean, x, high } = summaryOf(mark);
    const known = mean.findLastIndex(Number.isFinite);
    const last = known < 0 ? high.findLastIndex(Number.isFinite) : known;
    const value = known < 0 ? high[last] : mean[known];
    const right = last < 0 ? NaN : scales.x.at(shownX(panel.x, mark, moved(mark, x[last])));
    // Others go on beside a line that ends early.
    const early = right < box.right - EARLY * (box.right - box.left);
    return { text, mark, right: early && last >= 0 ? box.right : right, y: y(value) };
  }).filter(({ right, y }) => Number.isFinite(right) && Number.isFinite(y)).sort((a, b) => a.y - b.y);
  placed.forEach((one, i) => { one.y = Math.max(one.y, box.top + 4, i ? placed[i - 1].y + 14 : -Infinity); });
  let lowest = box.bottom - 4;
  for (const one of placed.toReversed()) { one.y = Math.min(one.y, lowest); lowest = one.y - 14; }
  return placed.map(({ text, mark, right, y }) =>
    `<text class="end" x="${Math.min(right, box.right) + 6}" y="${y.toFixed(1)}" dy=".33em" style="fill: ${colourOf(mark.network, "word")}">${escaped(text)}</text>`).join("");
}
