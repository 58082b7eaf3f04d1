// The page's data and what the reader chose of it: networks, rates, and the marks of a view.
"use strict";
const study = JSON.parse(document.getElementById("study").textContent);

// ---- Arrays, which are text until one is needed.

const decoded = [];
function array(number) {
  return decoded[number] ??= decode(study.arrays[number]);
}

const bytesOf = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));

function decode({ shape, values, bytes, codes, low, high, log }) {
  if (bytes) return { shape, values: bytesOf(bytes) };
  if (values) return { shape, values: Float64Array.from(values, v => v ?? NaN) };
  const view = new DataView(bytesOf(codes).buffer);
  const plain = new Float64Array(view.byteLength / 2);
  for (let i = 0; i < plain.length; i++) {
    const code = view.getUint16(2 * i, true);
    const value = low + code / 65534 * (high - low);
    plain[i] = code === 65535 ? NaN : log ? Math.exp(value) : value;
  }
  return { shape, values: plain };
}

function rowsOf(number) {
  const { shape: [rows, columns], values } = array(number);
  return Array.from({ length: rows }, (_, i) => values.subarray(i * columns, (i + 1) * columns));
}

// A curve's mean, smallest and largest over its runs, and how many there are, at each x. Where every
// run must be there, steps are averaged, and so their logarithms.
const summaries = new WeakMap();
function summaryOf(curve) {
  if (!summaries.has(curve)) summaries.set(curve, summarise(curve));
  return summaries.get(curve);
}

function summarise(curve) {
  const x = array(curve.x).values, runs = rowsOf(curve.runs);
  const [mean, low, high, count] = Array.from({ length: 4 }, () => new Float64Array(x.length).fill(NaN));
  for (let i = 0; i < x.length; i++) {
    const there = runs.map(run => run[i]).filter(Number.isFinite);
    count[i] = there.length;
    if (!there.length) continue;
    low[i] = Math.min(...there);
    high[i] = Math.max(...there);
    if (!curve.every) mean[i] = there.reduce((a, b) => a + b) / there.length;
    else if (there.length === runs.length) {
      mean[i] = Math.exp(there.reduce((sum, v) => sum + Math.log(v), 0) / there.length);
    }
  }
  return { x, runs, mean, low, high, count };
}

// ---- What the reader chose.

const state = {
  rate: study.rates.length ? "best" : "", values: {}, hidden: new Set(),
  seeds: false, x: "step", even: false, cursor: 0,
};
for (const field of Object.keys(study.fields)) state.values[field] = "best";

function rateOf(number) {
  return state.rate === "best" ? study.networks[number].best ?? 0 : Number(state.rate);
}

// Networks of the chosen values; where the best value is asked for, each norm's best of those.
function chosenNetworks() {
  const all = study.networks.map((network, number) => ({ ...network, number }));
  const fixed = Object.entries(state.values).filter(([, v]) => v !== "best" && v !== "all");
  const fits = all.filter(network => fixed.every(([field, value]) =>
    !(field in network.values) || network.values[field] === Number(value)));
  const best = Object.entries(state.values).filter(([, v]) => v === "best").map(([field]) => field);
  if (!best.length) return fits;
  const groups = grouped(fits, network => {
    // Networks that differ in fields of which all values are shown do not stand for each other.
    const rest = Object.keys(network.values).filter(field => !best.includes(field));
    return [network.label, ...rest.map(field => network.values[field])].join("|");
  });
  return [...groups.values()].map(group => bestOf(group, !fixed.length)).sort((a, b) => a.number - b.number);
}

function grouped(items, key) {
  const groups = new Map();
  for (const item of items) groups.set(key(item), [...groups.get(key(item)) ?? [], item]);
  return groups;
}

function bestOf(group, free) {
  const arm = free && state.rate === "best" && group.find(network => network.arm);
  const score = network => network.finals[rateOf(network.number)] ?? -Infinity;
  return arm || group.reduce((a, b) => score(b) > score(a) ? b : a);
}

const shownNetworks = () => chosenNetworks().filter(network => !state.hidden.has(network.number));

// A network's name without the values that all shown networks have, and with its rate if they differ.
function nameOf(network, among) {
  const words = [network.label];
  for (const [field, value] of Object.entries(network.values)) {
    const same = among.every(other => other.values[field] === undefined || other.values[field] === value);
    if (!same) words.push(`${field.replaceAll("_", " ")} ${value}`);
  }
  return Object.keys(network.values).length ? words.join(", ") : network.name;
}

// ---- The marks of a figure at that choice.

// Axes are those at the baseline's best rate: at others there may be nothing to draw.
function panelsOf(name) {
  const each = study.figures[name];
  const base = each[study.sameRate] ?? each[0];
  const shown = shownNetworks();
  const numbers = new Set(shown.map(network => network.number));
  const panels = base.panels.map((panel, i) => {
    const own = shown.flatMap(({ number }) =>
      (each[rateOf(number)] ?? each[0]).panels[i].marks.filter(mark => mark.network === number));
    return { ...panel, index: i, marks: [...panel.marks.filter(mark => mark.network === undefined), ...own] };
  });
  // Marks that stand for all networks of a norm are shown with any of them.
  const labels = new Set(shown.map(network => network.label));
  const stays = mark => mark.network === undefined || labels.has(study.networks[mark.network].label);
  if (base.arms) panels.forEach((panel, i) => { panel.marks = base.panels[i].marks.filter(stays); });
  return { ...base, panels: panels.filter(panel => panel.network === undefined || numbers.has(panel.network)) };
}

// ---- Steps, epochs, seconds.

const steps = array(study.steps).values;
const secondsOf = number => study.networks[number]?.seconds;

function shownX(axis, mark, value) {
  if (!axis.steps || state.x === "step") return value;
  return state.x === "epoch" ? value / study.stepsPerEpoch : value * secondsOf(mark.network);
}

const stepLabel = { step: "step", epoch: "epoch", second: "seconds of training" };

// The evaluation of a mark at the cursor. On an axis of seconds the cursor is a time, and that of the
// first network shown: others have made other numbers of steps by then.
function indexAt(mark, x) {
  let target = steps[state.cursor];
  if (state.x === "second") {
    const [first] = shownNetworks();
    target *= secondsOf(first?.number ?? 0) / secondsOf(mark.network);
  }
  return nearest(x, target);
}

function nearest(values, target) {
  let best = 0;
  for (let i = 1; i < values.length; i++) {
    if (Math.abs(values[i] - target) < Math.abs(values[best] - target)) best = i;
  }
  return best;
}

// ---- Words.

function number(value, { unit = "", digits = 3, decimals = false } = {}) {
  if (!Number.isFinite(value)) return "none";
  if (decimals) return value.toFixed(digits).replace("-", "−") + unit;
  const size = Math.abs(value);
  const rounded = Number(value.toPrecision(digits));
  const text = size && (size < 1e-3 || size >= 1e5) ? rounded.toExponential() : String(rounded);
  return text.replace("-", "−") + unit;
}

const escaped = text => String(text).replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const colourOf = (number, kind = "series") => `var(--${kind}-${study.networks[number].colour % 7})`;
const DASHES = ["", "7 3", "2 3", "8 3 2 3"];
const dashOf = (mark = {}) =>
  mark.dash ? { solid: "", dot: "2 3" }[mark.dash] : DASHES[study.networks[mark.network].dash % DASHES.length];
