// The page for one clip: choose it, choose who explains it, watch, judge.

import { explain, post } from "./app-stream.js";
import { Panel, seconds } from "./app-panel.js";
import { close, openCamera, record } from "./app-recorder.js";

const at = (id) => document.getElementById(id);
const form = at("ask"), video = at("clip");
let file = null; // what is chosen: a Blob with a name, or null
let panels = [];
let running = null; // an AbortController while versions answer
let sides = null; // tokens of a blind pair

// The clip

function source() { return form.elements.source.value; }

function show(blob, name) {
  if (video.src) URL.revokeObjectURL(video.src);
  file = blob ? { blob, name } : null;
  if (blob) video.src = URL.createObjectURL(blob);
  video.hidden = !blob;
  at("nothing").hidden = Boolean(blob);
}

function showServed(name) {
  file = null;
  video.hidden = !name;
  at("nothing").hidden = Boolean(name);
  if (name) video.src = `/clips/${name.split("/").map(encodeURIComponent).join("/")}`;
  else video.removeAttribute("src");
}

for (const radio of form.elements.source) {
  radio.addEventListener("change", () => {
    for (const part of document.querySelectorAll(".source")) part.hidden = part.dataset.source !== source();
    fault("");
    leaveRecording();
    if (source() === "served") showServed(at("served").value);
    else if (source() === "file" && at("file").files[0]) show(at("file").files[0], at("file").files[0].name);
    else show(null);
  });
}
at("file").addEventListener("change", () => show(at("file").files[0] ?? null, at("file").files[0]?.name));
at("served")?.addEventListener("change", () => showServed(at("served").value));

form.addEventListener("dragover", (event) => { event.preventDefault(); form.classList.add("dropping"); });
form.addEventListener("dragleave", () => form.classList.remove("dropping"));
form.addEventListener("drop", (event) => {
  event.preventDefault();
  form.classList.remove("dropping");
  if (!event.dataTransfer.files.length) return;
  form.elements.source.value = "file";
  leaveRecording();
  at("file").files = event.dataTransfer.files;
  at("file").dispatchEvent(new Event("change"));
  for (const part of document.querySelectorAll(".source")) part.hidden = part.dataset.source !== "file";
});

let stream = null, stop = null, clock = null;
at("record").addEventListener("click", async () => {
  fault("");
  // A second click while the browser asks would open another camera, which nothing would close.
  at("record").disabled = true;
  try {
    await (stop ? endRecording() : beginRecording());
  } catch (error) {
    close(stream);
    stream = null;
    fault(error.message);
  }
  at("record").disabled = false;
  at("record").focus();
});

async function beginRecording() {
  stream = await openCamera();
  if (source() !== "record") { // changed while the browser asked
    close(stream);
    stream = null;
    return;
  }
  const ends = record(stream);
  show(null);
  video.srcObject = stream;
  video.muted = true;
  video.hidden = false;
  at("nothing").hidden = true;
  video.play();
  stop = ends;
  const begun = Date.now();
  at("record").textContent = "Stop recording";
  clock = setInterval(() => { at("recorded").textContent = seconds((Date.now() - begun) / 1000); }, 200);
}

async function endRecording() {
  const ends = stop;
  const blob = await ends();
  if (stop !== ends) return; // left meanwhile
  freeCamera();
  at("record").textContent = "Record again";
  show(blob, "recording.webm");
}

/** Ends and forgets a recording whose button is no longer shown. */
function leaveRecording() {
  if (!stop) return;
  stop();
  freeCamera();
  at("record").textContent = "Start recording";
  at("recorded").textContent = "";
}

function freeCamera() {
  clearInterval(clock);
  close(stream);
  stop = stream = null;
  video.srcObject = null;
  video.muted = false;
}

// Who explains it

at("compare")?.addEventListener("change", () => { at("beside").hidden = !at("compare").checked; });

function chosen() {
  return at("compare")?.checked ? [at("version").value, at("other").value] : [at("version").value];
}

