// Draws loudness over time, with the place that is played.

export function draw(canvas, waveform, place) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  if (!width) return;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  const style = getComputedStyle(canvas);
  const strong = style.color;
  const faint = style.getPropertyValue("--edge");
  const step = width / Math.max(1, waveform.length);
  waveform.forEach((level, number) => {
    const tall = Math.max(1, level * (height - 8));
    pen.fillStyle = (number + 0.5) / waveform.length <= place ? strong : faint;
    pen.fillRect(number * step, (height - tall) / 2, Math.max(1, step * 0.7), tall);
  });
  if (!waveform.length) {
    pen.fillStyle = faint;
    pen.font = `14px ${style.fontFamily}`;
    pen.fillText("no sound", 12, height / 2 + 5);
  }
  pen.fillStyle = strong;
  pen.fillRect(Math.min(width - 2, place * width), 0, 2, height);
}
