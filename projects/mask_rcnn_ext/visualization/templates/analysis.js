"use strict";
(() => {
  document.documentElement.classList.remove("no-script");
  const key = (row, column) => {
    const text = row.cells[column].dataset.value;
    return text === undefined ? row.cells[column].textContent : text === "" ? null : Number(text);
  };
  const compare = (a, b) =>
    typeof a === "string" ? a.localeCompare(b) : a - b;
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const up = cell.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        const rows = [...body.rows].map((row) => [key(row, column), row]);
        // What has no value stays last in both directions.
        rows.sort(([a], [b]) =>
          a === null || b === null ? (a === null) - (b === null) : up ? compare(a, b) : compare(b, a));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }
})();