/** Offers the data sets that all chosen versions were tested with, which are known once they are loaded. */
let listings = 0;
async function listDatasets() {
  if (!at("more").open) return;
  const listing = ++listings;
  at("dataset-hint").textContent = "Loading the version";
  let names = [], said = "Its emotions are scored, and listed where the question lists some.";
  try {
    const versions = await Promise.all(chosen().map((version) => post("/open", { version })));
    names = versions.map((one) => one.datasets).reduce((some, others) => some.filter((name) => others.includes(name)));
    if (!names.length) said = versions.length > 1 ? "These versions have none in common." : "This version doesn't say which it was tested with.";
  } catch (error) {
    said = `${capital(error.message)}.`;
  }
  if (listing !== listings) return; // others were chosen meanwhile
  const before = at("dataset").value;
  at("dataset").replaceChildren(new Option("Not said", ""), ...names.map((name) => new Option(name, name)));
  at("dataset").value = names.includes(before) ? before : "";
  at("dataset-hint").textContent = said;
}
at("more").addEventListener("toggle", listDatasets);
for (const id of ["version", "other", "compare"]) at(id)?.addEventListener("change", listDatasets);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  fault("");
  if (running) return;
  const served = source() === "served" ? at("served").value : null;
  if (stop) return fault("stop the recording first");
  if (!served && !file) return fault("choose a clip first");
  if (file && !file.blob.size) return fault("the file is empty; choose another one");
  const most = Number(form.getAttribute("data-most-mb")); // form.dataset is the field of that name
  if (file && file.blob.size > most * 2 ** 20) {
    return fault(`the clip has ${Math.ceil(file.blob.size / 2 ** 20)} MiB, at most ${most} MiB are taken; cut it`);
  }
  const compared = at("compare")?.checked;
  const blind = compared && at("blind").checked;
  const versions = chosen();
  if (compared && versions[0] === versions[1]) return fault("choose two different versions");
  const now = running = new AbortController();
  const clip = file;
  busy(true);
  sides = null;
  try {
    if (blind) sides = (await post("/pair", { versions })).sides;
    if (!now.signal.aborted) await begin(versions, served, clip, now.signal);
  } catch (error) {
    fault(error.message);
  }
  running = null;
  busy(false);
});

async function begin(versions, served, clip, signal) {
  panels.forEach((panel) => panel.remove());
  at("judge").hidden = true;
  at("judged").textContent = "";
  document.querySelectorAll(".prefer").forEach((button) => { button.disabled = false; });
  const compared = versions.length > 1;
  const names = versions.map((version, number) => {
    if (sides) return "AB"[number];
    return compared ? `${"AB"[number]}: ${titleOf(version)}` : titleOf(version);
  });
  panels = names.map((name) => new Panel(name, video));
  at("answers").replaceChildren(...panels.map((panel) => panel.root));
  at("answers").scrollIntoView({ block: "nearest" });
  await Promise.all(panels.map((panel, number) => {
    const asked = new URLSearchParams(sides ? { side: sides[number] } : { version: versions[number] });
    if (served) asked.set("clip", served);
    else asked.set("name", clip.name);
    for (const id of ["dataset", "subtitle"]) if (at(id).value.trim()) asked.set(id, at(id).value.trim());
    if (at("keep").checked) asked.set("keep", "1");
    const tell = (event) => panel.tell(compared && event.kind === "answering" ? { ...event, version: null } : event);
    return explain(asked, served ? null : clip.blob, signal, tell);
  }));
  at("news").textContent = panels.map((panel) => panel.summary()).join(". ");
  at("judge").hidden = panels.length < 2 || panels.some((panel) => !panel.done);
}

at("cancel").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
window.addEventListener("pagehide", () => { running?.abort(); close(stream); });

for (const button of document.querySelectorAll(".prefer")) {
  button.addEventListener("click", async () => {
    const chosen = button.value === "" ? null : Number(button.value);
    const buttons = document.querySelectorAll(".prefer");
    buttons.forEach((one) => { one.disabled = true; });
    const saved = await Promise.all(panels.map((panel, number) => panel.say({
      preferred: chosen === null ? null : chosen === number,
      beside: panels[1 - number].id,
    })));
    if (!saved.every(Boolean)) {
      buttons.forEach((one) => { one.disabled = false; });
      at("judged").textContent = "Not saved; choose again.";
      return;
    }
    at("judged").textContent = "Saved.";
    if (sides) {
      try {
        const { titles } = await post("/reveal", { sides });
        panels.forEach((panel, number) => panel.rename(`${"AB"[number]}: ${titles[number] ?? "unknown"}`));
        at("judged").textContent = `Saved. A is ${titles[0]}, B is ${titles[1]}.`;
      } catch (error) {
        at("judged").textContent = error.message;
      }
    }
  });
}

function titleOf(version) { return [...at("version").options].find((option) => option.value === version).text; }

function busy(now) {
  at("go").disabled = now;
  at("cancel").hidden = !now;
  if (now) at("cancel").focus();
  else at("go").focus();
}

function fault(sentence) {
  at("fault").textContent = sentence ? `${capital(sentence)}.` : "";
  at("fault").hidden = !sentence;
}

function capital(sentence) { return sentence.charAt(0).toUpperCase() + sentence.slice(1); }
