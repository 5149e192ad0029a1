// Asks the server about a clip and passes on its events, each a line of JSON.

/**
 * @param {URLSearchParams} asked version or side, and what is known of the clip
 * @param {Blob|null} content the clip; null for one of the served folder
 * @param {AbortSignal} signal ends the request, on which the server stops, too
 * @param {(event: object) => void} tell gets each event; the last is `done` or `error`
 */
export async function explain(asked, content, signal, tell) {
  let ended = false;
  const pass = (line) => {
    const event = JSON.parse(line);
    ended = ended || event.kind === "done" || event.kind === "error";
    tell(event);
  };
  try {
    const answer = await fetch(`/explain?${asked}`, { method: "POST", body: content, signal });
    if (!answer.ok) {
      tell({ kind: "error", code: "refused", sentence: await sentenceOf(answer) });
      return;
    }
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      lines.forEach(pass);
    }
    if (!ended) tell({ kind: "error", code: "lost", sentence: "the answer was cut off; try again" });
  } catch (error) {
    if (signal.aborted) tell({ kind: "error", code: "cancelled", sentence: "cancelled" });
    else tell({ kind: "error", code: "lost", sentence: "the server can't be reached; is it still running?" });
  }
}

/** Sends JSON; returns the answer's, or throws an Error with a sentence. */
export async function post(address, content) {
  let answer;
  try {
    answer = await fetch(address, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(content),
    });
  } catch {
    throw new Error("the server can't be reached; is it still running?");
  }
  if (!answer.ok) throw new Error(await sentenceOf(answer));
  return answer.json();
}

async function sentenceOf(answer) {
  try {
    return (await answer.json()).error.message;
  } catch {
    return `the server answered ${answer.status}`;
  }
}
