"use strict";
/* One opened pair: both answers beside each other, thinking and prompt folded. */
const pairs = (function () {
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

  /* Text that scrolls when it is long, so that it must take the keyboard's focus and have a name. */
  function block(text, name) {
    const made = element("pre", "", text);
    made.dir = "auto";
    made.tabIndex = 0;
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", name);
    return made;
  }

  /* `fill` gets the element when it is opened for the first time. */
  function folded(title, fill) {
    const made = element("details", "fold");
    made.append(element("summary", "", title));
    made.addEventListener("toggle", () => { if (made.open) fill(made); }, { once: true });
    return made;
  }

  function marked(text, runs, tag, name) {
    if (!runs) return block(text, name);
    const made = block("", name);
    for (const [part, differs] of runs) made.append(differs ? element(tag, "", part) : part);
    return made;
  }

  function answer(role, view, runs) {
    const column = element("div", "answer");
    const heading = element("h3");
    heading.append(element("span", "role " + role, role));
    column.append(heading);
    if (!view) { column.append(element("p", "nothing", "No answer is stored.")); return column; }
    column.append(definitions(view.facts));
    if (view.metrics.length) column.append(folded("Measured", (fold) => fold.append(definitions(view.metrics))));
    if (view.reasoning) {
      const size = " (" + view.reasoning.length.toLocaleString("en") + " characters)";
      column.append(folded("Thinking" + size, (fold) => fold.append(block(view.reasoning, "Thinking of the " + role))));
    }
    column.append(view.text
      ? marked(view.text, runs, role === "reference" ? "del" : "ins", "Answer of the " + role)
      : element("p", "nothing", "The answer's text is empty."));
    return column;
  }

  /* The question stands beside its answers; a long prompt shows its end, where the question is. */
  function prompt(place, path) {
    const column = element("div", "answer question"), wait = element("p", "nothing", "Loading …");
    column.append(element("h3", "", "Question"), wait);
    texts.prompt(place, path).then((text) => {
      if (!text) { wait.textContent = "The prompt is not stored."; return; }
      const shown = block(text, "Prompt");
      wait.replaceWith(shown);
      shown.scrollTop = shown.scrollHeight;
    }, (error) => { wait.textContent = error.message; });
    return column;
  }

  /* Fill an opened <details>. */
  async function fill(details, place, path) {
    const body = element("div", "body"), wait = element("p", "nothing", "Loading …");
    body.setAttribute("aria-busy", "true");
    body.append(wait);
    details.append(body);
    try {
      const pair = await texts.pair(place, path);
      const found = words.compare(pair.reference?.text ?? "", pair.candidate?.text ?? "");
      const sides = element("div", "sides");
      const question = prompt(place, path);
      if (pair.target !== null) question.querySelector("h3").after(definitions([["target", pair.target]]));
      sides.append(question, answer("reference", pair.reference, found.left), answer("candidate", pair.candidate, found.right));
      body.append(sides);
      if (found.remark) body.append(element("p", "remark", found.remark));
      wait.remove();
    } catch (error) { wait.textContent = error.message; }
    const link = element("a", "permalink", "Link to this pair");
    link.href = "#" + path;
    body.append(link);
    body.removeAttribute("aria-busy");
  }

  return { element, fill };
})();
