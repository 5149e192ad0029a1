// Draws a line from every box to those that it is made from, and marks those of the box under the pointer.
const svg = document.getElementById("edges");
const graph = document.getElementById("graph");
const box = (number) => document.getElementById(`n${number}`);

function draw() {
  const origin = graph.getBoundingClientRect();
  const paths = EDGES.map(([from, to]) => {
    const upper = box(from).getBoundingClientRect();
    const lower = box(to).getBoundingClientRect();
    const x1 = upper.left + upper.width / 2 - origin.left;
    const y1 = upper.bottom - origin.top;
    const x2 = lower.left + lower.width / 2 - origin.left;
    const y2 = lower.top - origin.top;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", `M${x1} ${y1}C${x1} ${y1 + 40} ${x2} ${y2 - 40} ${x2} ${y2}`);
    path.dataset.from = from;
    path.dataset.to = to;
    return path;
  });
  svg.replaceChildren(...paths);
}

function mark(number) {
  for (const path of svg.children) {
    const ends = [path.dataset.from, path.dataset.to];
    path.classList.toggle("near", ends.includes(number));
  }
  const near = new Set(EDGES.filter((ends) => ends.map(String).includes(number)).flat().map(String));
  for (const item of graph.querySelectorAll(".box")) {
    item.classList.toggle("near", near.has(item.id.slice(1)));
  }
}

for (const item of graph.querySelectorAll(".box")) {
  item.addEventListener("mouseenter", () => mark(item.id.slice(1)));
  item.addEventListener("mouseleave", () => mark(""));
}
addEventListener("resize", draw);
graph.addEventListener("toggle", draw, true);
draw();
