// Pointing at figures, by mouse, finger or keyboard: the cursor, and zooming.

const LEAST_DRAG = 6; // pixels; less is a click

function panelUnder(figure, event) {
  const { panels } = drawings.get(figure.id);
  const frame = plotOf(figure).querySelector("svg").getBoundingClientRect();
  const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
  const panel = panels.find(({ box }) => x >= box.left - 6 && x <= box.right + 6 && y >= box.top - 12 && y <= box.bottom + 6);
  return panel && { panel, x, y };
}

// The stop of the cursor that is nearest to a place in a panel.
function stopAt(figure, panel, x) {
  const stops = stopsOf(figure.id), curve = panel.marks.find(mark => mark.kind === "curve");
  const places = [...stops].map(v => panel.scales.x.at(curve ? shownX(panel.x, curve, v) : v));
  return nearest(places, x);
}

function pointAt(figure, event) {
  const under = panelUnder(figure, event);
  if (!under) return;
  active.set(figure.id, under.panel.index);
  moveTo(figure.id, stopAt(figure, under.panel, under.x));
}

for (const figure of figures) {
  const plot = plotOf(figure);
  let from;
  plot.addEventListener("pointerdown", event => {
    pointAt(figure, event);
    if (event.pointerType === "mouse" && event.button === 0 && figure.id !== "distribution") from = panelUnder(figure, event);
    if (from) plot.setPointerCapture(event.pointerId);
  });
  plot.addEventListener("pointermove", event => {
    if (!from) return pointAt(figure, event);
    showZoom(plot, from, dragged(plot, from, event));
  });
  plot.addEventListener("pointerup", event => {
    if (!from) return;
    const to = dragged(plot, from, event);
    showZoom(plot);
    if (Math.abs(to.x - from.x) > LEAST_DRAG) zoomTo(figure, from, to);
    else chooseRateAt(figure, from);
    from = undefined;
  });
  plot.addEventListener("pointercancel", () => { from = undefined; showZoom(plot); });
  plot.addEventListener("keydown", event => byKey(figure, event));
  figure.querySelector(".reset").addEventListener("click", () => { unzoom(figure); plot.focus(); });
}

function dragged(plot, { panel: { box } }, event) {
  const frame = plot.querySelector("svg").getBoundingClientRect();
  const within = (v, low, high) => Math.max(low, Math.min(high, v));
  return { x: within(event.clientX - frame.left, box.left, box.right), y: within(event.clientY - frame.top, box.top, box.bottom) };
}

// What a drag chooses: a part of the horizontal axis; of the vertical one too, if it is not level.
const isTall = (from, to) => Math.abs(to.y - from.y) > 25;
function showZoom(plot, from, to) {
  const rect = plot.querySelector(".zoom");
  rect.toggleAttribute("hidden", !to);
  if (!to) return;
  const { box } = from.panel;
  const [top, bottom] = isTall(from, to) ? [Math.min(from.y, to.y), Math.max(from.y, to.y)] : [box.top, box.bottom];
  const size = { x: Math.min(from.x, to.x), y: top, width: Math.abs(to.x - from.x), height: bottom - top };
  for (const [name, value] of Object.entries(size)) rect.setAttribute(name, value);
}

function zoomTo(figure, from, to) {
  const { scales, index } = from.panel;
  const ordered = (a, b) => [Math.min(a, b), Math.max(a, b)];
  const zoom = { ...zooms.get(figure.id), x: ordered(scales.x.back(from.x), scales.x.back(to.x)) };
  if (isTall(from, to)) zoom.y = { ...zoom.y, [panelsOf(figure.id).shared ? "all" : index]: ordered(scales.y.back(from.y), scales.y.back(to.y)) };
  zooms.set(figure.id, zoom);
  draw(figure);
}

function unzoom(figure) {
  zooms.delete(figure.id);
  draw(figure);
}

function chooseRateAt(figure, { panel, x }) {
  if (figure.id === "learning_rate" && study.rates.length > 1) chooseRate(String(stopAt(figure, panel, x)));
}

