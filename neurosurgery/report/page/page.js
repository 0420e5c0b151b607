"use strict";
// Tooltips for the marks of the figures, by pointer and by arrow keys; tables that sort.
(() => {
  const tip = document.getElementById("tip");
  const REACH = 16; // largest distance in pixels between the pointer and its mark
  const SAME = 3; // marks closer than this, in pixels, share one tooltip
  const AT_ONCE = 3;

  const centre = (box) => [box.left + box.width / 2, box.top + box.height / 2];

  // A mark's accessible name is its facts, a line each.
  function marksOf(plot) {
    const named = [...plot.querySelectorAll('[role="graphics-symbol"][aria-label]')];
    return named.filter((element) => element.getAttribute("aria-label").includes("\n")).map((element) => ({
      element,
      lines: element.getAttribute("aria-label").split("\n").map((line) => {
        const end = line.indexOf(": ");
        return end < 0 ? [line] : [line.slice(0, end), line.slice(end + 2)];
      }),
    }));
  }

  function linesTable(lines) {
    const table = document.createElement("table");
    for (const line of lines) {
      const row = table.insertRow();
      for (const text of line) row.insertCell().textContent = text;
    }
    return table;
  }

  function hide(marks) {
    tip.hidden = true;
    for (const mark of marks) mark.element.classList.remove("active");
  }

  function show(marks, chosen) {
    hide(marks);
    const box = chosen.element.getBoundingClientRect();
    const [x, y] = centre(box);
    const near = marks.filter((mark) => {
      const [a, b] = centre(mark.element.getBoundingClientRect());
      return mark !== chosen && Math.hypot(a - x, b - y) < SAME;
    });
    chosen.element.classList.add("active");
    const told = [chosen, ...near].slice(0, AT_ONCE);
    tip.replaceChildren(...told.map((mark) => linesTable(mark.lines)));
    if (near.length + 1 > AT_ONCE) {
      tip.append(`and ${near.length + 1 - AT_ONCE} more marks here`);
    }
    tip.hidden = false;
    const left = box.right + 12 + tip.offsetWidth < innerWidth ? box.right + 12 : box.left - 12 - tip.offsetWidth;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.max(8, Math.min(y - tip.offsetHeight / 2, innerHeight - tip.offsetHeight - 8))}px`;
  }

  function nearest(marks, x, y) {
    let best = null;
    let least = REACH;
    for (const mark of marks) {
      const box = mark.element.getBoundingClientRect();
      const inside = x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
      const [a, b] = centre(box);
      // A large cell counts wherever the pointer is in it; otherwise the closest mark counts.
      const distance = inside && box.width > 12 ? 0 : Math.hypot(a - x, b - y);
      if (distance < least) [best, least] = [mark, distance];
    }
    return best;
  }

  for (const plot of document.querySelectorAll(".plot")) {
    const marks = marksOf(plot);
    let current = -1;
    let waiting = false;
    const point = (event) => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        const found = nearest(marks, event.clientX, event.clientY);
        if (found) {
          current = marks.indexOf(found);
          show(marks, found);
        } else {
          hide(marks);
        }
      });
    };
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", () => hide(marks));
    plot.addEventListener("blur", () => hide(marks));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide(marks);
      if (!step || !marks.length) return;
      event.preventDefault();
      current = current < 0 ? (step > 0 ? 0 : marks.length - 1) : (current + step + marks.length) % marks.length;
      marks[current].element.scrollIntoView({ block: "nearest", inline: "nearest" });
      show(marks, marks[current]);
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.firstElementChild.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        const order = (row) => {
          const cell = row.cells[column];
          // A cell without an order of its own is sorted by its text.
          const key = cell.dataset.order ?? cell.textContent;
          return cell.classList.contains("number") ? Number(key.replace("inf", "Infinity")) : key;
        };
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const [x, y] = [order(a), order(b)];
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        });
        table.tBodies[0].append(...rows);
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
      });
    });
  }

  const beyond = document.getElementById("beyond");
  if (beyond) {
    beyond.addEventListener("change", () => {
      document.getElementById("table-verdicts").classList.toggle("only-beyond", beyond.checked);
    });
  }
})();
