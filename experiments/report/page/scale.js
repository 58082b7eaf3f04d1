// Axes: how values are spread along them, and where their ticks are.

const MOST_NINES = 99.9; // what is higher is drawn there
const SPREADS = {
  linear: { to: v => v, from: p => p },
  log: { to: v => v > 0 ? Math.log10(v) : NaN, from: p => 10 ** p },
  nines: { to: v => -Math.log10(100 - Math.min(v, MOST_NINES)), from: p => 100 - 10 ** -p },
};
const NINES = [0, 50, 80, 90, 95, 98, 99, 99.5, 99.8];

const spreadOf = axis => axis.either && state.even ? "linear" : axis.scale ?? "linear";

// Values from `low` to `high` along pixels from `start` to `end`.
function makeScale(axis, [low, high], [start, end]) {
  const spread = SPREADS[spreadOf(axis)];
  const [a, b] = [spread.to(low), spread.to(high)];
  return {
    low, high, start, end,
    at: v => start + (spread.to(v) - a) / (b - a) * (end - start),
    back: pixel => spread.from(a + (pixel - start) / (end - start) * (b - a)),
  };
}

function ticksOf(axis, scale, room) {
  const inside = ([v]) => v >= scale.low - 1e-9 * Math.abs(scale.low) && v <= scale.high * (1 + 1e-9) + 1e-12;
  let ticks = axis.ticks ?? [];
  if (!ticks.length) ticks = placesOf(axis, scale, room).map(v => [v, number(v, { digits: 4 })]);
  return apart(ticks.filter(inside), scale, room);
}

function placesOf(axis, { low, high, start, end }, room) {
  const spread = spreadOf(axis);
  if (spread === "nines") return NINES;
  if (spread === "log" && high / low > 8) {
    const decades = [];
    const several = Math.log10(high / low) < 2.2 ? [1, 2, 5] : [1];
    for (let d = Math.floor(Math.log10(low)); d <= Math.log10(high); d++) {
      for (const m of several) decades.push(Number((m * 10 ** d).toPrecision(3)));
    }
    return decades;
  }
  const count = Math.max(2, Math.min(8, Math.floor(Math.abs(end - start) / room)));
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(m => m * power >= rough * 0.999);
  const places = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step) {
    places.push(Math.abs(v) < 1e-9 * step ? 0 : Number(v.toPrecision(9)));
  }
  return places;
}

// Ticks whose labels do not overlap: where there is no room the later of two goes.
function apart(ticks, scale, room) {
  const kept = [];
  for (const tick of ticks) {
    const at = scale.at(tick[0]);
    if (kept.every(other => Math.abs(scale.at(other[0]) - at) >= room)) kept.push(tick);
  }
  return kept;
}

// The ends of a panel's vertical axis, and of its horizontal one.
function endsOf(panel, which) {
  const axis = panel[which];
  const values = panel.marks.flatMap(mark => extremes(panel, mark, which)).filter(Number.isFinite);
  const spread = spreadOf(axis);
  const usable = spread === "log" ? values.filter(v => v > 0) : values;
  let low = usable.reduce((a, b) => Math.min(a, b), Infinity), high = usable.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!Number.isFinite(low)) [low, high] = spread === "log" ? [1, 10] : [0, 1];
  if (axis.limits && spread === "nines") {
    return [axis.limits[0], Math.min(MOST_NINES, 100 - 0.7 * (100 - Math.min(high, MOST_NINES)))];
  }
  if (axis.limits) return axis.limits;
  if (axis.zero) low = Math.min(low, 0);
  return padded(low, high, spread, axis);
}

function padded(low, high, spread, axis) {
  const { to, from } = SPREADS[spread];
  let [a, b] = [to(low), to(high)];
  if (a === b) [a, b] = [a - 0.5, b + 0.5];
  const pad = (axis.ticks?.length ? 0.08 : axis.steps ? 0.012 : 0.05) * (b - a);
  return [axis.zero && low === 0 ? 0 : from(a - pad), from(b + pad)];
}

function extremes(panel, mark, which) {
  if (mark.kind === "curve") {
    const { x, low, high } = summaryOf(mark);
    if (which === "y") return [...low, ...high];
    return [...x].filter((_, i) => Number.isFinite(low[i]) || panel.x.steps).map(v => shownX(panel.x, mark, moved(mark, v)));
  }
  if (mark.kind === "marks") return [...array(mark[which]).values];
  return mark.kind === "level" && which === "y" ? [mark.y] : [];
}

const moved = (mark, x) => x * (1 + (mark.shift ?? 0));
