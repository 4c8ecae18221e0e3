"use strict";
/* The order of the checks. The first one is the report's own: closest to failing. */
(function () {
  document.addEventListener("DOMContentLoaded", () => {
    const order = document.getElementById("order");
    const body = document.querySelector("table.checks tbody");
    if (!order || !body) return;
    const rows = Array.from(body.rows);
    const number = (row, name) => Number(row.dataset[name] || "-1");  // what is not known comes last
    const by = {
      name: (a, b) => a.dataset.name.localeCompare(b.dataset.name),
      n: (a, b) => number(b, "n") - number(a, "n"),
      d: (a, b) => number(b, "d") - number(a, "d"),
    };
    order.addEventListener("change", () => {
      const chosen = by[order.value];
      body.append(...(chosen ? rows.slice().sort(chosen) : rows));
    });
    order.closest("form").addEventListener("submit", (event) => event.preventDefault());
    order.closest("form").hidden = false;
  });
})();
