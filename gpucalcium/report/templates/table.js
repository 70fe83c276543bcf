"use strict";
const table = document.getElementById("cells");
if (table) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
  const value = (row, column) => {
    const text = row.cells[column].dataset.value, number = Number(text);
    return text === "nan" ? -Infinity : Number.isNaN(number) ? text : number;
  };
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const sign = falling ? -1 : 1;
      rows.sort((a, b) => {
        const x = value(a, column), y = value(b, column);
        return sign * (x < y ? -1 : x > y ? 1 : 0);
      });
      body.append(...rows);
    });
  });
  const kind = document.getElementById("kind"), snr = document.getElementById("snr"), r = document.getElementById("r");
  const filter = () => {
    let count = 0;
    for (const row of rows) {
      const keep = (!kind.value || value(row, 1) === kind.value)
        && (snr.value === "" || value(row, 2) >= Number(snr.value))
        && (r.value === "" || value(row, 3) >= Number(r.value));
      row.hidden = !keep;
      count += keep;
    }
    document.getElementById("shown").textContent = `${count} of ${rows.length}`;
  };
  [kind, snr, r].forEach(input => input.addEventListener("input", filter));
  filter();
}
