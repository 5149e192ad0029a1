// Explains camera and microphone as it goes: a window after the other, each with its delay.

import { explain, post } from "./app-stream.js";
import { Panel, seconds } from "./app-panel.js";
import { close, openCamera, record } from "./app-recorder.js";

const MOST = 10; // explanations that stay on the page
const at = (id) => document.getElementById(id);
let running = null, panels = [], skipped = 0; // running: an AbortController, with the camera's stream

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  fault("");
  if (running) return;
  const now = running = new AbortController();
  skipped = 0;
  busy(true);
  try {
    state("Waiting for camera and microphone");
    const stream = await openCamera();
    if (now.signal.aborted) {
      close(stream); // stopped while the browser asked
      return;
    }
    now.stream = at("camera").srcObject = stream;
    at("camera").play();
    state("Loading the version");
    await post("/open", { version: at("version").value });
    if (now.signal.aborted) return;
    state("Watching and listening");
    await watch(now);
  } catch (error) {
    if (now.signal.aborted) return;
    end();
    fault(error.message);
  }
});

at("cancel").addEventListener("click", end);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") end(); });
window.addEventListener("pagehide", end);

/** Records window after window; asks about the newest whenever nothing else is being answered. */
async function watch({ stream, signal }) {
  const span = Number(at("window").value) * 1000;
  let asking = false;
  while (!signal.aborted) {
    const stop = record(stream);
    await pause(span, signal);
    const blob = await stop();
    if (signal.aborted) return;
    if (asking) {
      skipped += 1;
      continue;
    }
    asking = true;
    ask(blob, Date.now(), signal).finally(() => { asking = false; });
  }
}

async function ask(blob, ended, signal) {
  const panel = new Panel(new Date(ended).toLocaleTimeString(), null, false);
  panels.unshift(panel);
  while (panels.length > MOST) panels.pop().remove();
  at("nothing").hidden = true;
  at("answers").prepend(panel.root);
  const asked = new URLSearchParams({ version: at("version").value, name: "live.webm" });
  await explain(asked, blob, signal, (event) => {
    panel.tell(event.kind === "answering" ? { ...event, version: null } : event);
    const delay = (Date.now() - ended) / 1000;
    if (event.kind === "token" && !panel.first) {
      panel.first = delay;
      state(`First words ${seconds(delay)} behind`);
    }
    if (event.kind === "done") {
      panel.state(`${seconds(delay)} behind`, "good");
      state(`${panel.summary()}; ${seconds(delay)} behind${skipped ? `, ${skipped} windows left out` : ""}`);
    }
  });
}

function pause(time, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, time);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
  });
}

function end() {
  if (!running) return;
  running.abort();
  close(running.stream);
  running = null;
  at("camera").srcObject = null;
  state("Stopped");
  busy(false);
}

function busy(now) {
  at("go").disabled = now;
  at("version").disabled = at("window").disabled = now;
  at("cancel").hidden = !now;
  (now ? at("cancel") : at("go")).focus();
}

function state(text) { at("state").textContent = text; }

function fault(sentence) {
  at("fault").textContent = sentence ? sentence.charAt(0).toUpperCase() + sentence.slice(1) + "." : "";
  at("fault").hidden = !sentence;
}