// Arrows move the cursor, by ten with Shift; Page Up and Down change the panel; + and - zoom.
function byKey(figure, event) {
  const stop = cursorOf(figure.id), by = event.shiftKey ? 10 : 1;
  const moves = { ArrowRight: stop + by, ArrowUp: stop + by, ArrowLeft: stop - by, ArrowDown: stop - by, Home: 0, End: Infinity };
  if (event.key in moves) moveTo(figure.id, moves[event.key]);
  else if (event.key === "PageDown") changePanel(figure, 1);
  else if (event.key === "PageUp") changePanel(figure, -1);
  else if (event.key === "+" || event.key === "=") zoomBy(figure, 0.5);
  else if (event.key === "-") zoomBy(figure, 2);
  else if (event.key === "Escape" || event.key === "0") unzoom(figure);
  else return;
  event.preventDefault();
}

function changePanel(figure, by) {
  const { panels } = drawings.get(figure.id);
  const at = panels.indexOf(panelOf(figure.id)) + by;
  active.set(figure.id, panels[(at + panels.length) % panels.length].index);
  follow(figure);
}

function zoomBy(figure, factor) {
  const panel = panelOf(figure.id);
  const mark = panel.marks.find(one => one.kind === "curve");
  if (!mark) return;
  const { x, box } = { x: panel.scales.x, box: panel.box };
  const at = x.at(shownX(panel.x, mark, stopsOf(figure.id)[cursorOf(figure.id)]));
  const all = endsOf(panel, "x");
  const ends = [box.left, box.right].map(end => x.back(at + (end - at) * factor));
  const cut = [Math.max(ends[0], all[0]), Math.min(ends[1], all[1])];
  if (cut[0] === all[0] && cut[1] === all[1]) return unzoom(figure);
  zooms.set(figure.id, { ...zooms.get(figure.id), x: cut });
  draw(figure);
}

// ---- Saving: the drawing with its title and its key, in the colours of the page.

const STYLED = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size", "font-weight"];
function standalone(figure) {
  const plot = plotOf(figure).querySelector("svg"), copy = plot.cloneNode(true);
  const originals = plot.querySelectorAll("*");
  copy.querySelectorAll("*").forEach((element, i) => {
    const style = getComputedStyle(originals[i]);
    element.removeAttribute("style");
    for (const name of STYLED) {
      element.removeAttribute(name);
      element.style.setProperty(name, style.getPropertyValue(name));
    }
  });
  copy.querySelectorAll(".cursor, .zoom").forEach(element => element.remove());
  const style = getComputedStyle(document.body), { width, height } = drawings.get(figure.id);
  const key = shownNetworks(), top = 30, all = top + height + 20 * key.length + 10;
  const names = key.map((network, i) => {
    const y = top + height + 10 + 20 * i, own = { network: network.number };
    return `<line x1="12" x2="42" y1="${y}" y2="${y}" stroke="${resolved(colourOf(network.number))}" stroke-width="2" stroke-dasharray="${dashOf(own)}"/>`
      + `<text x="50" y="${y}" dy=".33em" font-size="12" fill="${style.color}">${escaped(nameOf(network, key))}</text>`;
  });
  const title = figure.querySelector("h3").textContent;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${all}" viewBox="0 0 ${width} ${all}" font-family="sans-serif">`
    + `<rect width="100%" height="100%" fill="${style.backgroundColor}"/><text x="12" y="20" font-size="14" font-weight="600" fill="${style.color}">${escaped(title)}</text>`
    + `<g transform="translate(0 ${top})">${new XMLSerializer().serializeToString(copy).replace(/^<svg[^>]*>|<\/svg>$/g, "")}</g>${names.join("")}</svg>`;
}

const resolved = variable => getComputedStyle(document.documentElement).getPropertyValue(variable.slice(4, -1)).trim();

function download(address, figure, form) {
  const link = Object.assign(document.createElement("a"), { href: address, download: `${study.name}-${figure.id}.${form}` });
  link.click();
}

function save(figure, form) {
  const text = standalone(figure);
  const address = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  if (form === "svg") return download(address, figure, form);
  const image = new Image();
  image.onload = () => {
    const canvas = Object.assign(document.createElement("canvas"), { width: 2 * image.width, height: 2 * image.height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    download(canvas.toDataURL("image/png"), figure, form);
  };
  image.src = address;
}

for (const button of document.querySelectorAll(".save button[value]")) {
  button.addEventListener("click", () => save(button.closest("figure"), button.value));
}
