"use strict";
/* Which words two texts do not share, by their longest common subsequence. */
const words = (function () {
  const SINGLE = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}";  // written without spaces
  const WORD = new RegExp(`([${SINGLE}]|(?:(?![${SINGLE}])[\\p{L}\\p{M}\\p{N}_])+|\\S)(\\s*)`, "gu");
  const MOST_CELLS = 4e6;  // of the table: 8 MB, and a tenth of a second at most
  const LEFT_OUT = /\n\[… [\d,]+ characters left out …\]\n/;  // what shortening leaves (reports/text.py)
  const LEAST_SHARED = 0.2;  // below it nearly everything would be marked

  function split(text) {
    const before = text.match(/^\s*/)[0], found = [...text.slice(before.length).matchAll(WORD)];
    return { before, heads: found.map((each) => each[1]), parts: found.map((each) => each[0]) };
  }

  /* Marks (1: not shared) for both lists from `start` to their ends; null when that is too much work. */
  function mark(left, right) {
    let start = 0, leftEnd = left.length, rightEnd = right.length;
    while (start < leftEnd && start < rightEnd && left[start] === right[start]) start += 1;
    while (leftEnd > start && rightEnd > start && left[leftEnd - 1] === right[rightEnd - 1]) { leftEnd -= 1; rightEnd -= 1; }
    const rows = leftEnd - start, columns = rightEnd - start, width = columns + 1;
    if (rows * columns > MOST_CELLS) return null;
    const longest = new Uint16Array((rows + 1) * width);
    for (let i = rows - 1; i >= 0; i -= 1) {
      for (let j = columns - 1; j >= 0; j -= 1) {
        const here = i * width + j;
        longest[here] = left[start + i] === right[start + j]
          ? longest[here + width + 1] + 1
          : Math.max(longest[here + width], longest[here + 1]);
      }
    }
    const marks = { left: new Uint8Array(left.length), right: new Uint8Array(right.length) };
    let i = 0, j = 0;
    while (i < rows || j < columns) {
      if (i < rows && j < columns && left[start + i] === right[start + j]) { i += 1; j += 1; }
      else if (j >= columns || (i < rows && longest[(i + 1) * width + j] >= longest[i * width + j + 1])) {
        marks.left[start + i] = 1; i += 1;
      } else { marks.right[start + j] = 1; j += 1; }
    }
    return marks;
  }

  /* Neighbours of one kind joined: [[text, whether it is marked], ...]. Space is when both its neighbours are,
     on one line. */
  function runs(text, marks) {
    const found = [];
    const add = (part, marked) => {
      const last = found[found.length - 1];
      if (last && last[1] === marked) last[0] += part; else if (part) found.push([part, marked]);
    };
    add(text.before, false);
    text.heads.forEach((head, place) => {
      add(head, Boolean(marks[place]));
      const space = text.parts[place].slice(head.length);
      add(space, Boolean(marks[place] && marks[place + 1] && !space.includes("\n")));
    });
    return found;
  }

  /* { remark, left, right }: runs of both texts, or null in their place and a remark that says why not. */
  function compare(leftText, rightText) {
    const none = (remark) => ({ remark, left: null, right: null });
    if (leftText === rightText) {
      return none(LEFT_OUT.test(leftText) ? "Both answers are the same as far as they are shown." : "Both answers are the same.");
    }
    if (!leftText || !rightText) return none("");
    const left = split(leftText), right = split(rightText);
    const numbers = new Map();
    const numbered = (heads) => Int32Array.from(heads, (head) => {
      if (!numbers.has(head)) numbers.set(head, numbers.size);
      return numbers.get(head);
    });
    const marks = mark(numbered(left.heads), numbered(right.heads));
    if (!marks) return none("The answers are too long to be compared word by word.");
    const shared = marks.left.reduce((sum, each) => sum + 1 - each, 0);
    if (shared < LEAST_SHARED * Math.min(left.heads.length, right.heads.length)) {
      return none("The answers share so few words that none are marked.");
    }
    return { remark: "", left: runs(left, marks.left), right: runs(right, marks.right) };
  }

  return { compare };
})();
