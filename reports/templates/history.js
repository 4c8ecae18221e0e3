/* Two runs side by side. What is said of a run was worded before; here it is only chosen and set as text. */
(function () {
  const byId = (id) => document.getElementById(id);

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function table(label, columns, rows) {
    const made = element("table", "against");
    made.append(element("caption", "hidden", label));
    const head = element("tr");
    for (const column of columns) {
      const cell = element("th", "", column);
      cell.scope = "col";
      head.append(cell);
    }
    const body = element("tbody");
    for (const row of rows) body.append(row);
    made.append(element("thead"), body);
    made.tHead.append(head);
    return made;
  }

  function row(name, cells, columns, className) {
    const made = element("tr", className);
    const first = element("th", "", name);
    first.scope = "row";
    made.append(first);
    cells.forEach((content, place) => {
      const cell = element("td");
      cell.dataset.label = columns[place + 1];
      cell.append(content);
      made.append(cell);
    });
    return made;
  }

  function result(check, other) {
    const made = element("span");
    if (!check) { made.append(element("span", "nothing", "not checked")); return made; }
    const turned = other && other.verdict !== check.verdict;
    made.append(element("span", turned ? "turned" : "", check.verdict + ", " + check.estimate + " " + (check.value === null ? "" : check.unit)));
    made.append(element("small", "", check.bounds + "; margin " + check.margin + "; n " + check.n));
    return made;
  }

  function change(before, after) {
    if (!before || !after || before.value === null || after.value === null || before.unit !== after.unit) return "–";
    const size = Math.abs(after.value - before.value).toFixed(after.digits);
    const sign = Number(size) === 0 ? "" : after.value < before.value ? "−" : "+";
    return sign + size + " " + after.unit;
  }

  function checks(first, second) {
    const columns = ["Check", "First run", "Second run", "Change of the estimate"];
    const keys = new Set([...Object.keys(second.checks), ...Object.keys(first.checks)]);
    const rows = [...keys].map((key) => {
      const before = first.checks[key], after = second.checks[key];
      return row((after || before).name, [result(before, after), result(after, before), change(before, after)], columns);
    });
    return rows.length ? table("Checks of both runs", columns, rows) : element("p", "nothing", "Neither run has checks.");
  }

  function differing(name, first, second) {
    return Object.keys(first.facts[name]).filter((fact) => first.facts[name][fact] !== second.facts[name][fact]);
  }

  function part(name, facts, equal, first, second) {
    const columns = ["Fact", "First run", "Second run"];
    const rows = facts.map((fact) =>
      row(fact, [first, second].map((run) => run.facts[name][fact] ?? "–"), columns, "of-fact"));
    const made = element("section", "of-part");
    made.append(element("h3", "", name), table(name + " in which the runs differ", columns, rows));
    made.append(element("p", "aside", equal + " equal"));
    return made;
  }

  function facts(first, second) {
    const parts = [], equal = [];
    for (const name of Object.keys(first.facts)) {
      const found = differing(name, first, second);
      const same = first.same[name] + Object.keys(first.facts[name]).length - found.length;
      if (found.length) parts.push(part(name, found, same, first, second));
      else if (same) equal.push(name.toLowerCase() + " (" + same + ")");
    }
    return equal.length ? [...parts, element("p", "equal-parts", "Without a difference: " + equal.join("; ") + ".")] : parts;
  }

  function start() {
    const data = byId("runs-data");
    if (!data) return;
    const runs = JSON.parse(data.textContent);
    function show() {
      const first = runs[Number(byId("first").value)], second = runs[Number(byId("second").value)];
      byId("sides").replaceChildren(checks(first, second), ...facts(first, second));
    }
    byId("choose").hidden = false;
    byId("choose").addEventListener("change", show);
    byId("choose").addEventListener("submit", (event) => event.preventDefault());
    show();
  }

  document.addEventListener("DOMContentLoaded", start);
})();
