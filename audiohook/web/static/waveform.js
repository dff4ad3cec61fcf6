// Draws what a recording looks like: a lane a channel, and where there is no audio.

const HEADER_BYTES = 24;
const QUIETEST = 12;
const LANE_COLOURS = ["--first", "--second"];

/**
 * Reads a file of audiowaveform's binary format, version 2, with 8 bits a value.
 * Returns one lane a channel, or none if it is something else.
 */
export function readPeaks(buffer) {
  if (buffer.byteLength < HEADER_BYTES) {
    return [];
  }
  const head = new DataView(buffer);
  const [version, flags] = [head.getInt32(0, true), head.getUint32(4, true)];
  const rate = head.getInt32(8, true);
  const span = head.getInt32(12, true);
  const count = head.getUint32(16, true);
  const channels = head.getInt32(20, true);
  const isWhole = buffer.byteLength === HEADER_BYTES + 2 * count * channels;
  if (version !== 2 || flags !== 1 || rate < 1 || span < 1 || channels < 1 || !isWhole) {
    return [];
  }
  const values = new Int8Array(buffer, HEADER_BYTES);
  return Array.from({ length: channels }, (_, channel) => {
    const low = new Int8Array(count);
    const high = new Int8Array(count);
    for (let i = 0; i < count; i += 1) {
      const at = 2 * (i * channels + channel);
      low[i] = values[at];
      high[i] = values[at + 1];
    }
    return { low, high, perSecond: rate / span };
  });
}

/** A canvas with the lanes of a recording in it. */
export class Waveform {
  constructor(canvas, { duration, gaps }) {
    this.canvas = canvas;
    this.duration = duration;
    this.gaps = gaps;
    this.lanes = [];
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(lanes) {
    this.lanes = lanes;
    const peaks = lanes.flatMap(({ low, high }) => [...low, ...high].map(Math.abs));
    this.loudest = peaks.reduce((a, b) => Math.max(a, b), QUIETEST);
    this.draw();
  }

  draw() {
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * scale);
    const height = Math.round(canvas.clientHeight * scale);
    if (width === 0 || height === 0) {
      return;
    }
    canvas.width = width;
    canvas.height = height;
    const style = getComputedStyle(canvas);
    const paint = canvas.getContext("2d");
    this.#drawGaps(paint, style.getPropertyValue("--soft"), scale);
    this.lanes.forEach((lane, place) => {
      const colour = LANE_COLOURS[place % LANE_COLOURS.length];
      paint.fillStyle = style.getPropertyValue(colour);
      this.#drawLane(paint, lane, place, scale);
    });
  }

  #drawLane(paint, { low, high, perSecond }, place, scale) {
    const { width, height } = this.canvas;
    const room = height / this.lanes.length;
    const middle = (place + 0.5) * room;
    const reach = (0.46 * room) / this.loudest;
    const perColumn = (this.duration * perSecond) / width;
    for (let x = 0; x < width; x += 1) {
      const first = Math.floor(x * perColumn);
      const end = Math.max(first + 1, Math.floor((x + 1) * perColumn));
      if (first >= low.length) {
        return;
      }
      let least = 127;
      let most = -128;
      for (let i = first; i < end && i < low.length; i += 1) {
        least = Math.min(least, low[i]);
        most = Math.max(most, high[i]);
      }
      const top = middle - most * reach;
      paint.fillRect(x, top, 1, Math.max((most - least) * reach, scale));
    }
  }

  #drawGaps(paint, colour, scale) {
    const { width, height } = this.canvas;
    const step = 6 * scale;
    paint.strokeStyle = colour;
    paint.lineWidth = scale;
    for (const { start, length } of this.gaps) {
      const left = (start / this.duration) * width;
      const room = Math.max((length / this.duration) * width, 2 * scale);
      paint.save();
      paint.beginPath();
      paint.rect(left, 0, room, height);
      paint.clip();
      paint.globalAlpha = 0.6;
      paint.beginPath();
      for (let x = left - height; x < left + room; x += step) {
        paint.moveTo(x, height);
        paint.lineTo(x + height, 0);
      }
      paint.stroke();
      paint.restore();
    }
  }
}
