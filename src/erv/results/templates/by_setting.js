"use strict";
// Filters and sorts the table of results, and says in what two of them differ.
const data = JSON.parse(document.getElementById("data").textContent);
const body = document.querySelector(".results tbody");

// Narrow pages begin with the results: what all share, and the filters, would fill the first screen.
if (window.matchMedia("(max-width: 760px)").matches) {
  for (const folded of document.querySelectorAll("#same, #filters")) folded.open = false;
}

if (body) {
  const rows = [...body.rows];
  const filters = ["dataset", "fold", "policy", "published"].map((name) => [
    name,
    document.getElementById(`by-${name}`),
  ]);
  const chosen = [];

  const filter = () => {
    let shown = 0;
    for (const row of rows) {
      row.hidden = filters.some(([name, select]) => select.value && row.dataset[name] !== select.value);
      if (!row.hidden) shown += 1;
    }
    document.getElementById("shown").textContent = `${shown} of ${rows.length} rows are shown.`;
  };

  const sort = (heading) => {
    const place = heading.cellIndex;
    const numbers = heading.dataset.sort === "number";
    const falls = numbers
      ? heading.getAttribute("aria-sort") !== "descending"
      : heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falls ? "descending" : "ascending");
    const value = (row) => {
      const cell = row.cells[place];
      return numbers ? cell.dataset.value : cell.textContent.trim();
    };
    const order = [...rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (numbers && (a === "" || b === "")) return (a === "") - (b === ""); // unknown figures stay below
      const rises = numbers ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true });
      return falls ? -rises : rises;
    });
    body.append(...order);
  };

  const unlike = (one, other) => {
    const method = data.keys.indexOf("method");
    // What one method has and another lacks follows from the method.
    const follows = method >= 0 && one.setting[method] !== other.setting[method];
    const found = { differing: [], untold: [], unsaid: [], known: false };
    data.keys.forEach((key, place) => {
      const pair = [one.setting[place], other.setting[place]];
      const silent = pair.filter((text) => data.silent.some((word) => text.startsWith(word))).length;
      if (silent) {
        (silent === 1 ? found.untold : found.unsaid).push(key);
        return;
      }
      if (!pair.includes(data.absent)) found.known = true;
      if (pair[0] !== pair[1] && !(follows && pair.includes(data.absent))) found.differing.push([key, ...pair]);
    });
    return found;
  };

  // The words of `erv figures --between` (differences.py).
  const verdict = ({ differing, untold, unsaid, known }) => {
    const [count, silent] = [differing.length, untold.length + unsaid.length];
    if (count > 1) {
      return `They differ in ${count} settings, so the difference of their figures is not that of one thing:`;
    }
    if (silent && !known) return "Nothing is known of both settings, so in what they differ can't be told.";
    const more = silent ? `, and in ${silent} other${silent === 1 ? "" : "s"} it can't be told` : "";
    if (count === 1) return `They differ in one setting${more}:`;
    return silent ? `No setting that is known of both differs${more}.` : "No recorded setting differs.";
  };

  // Of what neither says, the names of parameters would say nothing.
  const titles = (keys) => {
    const texts = keys.filter((key) => data.named.includes(key)).map((key) => data.titles[key]);
    const rest = keys.length - texts.length;
    if (rest) texts.push(`${rest} other parameter${rest === 1 ? "" : "s"}`);
    return texts.length === 1 ? texts[0] : `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}`;
  };

  const element = (name, text, parent) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  };

  const compare = () => {
    const place = document.getElementById("apart");
    place.replaceChildren();
    place.classList.toggle("idle", !chosen.length);
    if (chosen.length < 2) {
      const rest = chosen.length ? "Choose another row" : "Choose two rows";
      element("p", `${rest} to see in what their settings differ.`, place).className = "soft";
      return;
    }
    const [one, other] = chosen.map((key) => data.rows[key]);
    const found = unlike(one, other);
    const sets = one.dataset === other.dataset ? "" : "They were tested on different data sets. ";
    const lead = element("p", "", place);
    element("b", `${one.name} (${chosen[0]}) and ${other.name} (${chosen[1]}). `, lead);
    lead.append(sets + verdict(found));
    const list = element("ul", undefined, place);
    for (const [key, from, to] of found.differing) {
      const item = element("li", undefined, list);
      element("b", `${data.titles[key]}: `, item);
      item.append(`${from} → ${to}`);
    }
    if (found.untold.length) {
      const names = found.untold.map((key) => data.titles[key]).join(", ");
      element("p", `Whether they differ in these can't be told, as one of them doesn't say: ${names}.`, place);
    }
    if (found.unsaid.length) {
      const names = titles(found.unsaid);
      element("p", `Whether they differ in these can't be told, as neither of them says: ${names}.`, place);
    }
  };

  body.addEventListener("change", (event) => {
    const key = event.target.closest("tr").dataset.key;
    if (!event.target.checked) chosen.splice(chosen.indexOf(key), 1);
    else if (chosen.push(key) > 2) {
      const first = chosen.shift();
      document.querySelector(`#row-${first} input`).checked = false;
    }
    compare();
  });
  for (const heading of document.querySelectorAll(".results th[data-sort]")) {
    heading.querySelector("button").addEventListener("click", () => sort(heading));
  }
  for (const [, select] of filters) select.addEventListener("change", filter);
  filter();
  const open = () => {
    const target = location.hash && document.querySelector(`article${location.hash}`);
    if (target) target.querySelector("details").open = true;
  };
  window.addEventListener("hashchange", open);
  open();
}
