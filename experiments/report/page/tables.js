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
