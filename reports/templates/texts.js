"use strict";
/* Texts of pairs: in scripts beside the page, each of which hands one JSON value to a function, or inlined. */
const texts = (function () {
  const KEPT = 6;  // files in memory
  const files = new Map();  // name -> promise of its values, the one used last at the end
  const arrived = new Map();
  const GONE = "is not there or cannot be read. Keep the folder beside the page, or write the report again: quantgate report RUN.";
  let index = null;

  function begin(given) {
    index = given;
    window[index.call] = (name, values) => { arrived.set(name, values); };
  }

  function load(name) {
    const known = files.get(name) || new Promise((resolve, reject) => {
      const script = document.createElement("script"), path = index.folder + "/" + name + ".js";
      const end = () => {
        script.remove();
        const values = arrived.get(name);
        arrived.delete(name);
        if (values) { resolve(values); } else { files.delete(name); reject(new Error(path + " " + GONE)); }
      };
      script.onload = end;
      script.onerror = end;
      script.src = path;
      document.head.append(script);
    });
    files.delete(name);
    files.set(name, known);
    if (files.size > KEPT) files.delete(files.keys().next().value);
    return known;
  }

  /* The number of the side file that holds a pair. */
  function fileOf(place) {
    let low = 0, high = index.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (index.starts[middle] <= place) low = middle; else high = middle - 1;
    }
    return low;
  }

  async function one(place, path, suffix) {
    if (!index.starts.length) {
      if (index.inlined && place < index.inlined.length) return index.inlined[place];
      throw new Error("This page holds the texts of the first " + (index.inlined || []).length.toLocaleString("en")
        + " pairs alone; those of this one are in the run folder under samples/.");
    }
    const file = fileOf(place), found = (await load(file + suffix))[place - index.starts[file]];
    if (!found || (suffix ? found[0] : found.path) !== path) {
      throw new Error("The files beside this page are of another rendering of the run: load the page again.");
    }
    return found;
  }

  /* The texts of a pair; `path` is its permalink. Rejects with a sentence for the reader. */
  const pair = (place, path) => one(place, path, "");

  async function prompt(place, path) {
    const found = await one(place, path, index.starts.length ? "-prompts" : "");
    return Array.isArray(found) ? found[1] : found.prompt;
  }

  /* All texts of file number `file`, with the place of the first; a report of a single file has one. */
  async function file(number) {
    if (!index.starts.length) return { start: 0, pairs: index.inlined || [] };
    return { start: index.starts[number], pairs: await load(String(number)) };
  }

  const count = () => index.starts.length || (index.inlined ? 1 : 0);
  return { begin, pair, prompt, file, fileOf, count };
})();
