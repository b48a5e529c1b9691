// Tables: sort by a column, fold what is long, shrink what is wide for print. Nothing is asked of the network.
const LONG = 10;

function amount(cell) {
  const found = cell.innerText.replaceAll(",", "").match(/-?\d+(\.\d+)?(e-?\d+)?/i);
  return found ? Number(found[0]) : NaN;
}

function sortBy(table, column, button) {
  const rows = [...table.tBodies[0].rows];
  const up = button.parentElement.getAttribute("aria-sort") !== "ascending";
  const numeric = rows.some((row) => !Number.isNaN(amount(row.cells[column])) && /^[-\d(]/.test(row.cells[column].innerText));
  const key = (row) => (numeric ? amount(row.cells[column]) : row.cells[column].innerText);
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (numeric) return (Number.isNaN(x) - Number.isNaN(y)) || (up ? x - y : y - x);
    return up ? x.localeCompare(y) : y.localeCompare(x);
  });
  table.querySelectorAll("th").forEach((head) => head.removeAttribute("aria-sort"));
  button.parentElement.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
}

function dress(box) {
  const table = box.querySelector("table");
  if (!table.tHead || !table.tBodies.length) return;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(table, column, button));
  });
  const rows = table.tBodies[0].rows.length;
  if (rows > LONG + 3) {
    const more = document.createElement("button");
    more.type = "button";
    more.className = "more";
    const say = () => { more.textContent = box.classList.contains("folded") ? `show all ${rows} rows` : "show fewer rows"; };
    box.classList.add("folded");
    say();
    more.addEventListener("click", () => { box.classList.toggle("folded"); box.classList.toggle("open"); say(); });
    box.after(more);
  }
}

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("div.wide").forEach(dress));

const fit = (print) => document.querySelectorAll("div.wide > table").forEach((table) => {
  table.style.zoom = print ? Math.min(1, 660 / table.scrollWidth) : "";
});
window.addEventListener("beforeprint", () => fit(true));
window.addEventListener("afterprint", () => fit(false));
