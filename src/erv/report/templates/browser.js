"use strict";
// The browser of clips. What models wrote is untrusted: it becomes text nodes, never markup.
(() => {
  const RIGHT = 1, COHERENT = 2, DISAGREE = 4; // as in erv.report.clips
  const AT_ONCE = 200; // clips in the list before "Show more"
  const OUTCOMES = {
    silent: "no emotion",
    outside: "an emotion outside the list",
    unreadable: "can't read it",
    failed: "no reply",
  };
  const FIELDS = ["policy", "answer", "explanation", "judges", "change", "dataset", "emotion", "order", "find"];

  const by = (id) => document.getElementById(id);
  const data = JSON.parse(by("data").textContent);
  const form = by("filters"), list = by("list"), article = by("clip"), search = form.elements.find;
  const clips = data.clips.map(unpack);
  const byKey = new Map(clips.map((clip) => [clip.key, clip]));
  let shown = [], limit = AT_ONCE, current = null;

  function unpack([dataset, id, truth, answers, flags, changed], place) {
    const name = data.datasets[dataset].name;
    return {
      key: `${name}/${id}`,
      title: `${data.datasets[dataset].title} ${id}`,
      dataset: name,
      truth: data.emotions[truth],
      emotion: data.datasets[dataset].pooled[data.emotions[truth]] ?? data.emotions[truth],
      answers: answers.map((answer) => data.emotions[answer] ?? null),
      flags,
      changed,
      place,
      page: data.pages.findIndex((page) => place < page.end),
      record: data.records[place - data.first],
    };
  }

  // Building elements.

  function element(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  function drawing(tag, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }

  // Filters.

  const wanted = () => Object.fromEntries(FIELDS.map((name) => [name, form.elements[name]?.value.trim() ?? ""]));

  function text(clip) {
    clip.text ??= [clip.key, clip.title, clip.truth, clip.emotion, ...clip.answers, ...words(clip.record)].join(" ").toLowerCase();
    return clip.text;
  }

  function words(record) {
    return record ? record.answers.flatMap((answer) => [answer.raw, ...answer.sentences.map(([sentence]) => sentence)]) : [];
  }

  function fits(clip, want) {
    if (want.dataset && clip.dataset !== want.dataset) return false;
    if (want.emotion && clip.emotion !== want.emotion) return false;
    if (want.change && (new Set(clip.answers).size > 1) !== (want.change === "differ")) return false;
    const flags = clip.flags.filter((_, i) => asked(data.policies[i], want));
    const is = (flag, bit, value, yes) => !value || Boolean(flag & bit) === (value === yes);
    const one = (flag) =>
      is(flag, RIGHT, want.answer, "right") &&
      is(flag, COHERENT, want.explanation, "coherent") &&
      is(flag, DISAGREE, want.judges, "disagree");
    return flags.some(one) && want.find.toLowerCase().split(/\s+/).every((word) => text(clip).includes(word));
  }

  // A policy that gives no explanation is neither coherent nor incoherent, and judges have nothing to read.
  function asked({ name, explains }, want) {
    return (!want.policy || name === want.policy) && (explains || !(want.explanation || want.judges));
  }

  const ORDERS = {
    "": (a, b) => a.place - b.place,
    changed: (a, b) => b.changed - a.changed || a.place - b.place,
    clip: (a, b) => (a.key < b.key ? -1 : 1),
  };

  function filter() {
    const want = wanted();
    shown = clips.filter((clip) => fits(clip, want)).sort(ORDERS[want.order] ?? ORDERS[""]);
    limit = AT_ONCE;
    fill();
    if (current) address(current);
  }

  // The list.

  function hash(clip) {
    const parameters = new URLSearchParams(clip ? { clip: clip.key } : {});
    for (const [name, value] of Object.entries(wanted())) if (value) parameters.set(name, value);
    return "#" + parameters.toString().replaceAll("%2F", "/");
  }

  function address(clip) {
    try {
      history.replaceState(null, "", hash(clip));
    } catch {
      // Inside a frame that has no address of its own, such as MLflow's viewer.
    }
  }

  function summary(clip) {
    return data.policies.map(({ title, explains }, i) => {
      const right = clip.flags[i] & RIGHT ? "right" : "wrong";
      const coherent = !explains ? "no explanation" : clip.flags[i] & COHERENT ? "coherent" : "incoherent";
      return `${title}: ${clip.answers[i] ?? "no answer that counts"}, ${right}, ${coherent}`;
    });
  }

  function item(clip) {
    const badges = data.policies.map(({ explains }, i) => {
      const right = clip.flags[i] & RIGHT, coherent = !explains || clip.flags[i] & COHERENT;
      return element("span", { class: `badge p${i % 5} ${right ? "" : "miss"}` }, (right ? "✓" : "✗") + (coherent ? "" : " ≠"));
    });
    const says = summary(clip);
    const link = element(
      "a",
      { href: (clip.page === data.page ? "" : data.pages[clip.page].href) + hash(clip), "aria-label": [`${clip.title}, ${clip.truth}`, ...says].join(". "), title: says.join("\n") },
      thumbnail(clip),
      element("span", { class: "names" }, element("strong", {}, clip.truth), element("small", {}, clip.title)),
      element("span", { class: "badges" }, ...badges),
    );
    link.clip = clip;
    return element("li", {}, link);
  }

  function thumbnail(clip) {
    if (!clip.record?.frames) return element("span", { class: "thumb" });
    const image = element("img", { class: "thumb", src: clip.record.frames, alt: "", loading: "lazy" });
    const last = clip.record.frame_count - 1;
    image.style.objectPosition = `${last ? (100 * Math.floor(last / 2)) / last : 0}% 0`;
    return image;
  }

  function fill() {
    const place = current ? shown.indexOf(current) : -1;
    limit = Math.max(limit, place + 1);
    list.replaceChildren(...shown.slice(0, limit).map(item));
    by("count").textContent = `${shown.length} of ${clips.length} clips`;
    by("more").hidden = shown.length <= limit;
    mark();
  }

  const link = (clip) => [...list.querySelectorAll("a")].find((node) => node.clip === clip);

  function mark() {
    for (const node of list.querySelectorAll("a")) {
      const is = node.clip === current;
      if (is) node.setAttribute("aria-current", "true");
      else node.removeAttribute("aria-current");
      if (is) keepInView(node);
    }
    const place = shown.indexOf(current);
    by("place").textContent = place < 0 ? "not among the filtered clips" : `${place + 1} of ${shown.length}`;
    by("previous").disabled = place <= 0;
    by("next").disabled = place >= shown.length - 1;
  }

  function keepInView(node) { // scrolls the list, never the page
    const top = node.parentElement.offsetTop - list.offsetTop, bottom = top + node.parentElement.offsetHeight;
    if (top < list.scrollTop) list.scrollTop = top;
    if (bottom > list.scrollTop + list.clientHeight) list.scrollTop = bottom - list.clientHeight;
  }

  // One clip.

  function open(clip) {
    if (clip.page !== data.page) {
      location.href = data.pages[clip.page].href + hash(clip);
      return;
    }
    current = clip;
    by("open-clip").textContent = `${clip.title}: ${clip.truth}`;
    const { record } = clip;
    const parts = [];
    if (record.frames) parts.push(element("img", { class: "strip", src: record.frames, alt: `${record.frame_count} frames of clip ${clip.title}` }));
    parts.push(...sound(record));
    if (record.withheld) parts.push(element("p", { class: "soft" }, "Frames and sound are left out: report.show_media in params.yaml does not list this data set."));
    if (record.cues.length) {
      const where = record.channel === "both" ? " (face and voice)" : record.channel ? ` (${record.channel} only)` : "";
      parts.push(element("p", {}, element("span", { class: "soft" }, `In the clip${where}: `), ...record.cues.map((cue) => element("span", { class: "chip" }, cue))));
    }
    parts.push(...record.answers.map((answer, i) => said(answer, clip, i)));
    article.replaceChildren(...parts);
    if (!link(clip) && shown.includes(clip)) fill();
    else mark();
  }

  function sound(record) {
    if (!record.wave.length) return [element("p", { class: "soft" }, record.seconds === null ? "The clip has no sound." : "The sound is silent.")];
    const about = `Sound: ${record.seconds.toFixed(1)} s, loudest ${record.loudest.toFixed(1)} dB of full scale`;
    const path = record.wave.map((peak, i) => `M${i + 0.5} ${50 - Math.max(1, peak / 2)}V${50 + Math.max(1, peak / 2)}`).join("");
    const played = drawing("rect", { class: "played", width: 0, height: 100 });
    const wave = drawing("svg", { class: record.sound ? "wave plays" : "wave", viewBox: `0 0 ${record.wave.length} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `${about}; waveform` }, played, drawing("path", { d: path }));
    const caption = element("p", { class: "soft about" }, about + (record.seconds > data.sound_seconds ? `; the first ${data.sound_seconds} s are shown` : ""));
    if (!record.sound) return [wave, caption];
    const player = element("audio", { controls: "", preload: "none", src: record.sound, "aria-label": "Sound of the clip" });
    const length = Math.min(record.seconds, data.sound_seconds);
    player.addEventListener("timeupdate", () => played.setAttribute("width", (record.wave.length * player.currentTime) / length));
    wave.addEventListener("click", (event) => {
      player.currentTime = (length * event.offsetX) / wave.clientWidth;
      player.play();
    });
    return [wave, caption, player];
  }

  function said(answer, clip, i) {
    const right = clip.flags[i] & RIGHT;
    const unread = { outside: " (not a label)", malformed: "no answer" }[answer.unread] ?? "";
    const head = element("div", {}, element("strong", {}, data.policies[i].title), ": ",
      element("span", { class: `verdict ${right ? "right" : "wrong"}` }, `${answer.answer ?? ""}${unread} ${right ? "✓" : "✗"}`));
    const votes = answer.votes.map(([outcome, emotion, agrees], j) => {
      const mood = agrees === null ? "" : agrees ? "yes" : "no";
      return element("span", { class: `chip ${mood}` }, `${data.panel[j]}: ${outcome === "named" ? emotion : OUTCOMES[outcome]}${mood ? (agrees ? " ✓" : " ✗") : ""}`);
    });
    const body = answer.raw === null ? element("p", {}, ...answer.sentences.flatMap(([sentence, read]) => [coloured(sentence, read), " "])) : element("pre", {}, answer.raw);
    const claims = answer.claims.map(([cue, present]) => element("span", { class: `chip ${present ? "yes" : "no"}` }, `${present ? "✓" : "✗"} ${cue}`));
    const parts = [head, body];
    if (data.policies[i].explains) parts.push(element("div", {}, element("span", { class: "soft" }, "Read as "), ...votes));
    else parts.push(element("div", { class: "soft" }, "It answers without explaining, so judges have nothing to read."));
    if (claims.length) parts.push(element("div", {}, element("span", { class: "soft" }, "Claims "), ...claims));
    return element("div", { class: `says p${i % 5}` }, ...parts);
  }

  function coloured(sentence, read) {
    const reader = Number(form.ownerDocument.querySelector("input[name=reader]:checked")?.value ?? 0);
    const emotions = read[reader], hue = data.hues[emotions[0]];
    const all = data.readers.map((name, i) => `${name}: ${read[i].join(" + ") || "none"}`).join("\n");
    const node = element("mark", { class: hue === undefined ? "none" : "", title: all }, sentence, element("sup", {}, emotions.join(" + ") || "none"));
    if (hue !== undefined) node.style.setProperty("--h", hue);
    return node;
  }

  // Keys and links.

  function move(step, from = current) {
    const clip = shown[shown.indexOf(from) + step];
    if (!clip) return;
    open(clip);
    if (clip.page === data.page) address(clip); // else Back would lead from the other page to itself
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { target, key } = event;
    const typing = target.matches("input, select, textarea, audio");
    const inside = target === document.body || by("browser").contains(target);
    let done = true;
    if (key === "/" && !typing) search.focus();
    else if (!inside) done = false;
    else if (key === "Escape") escape(target);
    else if (list.contains(target) && ["ArrowDown", "ArrowUp", "Home", "End"].includes(key)) walk(target.closest("a"), key);
    else if ((key === "ArrowLeft" || key === "ArrowRight") && !typing) move(key === "ArrowRight" ? 1 : -1);
    else if (key === "ArrowDown" && target === search) list.querySelector("a")?.focus();
    else done = false;
    if (done) event.preventDefault();
  }

  function walk(from, key) {
    const nodes = [...list.querySelectorAll("a")], place = nodes.indexOf(from);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: nodes.length - 1 }[key];
    const node = nodes[Math.min(Math.max(to, 0), nodes.length - 1)];
    if (!node) return;
    node.focus({ preventScroll: true });
    keepInView(node);
    if (node.clip.page === data.page) { // Enter follows a link to another page
      open(node.clip);
      address(node.clip);
    }
  }

  function escape(target) {
    if (target === search && search.value) {
      search.value = "";
      filter();
    } else if (list.contains(target)) {
      reset();
    }
    (link(current) ?? list.querySelector("a"))?.focus();
  }

  function reset() {
    form.reset();
    filter();
  }

  function follow() {
    const parameters = new URLSearchParams(location.hash.slice(1));
    const key = parameters.get("clip");
    if (parameters.size) for (const name of FIELDS) if (form.elements[name]) form.elements[name].value = parameters.get(name) ?? "";
    if (parameters.size && key === null) address(null); // without filters that don't exist
    const clip = byKey.get(key);
    by("unknown").hidden = key === null || clip !== undefined;
    by("unknown").textContent = by("unknown").hidden ? "" : `There is no clip ${key} in this report.`;
    if (clip) current = clip.page === data.page ? clip : current;
    filter();
    const first = shown.find((item) => item.page === data.page) ?? clips[data.first];
    open(clip ?? current ?? first);
    const narrow = matchMedia("(max-width: 760px)").matches; // there the clip is below the list
    if (key !== null) by(clip && narrow ? "clip-head" : "browser").scrollIntoView();
  }

  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  by("clear").addEventListener("click", reset);
  by("more").addEventListener("click", () => {
    limit += AT_ONCE;
    fill();
  });
  by("previous").addEventListener("click", () => move(-1));
  by("next").addEventListener("click", () => move(1));
  by("readers").addEventListener("change", () => open(current));
  list.addEventListener("click", (event) => {
    const node = event.target.closest("a");
    if (!node || node.clip.page !== data.page || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    open(node.clip);
    address(node.clip);
    if (by("clip-head").getBoundingClientRect().top > window.innerHeight * 0.8) by("clip-head").scrollIntoView();
  });
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", follow);
  by("browser").hidden = false;
  follow();
})();
