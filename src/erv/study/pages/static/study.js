// The pages of a study: plays the clip, chooses by keys, and sends answers until the server has them.
"use strict";

const STORE = "pending";
const WAITS = [500, 1000, 2000, 4000]; // milliseconds between attempts; the last one again and again
const clip = document.getElementById("clip");
const main = document.querySelector("form[data-main]");
const began = performance.now();
let busy = false;

const show = (id, shown, text) => {
  const element = document.getElementById(id);
  if (!element) return;
  if (text !== undefined) element.textContent = text;
  element.hidden = !shown;
};
const pause = (time) => new Promise((done) => setTimeout(done, time));
// Whose page this is: raters may share a browser, and an answer waits for its own rater.
const visit = document.querySelector("meta[name=erv-study-visit]")?.content;

// Answers that the server doesn't have yet, by visit. IndexedDB, which has them on the disk when it says so: the
// browser writes localStorage seconds later, and loses it when it is killed.
function stored(mode, act) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("erv-study", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const change = database.transaction(STORE, mode, { durability: "strict" });
      const request = act(change.objectStore(STORE));
      change.oncomplete = () => { database.close(); resolve(request.result); };
      change.onabort = () => { database.close(); reject(change.error); };
    };
  });
}
const keep = (pending) => stored("readwrite", (store) => store.put(pending, visit));
const forget = () => stored("readwrite", (store) => store.delete(visit));
const waiting = () => stored("readonly", (store) => store.get(visit));
// A browser that keeps nothing, as some private windows, still sends.
const orNothing = (promise) => promise.catch((error) => { console.info("nothing can be kept here:", error); });

// What our server says was wrong; null if somebody else answered, such as a proxy with a page of its own.
async function faultOf(answer) {
  try {
    return (await answer.json()).error ?? null;
  } catch {
    return null;
  }
}

// Sends a form until the server has decided on it. A server that is being restarted costs some seconds, not the
// answer. `settled` is false where it may still be taken, in a visit of its rater.
async function deliver(pending) {
  for (let attempt = 0; ; attempt += 1) {
    try {
      const answer = await fetch(pending.path, {
        method: "POST",
        body: new URLSearchParams(pending.fields),
        headers: { Accept: "application/json", "Erv-Study-Visit": visit },
        cache: "no-store",
      });
      if (answer.ok) return { settled: true };
      const fault = await faultOf(answer);
      if (fault && [401, 403].includes(answer.status)) return { settled: false, fault };
      if (fault && [400, 409, 413].includes(answer.status)) return { settled: fault.code !== "other_rater", fault };
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // fetch's name for a server that can't be reached
    }
    show("sending", true);
    await pause(WAITS[Math.min(attempt, WAITS.length - 1)]);
  }
}

async function send(form) {
  if (busy) return;
  busy = true;
  const seconds = form.querySelector("input[name=seconds]");
  if (seconds) seconds.value = ((performance.now() - began) / 1000).toFixed(3);
  const pending = { path: form.getAttribute("action"), fields: [...new FormData(form)] };
  // Answers are kept in the browser as well, in case it is closed before the server has them.
  const kept = form.querySelector("input[name=item]") !== null;
  if (kept) await orNothing(keep(pending));
  const { settled, fault } = await deliver(pending);
  if (kept && settled) await orNothing(forget());
  show("sending", false);
  if (fault && fault.code !== "stale") {
    show("refused", true, fault.message);
    busy = false;
  } else {
    location.replace("/");
  }
}

// What an earlier page could not send any more. The server takes it once, and refuses what is out of date.
async function sendPending() {
  if (!visit || !(main || document.getElementById("undo"))) return;
  const kept = await orNothing(waiting());
  if (!kept || busy) return;
  busy = true;
  const { settled, fault } = await deliver(kept);
  if (settled) await orNothing(forget());
  show("sending", false);
  busy = false;
  if (!fault) location.replace("/");
}

// The share of the clip that was played, whatever the order.
function playedShare() {
  let played = 0;
  for (let part = 0; part < clip.played.length; part += 1) played += clip.played.end(part) - clip.played.start(part);
  return clip.duration ? played / clip.duration : 0;
}

function waitForClip() {
  const questions = document.querySelector("[data-after-clip]");
  const watched = `erv-study-watched-${clip.dataset.item}`;
  clip.addEventListener("error", () => show("broken", true));
  if (clip.error) show("broken", true);
  if (!questions || sessionStorage.getItem(watched)) return;
  const button = main.querySelector("button");
  questions.disabled = button.disabled = true;
  show("first", true);
  clip.addEventListener("ended", () => {
    if (playedShare() < 0.8) return;
    sessionStorage.setItem(watched, "yes");
    questions.disabled = button.disabled = false;
    show("first", false);
  });
}

// The choices that a digit or letter means: those of the first question without an answer.
function choose(key) {
  for (const fieldset of main.querySelectorAll("fieldset:not(:disabled)")) {
    const wanted = fieldset.querySelector(`input[data-key="${CSS.escape(key)}"]`);
    const open = !fieldset.querySelector("input:checked") || main.querySelectorAll("fieldset").length === 1;
    if (wanted && open) {
      wanted.checked = true;
      wanted.focus();
      return true;
    }
  }
  return false;
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const control = event.target.closest("button, a, summary");
  const key = event.key.toLowerCase();
  // On a choice that isn't taken, the space bar takes it, as everywhere.
  if (key === " " && clip && !control && !event.target.matches("input:not(:checked)")) {
    event.preventDefault();
    void (clip.paused ? clip.play() : clip.pause());
  } else if (key === "enter" && main && main.querySelector("fieldset") && !control) {
    // Not where nothing is asked: a key that was pressed twice must not finish the study.
    event.preventDefault();
    if (!main.querySelector("button").disabled) main.requestSubmit();
  } else if (key === "u" && document.getElementById("undo")) {
    document.getElementById("undo").requestSubmit();
  } else if (main && choose(key)) {
    event.preventDefault();
  }
}

for (const form of document.querySelectorAll("form.sent")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    void send(form);
  });
}
document.addEventListener("keydown", onKey);
if (clip) waitForClip();
void sendPending();
