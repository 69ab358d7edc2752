// Paints on depth, classes and images with a brush, by pointer or keyboard.

import { bitmapOf, classCanvas, cssColor, depthCanvas, depthRange, fill, numbersOf } from "./draw.js";
import { h, whileDown } from "./dom.js";

const IMAGE_SIDE = 256; // pixels of a painted image, at most
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const canPaint = (kind) => ["depth", "classes", "image"].includes(kind);

export function editPixels({ view, state }) {
  const surface = view.kind === "image" ? new Picture(view) : new Numbers(view, state);
  const canvas = h("canvas", { tabIndex: 0, "aria-label": "Painting. Arrow keys move the brush, space paints." });
  const cross = h("span", { class: "cross brush", hidden: true });
  const size = h("input", { type: "range", min: "1", max: "16", value: "4", oninput: () => place() });
  let brush = [0.5, 0.5];
  const redraw = () => surface.draw(canvas);
  const place = () => {
    [cross.style.left, cross.style.top] = brush.map((share) => `${100 * share}%`);
    cross.style.width = cross.style.height = `${100 * Math.min(1, Number(size.value) / surface.width)}%`;
  };
  const paint = () => {
    surface.paint(...brush, Number(size.value) / 2);
    redraw();
  };
  whileDown(canvas, (x, y, isFirst) => {
    const before = isFirst ? [x, y] : brush;
    const steps = Math.max(1, Math.ceil(Math.hypot(x - before[0], y - before[1]) * surface.width));
    for (let step = 1; step <= steps; step += 1) {
      brush = [before[0] + ((x - before[0]) * step) / steps, before[1] + ((y - before[1]) * step) / steps];
      surface.paint(...brush, Number(size.value) / 2);
    }
    place();
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const frame = canvas.getBoundingClientRect();
    brush = [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
    cross.hidden = false;
    place();
  });
  canvas.addEventListener("pointerleave", () => (cross.hidden = document.activeElement !== canvas));
  canvas.addEventListener("focus", () => {
    cross.hidden = false;
    place();
  });
  canvas.addEventListener("blur", () => (cross.hidden = true));
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (step) brush = [0, 1].map((axis) => Math.min(0.999, Math.max(0, brush[axis] + step[axis] / surface.width)));
    else if (event.key !== " ") return;
    event.preventDefault();
    if (event.key === " " || event.shiftKey) paint();
    place();
  });
  const element = h("div", {},
    h("p", { class: "hint" }, "Draw with the pointer; or arrow keys, and space to paint (shift and arrows: a line)."),
    h("div", { class: "tools" }, h("label", {}, "Brush", size), surface.tools),
    h("div", { class: "stage" }, canvas, cross),
  );
  return {
    element,
    start: () => { surface.reset().then(redraw); canvas.focus(); },
    reset: () => surface.reset().then(redraw),
    value: () => surface.value(),
  };
}

// Calls `visit(index)` for the pixels within a circle.
function inCircle([x, y], radius, [width, height], visit) {
  const [column, row] = [x * width, y * height];
  for (let i = Math.max(0, Math.floor(row - radius)); i < Math.min(height, row + radius); i += 1) {
    for (let j = Math.max(0, Math.floor(column - radius)); j < Math.min(width, column + radius); j += 1) {
      const isNear = (i + 0.5 - row) ** 2 + (j + 0.5 - column) ** 2 <= radius ** 2;
      if (isNear || (i === Math.floor(row) && j === Math.floor(column))) visit(i * width + j);
    }
  }
}

class Numbers {
  constructor(view, state) {
    this.original = numbersOf(view);
    [this.height, this.width] = view.numbers.shape;
    this.view = { kind: view.kind, numbers: view.numbers, array: this.original.slice() };
    this.about = state.about;
    this.range = view.kind === "depth" ? depthRange([view], state.about.depth.range) : null;
    this.tools = view.kind === "depth" ? this.depthTools() : this.classTools();
  }

  depthTools() {
    const { near, far, metric } = this.range;
    this.chosen = near + (far - near) / 4;
    const shown = h("output", {}, "");
    const show = () => (shown.textContent = `${this.chosen.toFixed(2)}${metric ? " m" : ""}`);
    const slider = h("input", {
      type: "range", min: String(near), max: String(far), step: String((far - near) / 200), value: String(this.chosen),
      oninput: (event) => { this.chosen = Number(event.target.value); show(); },
    });
    show();
    return h("label", {}, "Depth", slider, shown);
  }

  classTools() {
    const present = new Set(this.original);
    // Without names there are 256 classes: those of this image come first, and are enough to paint with.
    const ids = this.about.classes.map((_, id) => id).filter((id) => this.about.named || present.has(id));
    this.chosen = ids.find((id) => !present.has(id)) ?? ids.at(-1) ?? 0;
    return h("fieldset", { class: "swatches", "aria-label": "Class" }, ids.map((id) => {
      const swatch = h("i");
      swatch.style.background = cssColor(this.about.classes[id].color);
      return h("label", {}, h("input", {
        type: "radio", name: "class", checked: id === this.chosen, onchange: () => (this.chosen = id),
      }), swatch, this.about.classes[id].name);
    }));
  }

  async reset() {
    this.view.array = this.original.slice();
  }

  paint(x, y, radius) {
    inCircle([x, y], radius, [this.width, this.height], (index) => (this.view.array[index] = this.chosen));
  }

  draw(canvas) {
    const { classes, depth } = this.about;
    fill(canvas, this.range ? depthCanvas(this.view, this.range, depth.colors) : classCanvas(this.view, classes));
  }

  value() {
    const rows = [];
    for (let row = 0; row < this.height; row += 1) rows.push([...this.view.array.slice(row * this.width, (row + 1) * this.width)]);
    return rows;
  }
}

class Picture {
  constructor(view) {
    this.view = view;
    this.canvas = document.createElement("canvas");
    this.width = this.canvas.width;
    this.chosen = "#c02020";
    this.tools = h("label", {}, "Color", h("input", {
      type: "color", value: this.chosen, oninput: (event) => (this.chosen = event.target.value),
    }));
  }

  async reset() {
    const image = await bitmapOf(this.view);
    const side = Math.min(IMAGE_SIDE, image.naturalWidth);
    this.canvas.width = this.canvas.height = this.width = this.height = side;
    this.canvas.getContext("2d").drawImage(image, 0, 0, side, side);
  }

  paint(x, y, radius) {
    const context = this.canvas.getContext("2d");
    context.fillStyle = this.chosen;
    inCircle([x, y], radius, [this.width, this.height], (index) =>
      context.fillRect(index % this.width, Math.floor(index / this.width), 1, 1));
  }

  draw(canvas) {
    fill(canvas, this.canvas);
  }

  value() {
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }
}
