"use strict";
/* What every page has: the theme's button, and regions that need no keyboard when nothing in them scrolls. */
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

  function start() {
    setTheme(root.dataset.theme);
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
