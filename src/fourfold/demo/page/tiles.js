// One value as an image, with a cursor at the same place in all images and what is there.

import { bitmapOf, classCanvas, depthCanvas, drawBoxes, fade, fill, lay, numbersOf } from "./draw.js";
import { h } from "./dom.js";

class Cursor {
  place = null; // [x, y] from 0 to 1
  areas = [];

  reset() {
    this.areas = [];
  }

  add(area) {
    this.areas.push(area);
  }

  move(place) {
    this.place = place;
    this.show();
  }

  show() {
    for (const { cross, readout, read } of this.areas) {
      cross.hidden = readout.hidden = this.place === null;
      if (this.place === null) continue;
      [cross.style.left, cross.style.top] = this.place.map((share) => `${100 * share}%`);
      readout.textContent = read(...this.place) ?? "";
      readout.hidden = readout.textContent === "";
    }
  }
}

export const cursor = new Cursor();
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export function tile(view, column, scene) {
  if (view.text !== undefined) return h("p", { class: "text" }, view.text || "(nothing)");
  const isDrawn = view.image || view.numbers || view.kind === "boxes";
  if (!isDrawn) return h("pre", { class: "text", tabIndex: 0 }, JSON.stringify(view.json, null, 1));
  const canvas = h("canvas");
  const cross = h("span", { class: "cross", hidden: true });
  const readout = h("span", { class: "readout", hidden: true });
  const words = `${scene.title} ${column.title}`.trim() + described(view);
  const area = h("div", { class: "view", role: "img", tabIndex: 0, "aria-label": words }, canvas, cross, readout);
  area.dataset.key = `${scene.label}/view/${column.title}`;
  follow(area, view);
  cursor.add({ cross, readout, read: (x, y) => read(view, scene, canvas, x, y) });
  paint(canvas, view, column, scene);
  return area;
}

function described(view) {
  if (view.kind !== "boxes") return "";
  return `: ${view.json.instances.map((one) => one.class_name).join(", ") || "no boxes"}`;
}

function follow(area, view) {
  area.addEventListener("pointermove", (event) => {
    const frame = area.getBoundingClientRect();
    cursor.move([(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height]);
  });
  area.addEventListener("pointerleave", () => cursor.move(null));
  area.addEventListener("focus", () => area.matches(":focus-visible") && cursor.place === null && cursor.move([0.5, 0.5]));
  area.addEventListener("blur", () => cursor.move(null));
  area.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    const side = view.numbers?.shape[1] ?? 64;
    const [x, y] = cursor.place ?? [0.5, 0.5];
    cursor.move([x + step[0] / side, y + step[1] / side].map((share) => Math.min(0.999, Math.max(0, share))));
  });
}

function read(view, scene, canvas, x, y) {
  if (view.numbers) {
    const [height, width] = view.numbers.shape;
    const value = numbersOf(view)[Math.floor(y * height) * width + Math.floor(x * width)];
    if (value === undefined) return "";
    if (view.kind === "classes") return scene.state.about.classes[value]?.name ?? `class ${value}`;
    return scene.range.metric ? `${value.toFixed(2)} m` : value.toFixed(2);
  }
  if (view.kind === "boxes") {
    const within = ({ box: [x0, y0, x1, y1] }) => x >= x0 && x <= x1 && y >= y0 && y <= y1;
    const named = ({ class_name: name, score }) => (score === undefined ? name : `${name} ${score.toFixed(2)}`);
    return view.json.instances.filter(within).map(named).join(", ");
  }
  return "";
}

// The value of a kind that belongs to the same column: an input, or what was predicted with it.
export function beside(kind, column, state) {
  for (const label of state.labels) {
    if (state.about.labels[label].kind !== kind) continue;
    const found = state.given.get(label) ?? column.views[label] ?? state.columns[0]?.views[label];
    if (found) return found;
  }
  return null;
}

async function paint(canvas, view, column, scene) {
  const { state, range } = scene;
  const { classes, depth } = state.about;
  if (view.kind === "depth") fill(canvas, depthCanvas(view, range, depth.colors));
  else if (view.kind === "classes") fill(canvas, classCanvas(view, classes));
  else if (view.kind === "boxes") {
    const under = beside("image", column, state);
    if (under) fill(canvas, await bitmapOf(under));
    else [canvas.width, canvas.height] = [384, 384];
    fade(canvas);
    drawBoxes(canvas, view.json.instances, classes);
  } else {
    fill(canvas, await bitmapOf(view));
    if (view.kind !== "image") return;
    const [segmentation, boxes] = ["classes", "boxes"].map((kind) => state.overlays[kind] && beside(kind, column, state));
    if (segmentation) lay(canvas, classCanvas(segmentation, classes, Math.round(255 * state.overlays.opacity)));
    if (boxes) drawBoxes(canvas, boxes.json.instances, classes);
  }
}
