"use strict";
const root = document.documentElement;
const toggle = document.getElementById("theme");
function setTheme(dark) {
  root.dataset.theme = dark ? "dark" : "light";
  toggle.setAttribute("aria-pressed", String(dark));
}
setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches);
toggle.addEventListener("click", () => setTheme(root.dataset.theme !== "dark"));

const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
function compare(one, other) {
  const [a, b] = [Number(one), Number(other)];
  return one !== "" && other !== "" && !Number.isNaN(a) && !Number.isNaN(b) ? a - b : one.localeCompare(other);
}
for (const heading of document.querySelectorAll("th[scope=col]")) {
  heading.querySelector("button").addEventListener("click", () => {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = heading.closest("table").tBodies[0];
    const rows = [...body.rows].sort((a, b) => compare(key(a, heading.cellIndex), key(b, heading.cellIndex)));
    body.append(...(ascending ? rows : rows.reverse()));
  });
}
