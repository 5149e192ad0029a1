// One answer on the page: what the model sees, its explanation as it is written, the verdict, and opinions.

import { draw } from "./app-wave.js";
import { post } from "./app-stream.js";

const TAGS = ["<think>", "</think>", "<answer>", "</answer>"];
const WORDS = { true: "agrees", false: "disagrees", null: "neutral" };
let numbers = 0;

export class Panel {
  /**
   * @param {string} who heading: the version, or A and B
   * @param {HTMLVideoElement|null} video the clip, which follows the time line
   * @param {boolean} asksOpinion whether there are buttons for opinions
   */
  constructor(who, video, asksOpinion = true) {
    const copy = document.getElementById("panel").content.cloneNode(true);
    this.root = copy.querySelector(".panel");
    this.video = video;
    this.asksOpinion = asksOpinion;
    this.completion = "";
    this.sentences = [];
    this.done = null;
    this.id = null;
    this.saying = Promise.resolve(true); // what was said last, once it is saved
    this.waveform = [];
    this.urls = [];
    this.rename(who);
    this.part(".state").textContent = "Waiting";
    this.tie(".time-label", ".time");
    this.tie(".emotion-label", ".emotion");
    this.tie(".better-label", ".better");
    this.followTime();
    this.listen();
  }

  part(selector) { return this.root.querySelector(selector); }

  rename(who) {
    this.who = who;
    this.part(".who").textContent = who;
    this.root.setAttribute("aria-label", who);
  }

  tie(label, field) {
    const id = `field-${numbers++}`;
    this.part(field).id = id;
    this.part(label).htmlFor = id;
  }

  remove() {
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.root.remove();
  }

  tell(event) {
    const write = this[`on_${event.kind}`];
    if (write) write.call(this, event);
  }

  state(text, kind = "") {
    const badge = this.part(".state");
    badge.textContent = text;
    badge.className = `badge state ${kind}`;
  }

  on_opening() { this.state("Loading the version"); }

  on_answering(event) {
    this.id = event.id;
    if (event.version) this.rename(event.version);
    if (event.notice) {
      this.part(".remark").textContent = event.notice;
      this.part(".remark").hidden = false;
    }
    this.state("Reading the clip");
  }

  on_queued(event) { if (event.place > 0) this.state(`${event.place} before this`); }

  on_started() {
    this.state("Looking and listening", "accent");
  }

  on_seen(event) {
    const frames = this.part(".frames");
    for (const text of event.frames) {
      const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
      const url = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
      this.urls.push(url);
      const image = document.createElement("img");
      image.src = url;
      image.alt = "";
      frames.append(image);
    }
    this.waveform = event.waveform;
    this.part(".seen").hidden = false;
    this.redraw();
  }

  on_token(event) {
    this.completion += event.text;
    this.state("Writing", "accent");
    this.write();
  }

  on_sentence(event) {
    this.sentences[event.index] = event;
    this.write();
  }

  on_answer(event) {
    this.scores = event.scores;
    this.part(".answer").textContent = event.text ?? "No answer";
    const best = Object.entries(event.scores).sort((a, b) => b[1] - a[1]).slice(0, 3);
    this.part(".scores").replaceChildren(...best.map(([name, share]) => {
      const line = document.createElement("li");
      const bar = document.createElement("progress");
      bar.max = 1;
      bar.value = share;
      bar.setAttribute("aria-hidden", "true");
      const number = text("span", share > 0 && share < 0.01 ? "< 1%" : `${Math.round(share * 100)}%`, "share");
      line.append(text("span", name), bar, number);
      return line;
    }));
    const choices = ["", ...Object.keys(event.scores)].map((name) => new Option(name || "as answered", name));
    this.part(".emotion").replaceChildren(...choices);
    this.part(".verdict").hidden = false;
  }

  on_done(event) {
    this.done = event;
    this.sentences = event.sentences;
    this.completion = event.completion;
    this.write();
    this.state(event.ended === "length" ? "Cut at its limit" : "Done", event.ended === "length" ? "warn" : "good");
    const counted = event.sentences.filter((one) => one.agrees !== null);
    const speak = counted.filter((one) => one.agrees).length;
    const badge = this.part(".agreement");
    if (event.agreement === null) [badge.textContent, badge.className] = ["no verdict", "badge agreement"];
    else if (!counted.length) [badge.textContent, badge.className] = ["says nothing of emotions", "badge agreement warn"];
    else {
      const all = speak === counted.length;
      badge.textContent = all ? "explanation agrees" : `${speak} of ${counted.length} sentences agree`;
      badge.className = `badge agreement ${all ? "good" : speak * 2 > counted.length ? "warn" : "bad"}`;
    }
    const facts = [
      ["First words", event.seconds.first_token === null ? "none" : `${seconds(event.seconds.first_token)}`],
      ["Speed", `${Math.round(event.tokens_per_second)} tokens a second`],
      ["In all", `${seconds(event.seconds.total)}, ${event.usage.completion_tokens} tokens`],
    ];
    this.part(".facts").replaceChildren(...facts.flatMap(([name, value]) => [text("dt", name), text("dd", value)]));
    this.part(".verdict").hidden = false;
    this.part(".opinion").hidden = !this.asksOpinion;
  }

