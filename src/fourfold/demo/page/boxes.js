// Edits boxes: drawn, moved and resized with the pointer, or as a table with the keyboard.

import { bitmapOf, drawBoxes, fade, fill } from "./draw.js";
import { h, whileDown } from "./dom.js";
import { beside } from "./tiles.js";

const SIDES = ["left", "top", "right", "bottom"];
const NEAR = 0.04; // of the image: this close to a corner, the corner is moved
const SMALLEST = 0.02;

export function editBoxes({ view, column, state }) {
  const under = beside("image", column, state);
  const canvas = h("canvas", { tabIndex: 0, "aria-label": "Boxes. Edit them in the table below." });
  const rows = h("tbody");
  const names = state.about.named ? state.about.classes.map((one) => one.name) : [];
  let [boxes, chosen, drag] = [[], -1, null];

  async function draw() {
    if (under) fill(canvas, await bitmapOf(under));
    else [canvas.width, canvas.height] = [384, 384];
    fade(canvas);
    drawBoxes(canvas, boxes, state.about.classes, chosen);
  }

  function list() {
    rows.replaceChildren(...boxes.map((one, index) => h("tr", {},
      h("td", {}, nameInput(one, names, draw)),
      ...SIDES.map((side, axis) => h("td", {}, h("input", {
        type: "number", min: "0", max: "1", step: "0.01", value: one.box[axis].toFixed(2), "aria-label": `${side} of box ${index + 1}`,
        oninput: (event) => { if (event.target.validity.valid && event.target.value !== "") one.box[axis] = Number(event.target.value); draw(); },
        onfocus: () => { chosen = index; draw(); },
      }))),
      h("td", {}, h("button", {
        class: "small", type: "button", "aria-label": `Delete box ${index + 1}`, onclick: () => { boxes.splice(index, 1); chosen = -1; list(); draw(); },
      }, "Delete")),
    )));
  }

  function add(box) {
    boxes.push({ box, class_name: boxes[chosen]?.class_name ?? boxes.at(-1)?.class_name ?? names.at(-1) ?? "object", score: 1 });
    chosen = boxes.length - 1;
  }

  whileDown(canvas, (x, y, isFirst) => {
    const place = [x, y].map((share) => Math.min(1, Math.max(0, share)));
    if (isFirst) drag = grabbed(boxes, place) ?? (add([...place, ...place]), { index: chosen, corner: [2, 3] });
    chosen = drag.index;
    const { box } = boxes[drag.index];
    if (drag.corner) drag.corner.forEach((side, axis) => (box[side] = place[axis]));
    else move(box, drag, place);
    draw();
  }, () => {
    boxes = boxes.map(upright).filter(({ box: [x0, y0, x1, y1] }) => x1 - x0 >= SMALLEST && y1 - y0 >= SMALLEST);
    chosen = Math.min(chosen, boxes.length - 1);
    list();
    draw();
  });

  const reset = () => {
    boxes = structuredClone(view.json.instances).map(upright);
    chosen = -1;
    list();
    return draw();
  };
  const element = h("div", {},
    h("p", { class: "hint" }, "Drag on the image to draw a box, inside one to move it, at a corner to resize it."),
    h("div", { class: "stage" }, canvas),
    h("div", { class: "scroll" }, h("table", { class: "boxes" },
      h("thead", {}, h("tr", {}, ["class", ...SIDES, ""].map((word) => h("th", {}, word)))), rows)),
    h("div", { class: "row" }, h("button", {
      class: "small", type: "button", onclick: () => { add([0.3, 0.3, 0.7, 0.7]); list(); draw(); rows.querySelector("tr:last-child select, tr:last-child input").focus(); },
    }, "Add a box")),
  );
  return { element, start: reset, reset, value: () => ({ ...view.json, instances: boxes }) };
}

function nameInput(one, names, draw) {
  const change = (event) => { if (event.target.value.trim()) one.class_name = event.target.value.trim(); draw(); };
  if (names.length === 0) return h("input", { value: one.class_name, "aria-label": "class", maxLength: 60, oninput: change });
  const known = names.includes(one.class_name) ? names : [one.class_name, ...names];
  return h("select", { "aria-label": "class", onchange: change },
    known.map((name) => h("option", { selected: name === one.class_name }, name)));
}

// What is under a place: a corner of a box, or its inside; the last box is on top.
function grabbed(boxes, [x, y]) {
  for (let index = boxes.length - 1; index >= 0; index -= 1) {
    const [x0, y0, x1, y1] = boxes[index].box;
    for (const corner of [[0, 1], [2, 1], [0, 3], [2, 3]]) {
      const isNear = Math.abs(boxes[index].box[corner[0]] - x) < NEAR && Math.abs(boxes[index].box[corner[1]] - y) < NEAR;
      if (isNear) return { index, corner };
    }
    if (x > x0 && x < x1 && y > y0 && y < y1) return { index, corner: null, offset: [x - x0, y - y0] };
  }
  return null;
}

function move(box, { offset }, place) {
  [0, 1].forEach((axis) => {
    const side = box[axis + 2] - box[axis];
    box[axis] = Math.min(1 - side, Math.max(0, place[axis] - offset[axis]));
    box[axis + 2] = box[axis] + side;
  });
}

const upright = (one) => {
  const [x0, y0, x1, y1] = one.box;
  return { ...one, box: [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)] };
};
