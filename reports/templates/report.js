"use strict";
/* What every page has: the theme's button, folds that open for a link, and tables that fit a narrow window. */
(function () {
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const byId = (id) => document.getElementById(id);

  function storedTheme() {
    const asked = new URLSearchParams(location.search).get("theme");
    if (themes.includes(asked)) return asked;
    try { return localStorage.getItem("quantgate-theme") || "auto"; } catch { return "auto"; }
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    const button = byId("theme");
    if (button) { button.textContent = "Theme: " + theme; button.hidden = false; }
  }

  /* A link into a fold opens it. */
  function unfold() {
    let id = "";
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    const target = byId(id);
    if (!target) return;
    for (let each = target; each; each = each.parentElement) if (each.localName === "details") each.open = true;
    const own = target.matches(".suite") ? target.querySelector(":scope > details") : null;
    if (own) own.open = true;
  }

  function foldAll() {
    const button = byId("fold"), folds = document.querySelectorAll("#suites .suite > details");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const open = ![...folds].some((each) => each.open);
      for (const each of folds) each.open = open;
      button.textContent = open ? "Fold all" : "Unfold all";
    });
  }

  /* Where there is room for two columns, the second is the difference: it tells more than either score. */
  function differencesSecond(narrow) {
    for (const table of document.querySelectorAll("table.scores")) {
      const head = table.tHead.rows[0], place = [...head.cells].findIndex((each) => /^Difference/.test(each.textContent));
      if (place < 1 || Boolean(table.dataset.from) === narrow) continue;
      const columns = (index) => [...head.cells].slice(0, index).reduce((sum, each) => sum + each.colSpan, 0);
      const move = (row, from, to) => row.insertBefore(row.cells[from], row.cells[to]);
      if (narrow) {
        const from = columns(place);
        table.dataset.from = place + "," + from;
        move(head, place, 1);
        for (const row of table.tBodies[0].rows) move(row, from, 1);
      } else {
        const [was, from] = table.dataset.from.split(",").map(Number);
        move(head, 1, was + 1);
        for (const row of table.tBodies[0].rows) move(row, 1, from + 1);
        delete table.dataset.from;
      }
    }
  }

  function start() {
    setTheme(root.dataset.theme);
    unfold();
    addEventListener("hashchange", unfold);
    foldAll();
    const narrow = matchMedia("(max-width: 40rem)");
    narrow.addEventListener("change", () => differencesSecond(narrow.matches));
    differencesSecond(narrow.matches);
    byId("theme")?.addEventListener("click", () => {
      const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
      setTheme(next);
      try { localStorage.setItem("quantgate-theme", next); } catch { /* a page without storage forgets */ }
    });
    /* A region that scrolls takes the keyboard's focus, one that does not need not; windows change their width. */
    const sizes = new ResizeObserver((entries) => {
      for (const { target } of entries) {
        const scrolls = target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight;
        if (scrolls) target.tabIndex = 0; else target.removeAttribute("tabindex");
      }
    });
    for (const region of document.querySelectorAll(".scroll")) sizes.observe(region);
  }

  root.dataset.theme = storedTheme();
  document.addEventListener("DOMContentLoaded", start);
})();