  on_error(event) {
    const cancelled = event.code === "cancelled";
    this.state(cancelled ? "Cancelled" : "Not answered", cancelled ? "" : "bad");
    this.part(".explanation").classList.remove("writing");
    if (!cancelled) this.trouble(event.sentence);
  }

  /** Comes before `done`, if the clip was to be kept. */
  on_not_kept(event) { this.trouble(event.sentence); }

  trouble(sentence) {
    this.part(".trouble").textContent = capital(sentence);
    this.part(".trouble").hidden = false;
  }

  /** The verdict in words, for those who don't see the colours. */
  summary() {
    if (!this.done) return `${this.who}: ${this.part(".state").textContent}`;
    return `${this.who}: ${this.done.answer ?? "no answer"}, ${this.part(".agreement").textContent}`;
  }

  /** Writes the explanation anew: sentences that ended in colour, then what is being written. */
  write() {
    const place = this.part(".explanation");
    place.hidden = false;
    place.classList.toggle("writing", this.done === null);
    const whole = explanationIn(this.completion);
    const pieces = [];
    let at = 0;
    for (const one of this.sentences) {
      const found = one ? whole.indexOf(one.text, at) : -1;
      if (found < 0) continue;
      pieces.push(document.createTextNode(whole.slice(at, found)), this.sentence(one));
      at = found + one.text.length;
    }
    pieces.push(document.createTextNode(whole.slice(at)));
    place.replaceChildren(...pieces);
  }

  sentence(one) {
    const known = this.done !== null;
    const kind = known ? WORDS[String(one.agrees)] : one.labels.length ? "emotional" : "neutral";
    const span = text("span", one.text, `sentence ${kind}`);
    if (one.labels.length) {
      const label = text("span", one.labels.join(", "), "label");
      if (known && one.agrees !== null) label.append(text("span", ` (${kind} with the answer)`, "unseen"));
      span.append(label);
    }
    return span;
  }

  redraw() {
    const place = Number(this.part(".time").value) / 1000;
    draw(this.part(".wave"), this.waveform, place);
  }

  followTime() {
    const time = this.part(".time");
    time.hidden = !this.video;
    time.addEventListener("input", () => {
      const video = this.video;
      if (video && Number.isFinite(video.duration)) video.currentTime = (time.value / 1000) * video.duration;
      this.redraw();
    });
    this.video?.addEventListener("timeupdate", () => {
      const video = this.video;
      if (!Number.isFinite(video.duration) || !this.root.isConnected) return;
      time.value = Math.round((video.currentTime / video.duration) * 1000);
      time.setAttribute("aria-valuetext", `${seconds(video.currentTime)} of ${seconds(video.duration)}`);
      this.redraw();
    });
    new ResizeObserver(() => this.redraw()).observe(this.part(".wave"));
  }

  listen() {
    const form = this.part(".opinion");
    const thumbs = [...this.root.querySelectorAll(".thumb")];
    for (const thumb of thumbs) {
      thumb.addEventListener("click", () => {
        const chosen = thumb.getAttribute("aria-pressed") !== "true";
        thumbs.forEach((one) => one.setAttribute("aria-pressed", String(one === thumb && chosen)));
        this.say();
      });
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.say();
    });
  }

  /** Sends all that was said about this answer, after what was said before; gives whether it was saved. */
  say(more = {}) {
    const chosen = this.part('.thumb[aria-pressed="true"]');
    this.opinion = { ...this.opinion, ...more };
    const opinion = {
      id: this.id,
      thumb: chosen ? chosen.value : null,
      emotion: this.part(".emotion").value || null,
      explanation: this.part(".better").value.trim() || null,
      ...this.opinion,
    };
    this.saying = this.saying.then(() => this.send(opinion));
    return this.saying;
  }

  async send(opinion) {
    const said = this.part(".said");
    try {
      const answer = await post("/feedback", opinion);
      said.textContent = answer.kept ? "Saved, with the clip." : "Saved. The clip was not kept.";
      return true;
    } catch (error) {
      said.textContent = `Not saved: ${error.message}`;
      return false;
    }
  }
}

/** What a growing completion explains, without its tags; what may become a tag waits. */
function explanationIn(completion) {
  const start = completion.indexOf("<think>");
  let found = start < 0 ? completion : completion.slice(start + 7);
  const end = found.indexOf("</think>");
  if (start >= 0 && end >= 0) found = found.slice(0, end);
  for (const tag of TAGS) found = found.replaceAll(tag, " ");
  const open = found.lastIndexOf("<");
  if (open >= 0 && TAGS.some((tag) => tag.startsWith(found.slice(open)))) found = found.slice(0, open);
  return found.trimStart();
}

export function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

function capital(sentence) { return sentence.charAt(0).toUpperCase() + sentence.slice(1) + (sentence.endsWith(".") ? "" : "."); }

function text(tag, content, className = "") {
  const made = document.createElement(tag);
  made.textContent = content;
  if (className) made.className = className;
  return made;
}
