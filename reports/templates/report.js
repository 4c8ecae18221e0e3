"use strict";
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

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;  // text only: an answer never becomes markup
    return made;
  }

  function definitions(facts) {
    const list = element("dl", "answer-facts");
    for (const [name, value] of facts) {
      const row = element("div");
      row.append(element("dt", "", name), element("dd", "", value));
      list.append(row);
    }
    return list;
  }

  function block(text) {
    const made = element("pre", "", text);
    made.dir = "auto";
    made.tabIndex = 0;
    return made;
  }

  function folded(title, text) {
    const made = element("details", "fold");
    made.append(element("summary", "", title), block(text));
    return made;
  }

  function answer(role, view) {
    const column = element("div", "answer");
    const heading = element("h3");
    heading.append(element("span", "role " + role, role));
    column.append(heading);
    if (!view) { column.append(element("p", "nothing", "No answer is stored.")); return column; }
    column.append(definitions(view.facts));
    if (view.reasoning) column.append(folded("Thinking", view.reasoning));
    column.append(view.text ? block(view.text) : element("p", "nothing", "The answer's text is empty."));
    return column;
  }

  function fill(details, pairs) {
    if (details.dataset.filled) return;
    details.dataset.filled = "yes";
    const pair = pairs[Number(details.dataset.place)];
    const body = element("div", "body");
    body.append(pair.prompt === null ? element("p", "nothing", "The prompt is not stored.") : folded("Prompt", pair.prompt));
    const target = pair.target === null ? [] : [["target", pair.target]];
    if (target.length || pair.facts.length) body.append(definitions(target.concat(pair.facts)));
    const sides = element("div", "sides");
    sides.append(answer("reference", pair.reference), answer("candidate", pair.candidate));
    const link = element("a", "permalink", "Link to this pair");
    link.href = "#" + details.id;
    body.append(sides, link);
    details.append(body);
  }

  function start() {
    setTheme(root.dataset.theme);
    byId("theme").addEventListener("click", () => {
      const next = themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length];
      setTheme(next);
      try { localStorage.setItem("quantgate-theme", next); } catch { /* a page without storage forgets */ }
    });
    for (const region of document.querySelectorAll(".scroll")) {
      if (region.scrollWidth <= region.clientWidth) region.removeAttribute("tabindex");
    }
    const data = byId("pairs-data");
    if (!data) return;
    const pairs = JSON.parse(data.textContent);
    const rows = Array.from(document.querySelectorAll("details.pair"));
    const texts = pairs.map((pair) => JSON.stringify(pair).toLowerCase());
    for (const row of rows) row.addEventListener("toggle", () => { if (row.open) fill(row, pairs); });

    function filter() {
      const kind = byId("kind").value, suite = byId("suite").value;
      const wanted = JSON.stringify(byId("search").value.toLowerCase()).slice(1, -1);
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = Boolean((kind && row.dataset.kind !== kind) || (suite && row.dataset.suite !== suite)
          || (wanted && !texts[place].includes(wanted)));
        if (!row.hidden) shown += 1;
      });
      byId("count").textContent = shown === rows.length ? "" : shown + " of " + rows.length + " shown";
    }
    byId("filters").hidden = false;
    byId("filters").addEventListener("input", filter);
    byId("filters").addEventListener("submit", (event) => event.preventDefault());

    function follow() {
      const row = rows.find((each) => "#" + each.id === location.hash);
      if (row) { row.hidden = false; row.open = true; fill(row, pairs); row.scrollIntoView(); }
    }
    addEventListener("hashchange", follow);
    follow();
  }

  root.dataset.theme = storedTheme();
  document.addEventListener("DOMContentLoaded", start);
})();
