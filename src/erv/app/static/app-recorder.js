// Records camera and microphone.

export async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) {
    throw new Error("this browser can't record; open the page at 127.0.0.1 or over HTTPS");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: true });
  } catch (error) {
    throw new Error(error.name === "NotAllowedError"
      ? "the browser doesn't allow camera and microphone; allow them beside the address"
      : "there is no camera or microphone that can be used");
  }
}

/** Records until the returned `stop` is called, which gives the recording as a Blob; throws if a device is gone. */
export function record(stream) {
  if (stream.getTracks().some((track) => track.readyState === "ended")) {
    throw new Error("the camera or the microphone is gone; connect it and start again");
  }
  const kinds = ["video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];
  const recorder = new MediaRecorder(stream, { mimeType: kinds.find((kind) => MediaRecorder.isTypeSupported(kind)) });
  const pieces = [];
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  const ended = new Promise((resolve) => recorder.addEventListener("stop", () => resolve(new Blob(pieces, { type: recorder.mimeType }))));
  recorder.start();
  return () => {
    if (recorder.state !== "inactive") recorder.stop();
    return ended;
  };
}

export function close(stream) { stream?.getTracks().forEach((track) => track.stop()); }
