// One point at a time of the documents that changed, filtered by task, change and words.
(() => {
  const section = document.getElementById("documents");
  if (!section) return;
  const form = section.querySelector("form");
  const chosen = form.elements;
  const cards = [...section.querySelectorAll("details")].map((card) => ({
    card,
    point: card.parentElement.dataset.point,
    text: card.textContent.toLowerCase(),
  }));

  function filter() {
    const words = chosen.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const point = chosen.point.value;
    let all = 0;
    let left = 0;
    for (const part of section.querySelectorAll(".point")) part.hidden = part.dataset.point !== point;
    for (const one of cards.filter((other) => other.point === point)) {
      const { task, kind } = one.card.dataset;
      const fits =
        (!chosen.task.value || chosen.task.value === task) &&
        (!chosen.kind.value || chosen.kind.value.split(" ").includes(kind)) &&
        words.every((word) => one.text.includes(word));
      one.card.hidden = !fits;
      all += 1;
      left += fits;
    }
    form.querySelector("output").textContent = `${left} of ${all} documents`;
  }

  for (const event of ["input", "change"]) form.addEventListener(event, filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
})();
