"use strict";
/* The list of all pairs: filters and order, which stand in the address, search, pages of a hundred, permalinks. */
(function () {
  const PAGE = 100;
  const SAID = 36;  // characters of an answer in the list
  const byId = (id) => document.getElementById(id);
  const count = (number) => number.toLocaleString("en");
  const element = pairs.element;
  const [TASK, ITEM, REPEAT, KIND, FLAGS, LANGUAGE, SCORES, ANSWERS, TOKENS, CHANGE, KL] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
  const FILTERS = "pairs?";  // begins an address that sets filters (reports/samples/links.py)
  /* What each order sorts by, the largest first; null comes last. */
  const ORDERS = {
    lost: ["most score lost", (row) => (row[CHANGE] === null ? null : -row[CHANGE])],
    gained: ["most score gained", (row) => row[CHANGE]],
    kl: ["largest KL", (row) => row[KL]],
    longer: ["grown most in length", (row) => (row[TOKENS].includes(null) ? null : row[TOKENS][1] - row[TOKENS][0])],
    long: ["longest answer", (row) => (row[TOKENS].every((count) => count === null) ? null : Math.max(...row[TOKENS]))],
  };
  const CUT = [1, 2], LIMITED = [16, 32];
  let index, rows, list;
  let shown = [];  // places in `rows` of the pairs that fit the filters
  let page = 0;
  let pinned = null;  // a linked pair that the filters hide
  let haystacks = null;
  let full = { query: "", found: new Set(), done: false };
  let search = 0;  // grows with every search, so that an older one can tell that it is no longer wanted

  const names = (row) => [...index.tasks[row[TASK]], row[ITEM], String(row[REPEAT])];
  const pathOf = (row) => names(row).map(encodeURIComponent).join("/").replaceAll("%40", "@");  // as path_of()

  /* -- the list ------------------------------------------------------------------------------------------- */

  function item(row) {
    const made = element("bdi");
    for (const part of names(row).join("/").split(/(?<=[/_])/)) made.append(part, document.createElement("wbr"));
    return made;
  }

  function both(className, name, values) {
    const made = element("span", className);
    if (values.every((value) => value === null)) return made;
    made.append(element("span", "hidden", name + " "));
    values.forEach((value, place) => {
      if (place) made.append(" → ");
      made.append(element("bdi", "", value === null ? "–" : value.length > SAID ? value.slice(0, SAID - 1) + "…" : value));
    });
    return made;
  }

  function entry(place) {
    const row = rows[place], [kind, label] = index.kinds[row[KIND]];
    const made = element("details", "pair kind-" + kind), summary = element("summary");
    const name = element("span", "item"), scores = element("span", "num scores");
    name.append(item(row));
    scores.append(element("bdi", "", row[SCORES]));
    const tokens = row[TOKENS].map((number, role) =>
      number === null ? null : count(number) + (row[FLAGS] & CUT[role] ? " (cap)" : row[FLAGS] & LIMITED[role] ? " (limit)" : ""));
    summary.append(element("span", "kind", label), name, both("said", "answers", row[ANSWERS]),
      both("num tokens", "tokens", tokens), scores);
    made.append(summary);
    made.addEventListener("toggle", () => { if (made.open) pairs.fill(made, place, pathOf(row)); }, { once: true });
    return made;
  }

  function draw() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    page = Math.min(Math.max(page, 0), pages - 1);
    const places = shown.slice(page * PAGE, (page + 1) * PAGE);
    const entries = places.map(entry);
    if (pinned !== null) {
      const note = element("p", "remark", "The linked pair, which the filters hide:");
      list.replaceChildren(note, entry(pinned), ...entries);
    } else list.replaceChildren(...entries);
    byId("pager").hidden = pages < 2;
    byId("page").max = String(pages);
    byId("page").value = String(page + 1);
    byId("pages").textContent = "of " + count(pages);
    byId("previous").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
    const first = page * PAGE + 1, last = page * PAGE + places.length;
    const range = pages > 1 ? ", " + count(first) + " to " + count(last) + " here" : "";
    byId("count").textContent = !shown.length ? "No pair fits." : shown.length === rows.length
      ? count(rows.length) + (rows.length === 1 ? " pair" : " pairs") + range
      : count(shown.length) + " of " + count(rows.length) + " pairs" + range;
    return entries;
  }

  function turn(to) {
    page = to;
    draw();
    byId("filters").scrollIntoView({ block: "start" });
  }

  /* -- filters -------------------------------------------------------------------------------------------- */

  function byChoice(value) {
    const [what, asked] = value.split(":");
    if (what === "kinds") {
      const wanted = new Set(asked.split(","));
      const fits = index.kinds.map(([kind]) => wanted.has(kind));
      return (row) => fits[row[KIND]];
    }
    if (what === "flags") {
      const [mask, bits] = asked.split("=").map(Number);
      return bits === undefined ? (row) => (row[FLAGS] & mask) !== 0 : (row) => (row[FLAGS] & mask) === bits;
    }
    return () => true;
  }

  const query = () => byId("search").value.trim().toLowerCase();

  function narrowed() {
    const kind = byChoice(byId("kind").value), suite = byId("suite").value;
    const task = byId("task").value, language = byId("language").value;
    const tasks = index.tasks.map((each, place) => (!suite || each[0] === suite) && (!task || String(place) === task));
    const found = [];
    rows.forEach((row, place) => {
      if (tasks[row[TASK]] && (!language || String(row[LANGUAGE]) === language) && kind(row)) found.push(place);
    });
    return found;
  }

  function filter() {
    const wanted = query();
    shown = narrowed();
    if (wanted) {
      haystacks ??= rows.map((row) => [...names(row), row[SCORES], ...row[ANSWERS]].join("/").toLowerCase());
      shown = shown.filter((place) => haystacks[place].includes(wanted) || (full.query === wanted && full.found.has(place)));
    }
    byId("whole").hidden = !wanted || !texts.count() || (full.query === wanted && full.done);
    if (full.query !== wanted) stop();
    sort();
    draw();
  }

  function sort() {
    const order = ORDERS[byId("sort").value];
    if (!order) return;
    const keys = new Map(shown.map((place) => [place, order[1](rows[place]) ?? -Infinity]));
    shown.sort((a, b) => keys.get(b) - keys.get(a) || a - b);
  }

  function offerOrders() {
    for (const [name, [words, key]] of Object.entries(ORDERS)) {
      if (rows.some((row) => key(row))) byId("sort").append(new Option(words, name));
    }
    byId("sort").closest("label").hidden = byId("sort").options.length < 2;
  }

  function changed() {
    page = 0;
    pinned = null;
    write();
    if (full.query) { search += 1; full = { query: "", found: new Set(), done: false }; }
    filter();
  }

  function offerTasks() {
    const suite = byId("suite").value, select = byId("task"), every = select.options[0];
    select.replaceChildren(every);
    index.tasks.forEach(([of, task], place) => {
      if (suite && of !== suite) return;
      select.append(new Option(suite ? task : of + "/" + task, String(place)));
    });
    select.closest("label").hidden = select.options.length < 3;
    select.value = "";
  }

  function offerLanguages() {
    let spoken = null;
    try { spoken = new Intl.DisplayNames(["en"], { type: "language" }); } catch { /* codes alone, then */ }
    index.languages.forEach((code, place) => {
      const name = spoken?.of(code);
      byId("language").append(new Option(name && name !== code ? name + " (" + code + ")" : code, String(place)));
    });
    byId("language").closest("label").hidden = !index.languages.length;
  }

  /* -- whole answers -------------------------------------------------------------------------------------- */

  function stop() {
    byId("progress").hidden = true;
    byId("fault").textContent = "";
  }

  const holds = (answer, wanted) => answer !== null
    && (answer.text.toLowerCase().includes(wanted) || answer.reasoning.toLowerCase().includes(wanted));

  /* Look for the words in answers and thinking, file by file; only of those pairs that the other filters show. */
  async function searchWhole() {
    const wanted = query(), mine = search += 1;
    if (!wanted || !texts.count()) return;
    full = { query: wanted, found: new Set(), done: false };
    const places = new Set(narrowed()), files = [...new Set([...places].map(texts.fileOf))];
    const bar = byId("progress");
    stop();
    bar.max = files.length;
    bar.value = 0;
    bar.hidden = false;
    for (const number of files) {
      try {
        const { start, pairs: stored } = await texts.file(number);
        if (mine !== search) return;
        stored.forEach((pair, place) => {
          if (places.has(start + place) && (holds(pair.reference, wanted) || holds(pair.candidate, wanted))) {
            full.found.add(start + place);
          }
        });
      } catch (error) {
        if (mine !== search) return;
        byId("fault").textContent = error.message;
      }
      bar.value += 1;
    }
    full.done = true;
    bar.hidden = true;
    page = 0;
    filter();
  }

  /* -- filters in the address ------------------------------------------------------------------------------ */

  const chosen = (id) => (byId(id).selectedIndex > 0 ? byId(id).selectedOptions[0].text : "");

  function write() {
    const task = byId("task").value;
    const found = {
      suite: byId("suite").value, task: task && index.tasks[task][1], show: byId("kind").value,
      language: chosen("language") && index.languages[byId("language").value], sort: byId("sort").value,
      q: byId("search").value.trim(),
    };
    if (task) found.suite = index.tasks[task][0];
    const wanted = new URLSearchParams(Object.entries(found).filter(([, value]) => value));
    history.replaceState(null, "", "#" + (wanted.size ? FILTERS + wanted : "pairs"));
  }

  /* Set the filters as the address says, and show the list; what it says and nothing here is called stays unset. */
  function read() {
    const wanted = new URLSearchParams(location.hash.slice(1 + FILTERS.length));
    const set = (id, value) => {
      const select = byId(id);
      select.value = [...select.options].some((option) => option.value === value) ? value : "";
    };
    const suite = wanted.get("suite") || "", task = wanted.get("task");
    set("suite", suite);
    offerTasks();
    set("task", String(index.tasks.findIndex(([of, name]) => name === task && (!suite || of === suite))));
    set("kind", wanted.get("show") || "");
    set("language", String(index.languages.indexOf(wanted.get("language"))));
    set("sort", wanted.get("sort") || "");
    byId("search").value = wanted.get("q") || "";
    page = 0;
    pinned = null;
    filter();
    byId("pairs").scrollIntoView();
  }

  /* -- permalinks ----------------------------------------------------------------------------------------- */

  function decoded(hash) {
    try { return hash.slice(1).split("/").map(decodeURIComponent).join("\n"); } catch { return ""; }
  }

  function follow() {
    if (location.hash.startsWith("#" + FILTERS)) { read(); return; }
    const wanted = decoded(location.hash);
    if (wanted.split("\n").length !== 4) return;
    const place = rows.findIndex((row) => names(row).join("\n") === wanted);
    if (place < 0) { byId("fault").textContent = "No pair of this run is named " + wanted.replaceAll("\n", "/") + "."; return; }
    const among = shown.indexOf(place);
    pinned = among < 0 ? place : null;
    if (among >= 0) page = Math.floor(among / PAGE);
    const entries = draw();
    const row = pinned === null ? entries[among % PAGE] : list.querySelector("details");
    row.open = true;
    (pinned === null ? row : list).scrollIntoView();
    row.querySelector("summary").focus({ preventScroll: true });
  }

  function start() {
    const data = byId("pairs-data");
    if (!data) return;
    index = JSON.parse(data.textContent);
    data.textContent = "";  // 30,000 rows need not be kept twice
    rows = index.rows;
    list = byId("list");
    texts.begin(index);
    offerTasks();
    offerLanguages();
    offerOrders();
    byId("suite").closest("label").hidden = byId("suite").options.length < 3;
    byId("samples").hidden = false;
    byId("filters").addEventListener("input", (event) => {
      if (event.target.id === "marks") { list.classList.toggle("unmarked", !event.target.checked); return; }
      if (event.target.id === "suite") offerTasks();
      changed();
    });
    byId("filters").addEventListener("submit", (event) => { event.preventDefault(); searchWhole(); });
    byId("previous").addEventListener("click", () => turn(page - 1));
    byId("next").addEventListener("click", () => turn(page + 1));
    byId("page").addEventListener("change", () => turn(Number(byId("page").value) - 1 || 0));
    filter();
    addEventListener("hashchange", follow);
    follow();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
