// The page's controls: rates and values, networks, axes, the slider through training, paper.

const inView = new Set();
// Figures are drawn when they come near, so that the page is there at once.
const near = new IntersectionObserver(entries => {
  for (const { target, isIntersecting } of entries) {
    if (!isIntersecting) { inView.delete(target); continue; }
    inView.add(target);
    if (drawings.has(target.id)) follow(target);
    else draw(target);
  }
}, { rootMargin: "500px" });
const redraw = () => figures.filter(figure => drawings.has(figure.id)).forEach(draw);

// ---- What is shown.

const key = document.querySelector(".key");
function showKey() {
  const among = chosenNetworks();
  const focused = document.activeElement?.dataset?.network;
  key.innerHTML = among.map(network => {
    const rate = state.rate === "best" && study.rates.length > 1 ? ` <small>rate ${study.rates[network.best]}</small>` : "";
    return `<button type="button" data-network="${network.number}" aria-pressed="${!state.hidden.has(network.number)}">`
      + `${swatch({ network: network.number })}${escaped(nameOf(network, among))}${rate}</button>`;
  }).join("");
  if (focused) key.querySelector(`[data-network="${focused}"]`)?.focus();
  const chosen = [state.rate !== "" && `rate ${state.rate === "best" ? "each at its best" : study.rates[state.rate]}`,
    ...Object.entries(state.values).map(([field, value]) => `${field.replaceAll("_", " ")} ${value}`)];
  document.querySelector(".choices summary span").textContent = chosen.filter(Boolean).join(", ");
}
key.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (!button) return;
  const number = Number(button.dataset.network);
  if (!state.hidden.delete(number)) state.hidden.add(number);
  changed();
});

// Above each rate a bar for each network: how far it gets there, on an axis of `nines` or from 0 to 1.
function showScores() {
  const among = chosenNetworks();
  for (const input of document.querySelectorAll("[name=rate]:not([value=best])")) {
    const bars = among.map(({ number: own, finals }, i) => {
      const tall = 13 * Math.max(0, Math.min(1, study.nines ? (2 - Math.log10(100.1 - 100 * finals[input.value])) / 2.3 : finals[input.value]));
      return `<rect x="${4 * i}" y="${14 - tall}" width="3" height="${tall}" fill="${colourOf(own)}"/>`;
    });
    const width = 4 * among.length - 1;
    input.nextElementSibling.querySelector("svg")?.remove();
    input.nextElementSibling.insertAdjacentHTML("afterbegin", `<svg class="scores" width="${width}" height="14" aria-hidden="true">${bars.join("")}</svg>`);
  }
}

function changed() {
  zooms.clear();
  showKey();
  showScores();
  redraw();
}

function chooseRate(rate) {
  state.rate = rate;
  const input = document.querySelector(`[name=rate][value="${rate}"]`);
  if (input) input.checked = true;
  changed();
}

for (const input of document.querySelectorAll(".choices input, .choices select")) {
  input.addEventListener("change", () => {
    const { name, value } = input;
    if (name === "rate") return chooseRate(value);
    if (name === "seeds" || name === "even") state[name] = input.checked;
    else if (name === "x") state.x = value;
    else state.values[name] = value;
    changed();
  });
}
// A browser may bring back what was chosen before the page was loaded again.
document.querySelector(".choices form").reset();

// ---- The slider through training.

function showStep(player) {
  const [slider, output] = ["input", "output"].map(name => player.querySelector(name));
  slider.value = state.cursor;
  output.textContent = `step ${steps[state.cursor]}`;
  slider.setAttribute("aria-valuetext", output.textContent);
}

for (const player of document.querySelectorAll(".player")) {
  const [button, slider] = ["button", "input"].map(name => player.querySelector(name));
  const last = steps.length - 1;
  let timer;
  const pause = () => { clearInterval(timer); timer = undefined; button.textContent = "Play"; };
  slider.max = last;
  slider.addEventListener("input", () => { pause(); setCursor(Number(slider.value)); });
  button.addEventListener("click", () => {
    if (timer) return pause();
    if (state.cursor === last) setCursor(0);
    button.textContent = "Pause";
    timer = setInterval(() => {
      if (state.cursor === last) return pause();
      setCursor(state.cursor + 1);
    }, 90);
  });
  showStep(player);
}

// ---- Tables of a figure's numbers, and paper.

for (const details of document.querySelectorAll(".numbers")) {
  details.addEventListener("toggle", () => {
    const figure = details.closest("figure");
    if (!drawings.has(figure.id)) draw(figure);
    if (details.open) fill(details, figure);
  });
}

let wide = innerWidth;
addEventListener("resize", () => {
  if (printing || innerWidth === wide) return; // a phone's toolbar comes and goes
  wide = innerWidth;
  redraw();
});
addEventListener("beforeprint", () => {
  document.querySelectorAll("details.definitions, details.choices").forEach(details => { details.open = true; });
  printing = true;
  figures.forEach(draw);
});
addEventListener("afterprint", () => { printing = false; figures.forEach(draw); });

showKey();
showScores();
figures.forEach(figure => near.observe(figure));

// ---- The bar of choices: one line on a small screen, and how much of the screen it covers.

const choices = document.querySelector(".choices");
if (!matchMedia("(min-width: 44.01rem)").matches) choices.open = false;
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--bar", `${choices.offsetHeight}px`);
}).observe(choices);
