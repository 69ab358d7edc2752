// One card for each modality: its input, or what each column (a model and a seed) predicts.

import { cursor, tile } from "./tiles.js";
import { cssColor, depthRange, drawScale, numbersOf } from "./draw.js";
import { bytesOf, h, save } from "./dom.js";
import { canEdit } from "./editors.js";

const TEXTS = ["text"];

export function renderCards(root, state, actions) {
  const focused = document.activeElement?.dataset?.key;
  cursor.reset();
  root.classList.toggle("several", state.columns.length > 1);
  root.style.setProperty("--card-width", `${[284, 284, 424, 424, 424][state.columns.length] ?? 424}px`);
  root.replaceChildren(...state.labels.map((label) => card(label, state, actions)));
  cursor.show();
  if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function card(label, state, actions) {
  const { title, kind } = state.about.labels[label];
  const given = state.given.get(label);
  const columns = given ? [{ title: "", views: { [label]: given } }] : state.columns.filter((column) => column.views[label]);
  const scene = { label, title, kind, state, range: kind === "depth" ? rangeOf(label, columns, state) : null };
  const element = h(
    "article",
    { class: given ? "card given" : "card", "aria-labelledby": `title-${label}` },
    header(label, title, given, state, actions),
    body(columns, scene, given, actions),
    extras(columns, scene, state, actions),
  );
  Object.assign(element.dataset, { label, kind });
  return element;
}

function header(label, title, given, state, actions) {
  const parts = [h("h3", { id: `title-${label}` }, title[0].toUpperCase() + title.slice(1))];
  const isFile = state.inputs.includes(label) && state.about.labels[label].kind !== "text";
  if (isFile) parts.push(opener(label, title, actions));
  if (given) {
    parts.push(h("span", { class: "chip" }, "input"));
    if (state.given.size > 1) {
      parts.push(keyed(`${label}/remove`, "button", {
        class: "small end", type: "button", title: "Predict it instead", onclick: () => actions.remove(label),
      }, "Remove"));
    }
  } else if (state.outputs.includes(label)) {
    parts.push(
      h("label", {}, keyed(`${label}/predict`, "input", {
        type: "checkbox", checked: !state.off.has(label), onchange: (event) => actions.toggle(label, event.target.checked),
      }), h("span", {}, "predict")),
    );
  }
  return h("header", {}, parts);
}

function opener(label, title, actions) {
  const words = `Open a file as ${title}`;
  return h("label", { class: "open", title: `${words}, or drop it on this card` }, keyed(`${label}/open`, "input", {
    type: "file", "aria-label": words, onchange: (event) => actions.open(label, event.target.files[0]),
  }), "↑", h("span", {}, "open"));
}

function body(columns, scene, given, actions) {
  const { label, state, title } = scene;
  if (given && TEXTS.includes(given.kind)) return textInput(label, title, given, actions);
  if (columns.length === 0) {
    const off = state.off.has(label) || !state.outputs.includes(label);
    return h("div", { class: "placeholder" }, off ? "Not predicted" : "…");
  }
  const tiles = h("div", { class: "tiles" }, columns.map((column) => figure(column, scene, given, actions)));
  const several = Math.max(columns.length, state.columns.length); // an input is as large as one of the predictions
  tiles.style.setProperty("--tiles", several === 3 ? 3 : Math.min(2, several));
  return tiles;
}

function textInput(label, title, given, actions) {
  return h("div", {},
    keyed(`${label}/text`, "textarea", {
      class: "text", rows: 3, maxLength: 1000, "aria-label": title, value: "",
      onchange: (event) => actions.setText(label, event.target.value),
    }, given.text),
    h("figcaption", {}, h("span", { class: "who" }, "___ is a gap to fill"), downloads(label, title, given)),
  );
}

function figure(column, scene, given, actions) {
  const { label, title, state } = scene;
  const view = column.views[label];
  const who = column.title || (given ? "" : " ");
  const buttons = [];
  if (!given && state.inputs.includes(label)) {
    buttons.push(small(`${label}/use/${column.title}`, "Use as input", () => actions.use(label, view)));
  }
  if (state.inputs.includes(label) && canEdit(view.kind)) {
    buttons.push(small(`${label}/edit/${column.title}`, "Edit", () => actions.edit(label, view, column)));
  }
  return h("figure", {}, tile(view, column, scene),
    h("figcaption", {}, who.trim() ? h("span", { class: "who" }, who) : null, buttons, downloads(label, title, view)));
}

function downloads(label, title, view) {
  const found = [];
  const isShown = view.image || view.numbers || view.kind === "boxes";
  if (view.kind !== "image" && isShown) found.push(download(label, title, "image", (event) => saveShown(event, label)));
  const isImage = view.kind === "image";
  found.push(download(label, title, isImage ? "image" : "data", () => saveFile(view), view.file.name.split(".").pop()));
  return found;
}

function download(label, title, what, action, format = "png") {
  const words = `Download ${title} as ${what} (${format === "image" ? "the file" : format})`;
  return keyed(`${label}/save/${what}`, "button", {
    class: "small", type: "button", "aria-label": words, title: words, onclick: action,
  }, `↓ ${what}`);
}

function saveShown(event, label) {
  const canvas = event.target.closest("figure").querySelector("canvas");
  canvas.toBlob((content) => save(`${label}.shown.png`, content));
}

function saveFile(view) {
  save(view.file.name, new Blob([bytesOf(view.file.base64)]));
}

// What is under the images: the scale of depth, the classes, the boxes, and what can be laid over the image.
function extras(columns, scene, state, actions) {
  const views = columns.map((column) => column.views[scene.label]);
  if (scene.kind === "depth" && views.length) return scale(scene.range, state);
  if (scene.kind === "classes" && views.length) return legend(views, state);
  if (scene.kind === "image" && views.length) return overlays(state, actions);
  if (scene.kind === "features" && views.length) return h("p", { class: "note" }, "Colors: the three main directions in each image.");
  return null;
}

function rangeOf(label, columns, state) {
  return depthRange(columns.map((column) => column.views[label]), state.about.depth.range);
}

function scale({ near, far, metric }, state) {
  const unit = metric ? " m" : "";
  const canvas = h("canvas", { role: "img", "aria-label": "Color scale from near to far" });
  drawScale(canvas, state.about.depth.colors);
  const shown = (value) => `${Number(value.toPrecision(2))}${unit}`;
  return h("div", { class: "bar" }, shown(near), canvas, shown(far) + (metric ? "" : " (relative)"));
}

function legend(views, state) {
  const counts = new Map();
  for (const view of views) for (const id of numbersOf(view)) counts.set(id, (counts.get(id) ?? 0) + 1);
  const rows = [...counts].sort((first, second) => second[1] - first[1]).slice(0, 12);
  return h("ul", { class: "legend" }, rows.map(([id]) => {
    const { name, color } = state.about.classes[id] ?? { name: `class ${id}`, color: [0, 0, 0] };
    const swatch = h("i");
    swatch.style.background = cssColor(color);
    return h("li", {}, swatch, name);
  }));
}

function overlays(state, actions) {
  const has = (kind) => state.labels.some((label) =>
    state.about.labels[label].kind === kind && (state.given.has(label) || state.columns.some((column) => column.views[label])));
  const box = (kind, words) => has(kind) && h("label", {}, keyed(`overlay/${kind}`, "input", {
    type: "checkbox", checked: state.overlays[kind], onchange: (event) => actions.overlay(kind, event.target.checked),
  }), words);
  const parts = [box("boxes", "boxes"), box("classes", "segmentation")].filter(Boolean);
  if (parts.length === 0) return null;
  if (state.overlays.classes && has("classes")) {
    parts.push(keyed("overlay/opacity", "input", {
      type: "range", min: "0.1", max: "1", step: "0.1", value: String(state.overlays.opacity), "aria-label": "Opacity of the segmentation",
      oninput: (event) => actions.overlay("opacity", Number(event.target.value)),
    }));
  }
  return h("div", { class: "overlays" }, "Show", parts);
}

function small(key, words, action) {
  return keyed(key, "button", { class: "small", type: "button", onclick: action }, words);
}

function keyed(key, tag, properties, ...children) {
  const element = h(tag, properties, ...children);
  element.dataset.key = key;
  return element;
}
