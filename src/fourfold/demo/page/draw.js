// Draws values on canvases: depth and classes from their numbers, boxes and classes also over an image.

import { bytesOf } from "./dom.js";

const SIDE = 384; // pixels of a drawn canvas, at least: lines and words are sharp on an image of 64 pixels
const images = new WeakMap(); // view → Promise of its bitmap

export function numbersOf(view) {
  if (!view.array) {
    const bytes = bytesOf(view.numbers.base64);
    view.array = view.numbers.dtype === "u1" ? bytes : new Float32Array(bytes.buffer);
  }
  return view.array;
}

// Nearest and farthest of some depth maps: those of the color scale if all are within them.
export function depthRange(views, [near, far]) {
  let [low, high] = [Infinity, -Infinity];
  for (const view of views) {
    for (const value of numbersOf(view)) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return { near, far, metric: true };
  const metric = low >= 0;
  return metric && low >= near / 4 && high <= far * 4 ? { near, far, metric } : { near: low, far: Math.max(high, low + 1e-6), metric };
}

// Where a depth is on the color scale, 0 (near) to 1 (far); logarithmic for meters.
export function depthShare(value, { near, far, metric }) {
  const share = metric && near > 0 ? Math.log(value / near) / Math.log(far / near) : (value - near) / (far - near);
  return Math.min(1, Math.max(0, share || 0));
}

function native(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

function colored(view, colorOf, alpha = 255) {
  const [height, width] = view.numbers.shape;
  const canvas = native(width, height);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  numbersOf(view).forEach((value, index) => {
    const [red, green, blue] = colorOf(value);
    pixels.data.set([red, green, blue, alpha], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

const BLACK = [0, 0, 0];
export const depthCanvas = (view, range, colors) =>
  colored(view, (value) => colors[Math.round(depthShare(value, range) * 255)] ?? BLACK);
export const classCanvas = (view, classes, alpha) => colored(view, (value) => classes[value]?.color ?? BLACK, alpha);

export function bitmapOf(view) {
  if (!images.has(view)) {
    const image = new Image();
    image.src = view.image;
    images.set(view, image.decode().then(() => image));
  }
  return images.get(view);
}

// Puts a source on a canvas, enlarged by a whole number so that pixels stay squares.
export function fill(canvas, source) {
  const [width, height] = [source.naturalWidth ?? source.width, source.naturalHeight ?? source.height];
  const scale = Math.max(1, Math.ceil(SIDE / width));
  [canvas.width, canvas.height] = [width * scale, height * scale];
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return context;
}

export function fade(canvas) {
  const context = canvas.getContext("2d");
  context.fillStyle = "rgba(255, 255, 255, .5)";
  context.fillRect(0, 0, canvas.width, canvas.height);
}

export function lay(canvas, source) {
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
}

export const cssColor = (color) => `rgb(${color.join(" ")})`;

export function boxColor(name, classes) {
  return cssColor(classes.find((one) => one.name === name)?.color ?? [90, 90, 90]);
}

export function drawBoxes(canvas, instances, classes, chosen = -1) {
  const context = canvas.getContext("2d");
  const unit = canvas.width / SIDE;
  context.font = `600 ${15 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  instances.forEach((instance, index) => {
    const [x0, y0, x1, y1] = instance.box.map((side) => side * canvas.width);
    const [left, top] = [Math.min(x0, x1), Math.min(y0, y1)]; // a predicted box may have its corners in the wrong order
    const [width, height] = [Math.abs(x1 - x0), Math.abs(y1 - y0)];
    for (const [style, line] of [["#fff", 6], [boxColor(instance.class_name, classes), 3]]) {
      [context.strokeStyle, context.lineWidth] = [style, (index === chosen ? 1.6 : 1) * line * unit];
      context.strokeRect(left, top, width, height);
    }
    const words = instance.class_name;
    const tag = [Math.min(left, canvas.width - context.measureText(words).width - 12 * unit), Math.max(0, top - 20 * unit)];
    context.fillStyle = boxColor(words, classes);
    context.fillRect(tag[0], tag[1], context.measureText(words).width + 12 * unit, 20 * unit);
    context.fillStyle = isLight(classes.find((one) => one.name === words)?.color) ? "#000" : "#fff";
    context.fillText(words, tag[0] + 6 * unit, tag[1] + 10.5 * unit);
  });
}

const isLight = (color = [90, 90, 90]) => 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 150;

export function drawScale(canvas, colors) {
  [canvas.width, canvas.height] = [256, 1];
  const context = canvas.getContext("2d");
  colors.forEach((color, index) => {
    context.fillStyle = cssColor(color);
    context.fillRect(index, 0, 1, 1);
  });
}
