// State of the page, and what users do with it.

import * as api from "./api.js";
import { renderCards } from "./cards.js";
import { byId, bytesOf, h, save } from "./dom.js";
import { edit } from "./editors.js";
import { zip } from "./zip.js";

const MAX_HISTORY = 30;
const LARGE = 12_000_000; // bytes of an image: larger files are made smaller before they are sent

const state = {
  about: null,
  models: [], // what can be chosen
  descriptions: new Map(), // id → labels that this model takes and predicts
  labels: [], inputs: [], outputs: [], // of the chosen models
  given: new Map(), // label → view
  off: new Set(), // labels that are not to be predicted
  columns: [], // {title, model, seed, views: label → view}
  overlays: { boxes: false, classes: false, opacity: 0.5 },
};
const history = []; // what was shown before
let current = null; // what is shown
let running = null; // AbortController of the requests in progress
let captionIndex = 0;

// --- what is asked for -------------------------------------------------------------------------------------------------
const chosen = () => byId("model").value.split("|");
const numberOf = (id) => (byId(id).value === "" ? null : Number(byId(id).value));

function valueOf(view) {
  if (view.kind === "text") return view.text;
  return view.json !== undefined ? view.json : view.file.base64;
}

function hasGap([label, view]) {
  return view.kind === "text" && view.text.includes("___") && state.outputs.includes(label);
}

function targets() {
  const gaps = [...state.given].filter(hasGap).map(([label]) => label);
  return [...state.outputs.filter((label) => !state.given.has(label) && !state.off.has(label)), ...gaps];
}

function request(seed) {
  const params = { targets: targets(), preset: byId("preset").value, seed };
  for (const name of ["temperature", "guidance"]) if (numberOf(name) !== null) params[name] = numberOf(name);
  return { inputs: Object.fromEntries([...state.given].map(([label, view]) => [label, valueOf(view)])), params };
}

function columnTitle(id, seed, several) {
  const parts = [];
  if (chosen().length > 1) parts.push(modelTitle(state.models.find((model) => model.id === id)));
  if (several) parts.push(`seed ${seed}`);
  return parts.join(" · ");
}

async function run() {
  running?.abort();
  const own = (running = new AbortController());
  showError("");
  if (state.given.size === 0) return showStatus("Start from an image or a caption.");
  if (targets().length === 0) return render(), showStatus("Nothing is to be predicted. Tick “predict” on a card.");
  const seeds = Array.from({ length: Number(byId("variants").value) }, (_, index) => (numberOf("seed") ?? 0) + index);
  const wanted = chosen().flatMap((model) => seeds.map((seed) => ({ model, seed, title: columnTitle(model, seed, seeds.length > 1) })));
  const began = performance.now();
  showStatus("Generating …", true);
  byId("cards").classList.add("stale");
  try {
    const answers = await Promise.all(wanted.map(({ model, seed }) => api.predict(model, request(seed), own.signal)));
    state.columns = wanted.map((column, index) => ({ ...column, views: answers[index] }));
    filledGaps();
    if (current) history.push(current);
    if (history.length > MAX_HISTORY) history.shift();
    current = snapshot();
    showStatus(summary(seeds, (performance.now() - began) / 1000));
  } catch (error) {
    if (error.name === "AbortError") return;
    showStatus("");
    showError(error.message);
  }
  byId("cards").classList.remove("stale");
  render();
}

// A caption with gaps is an input and a target: what was filled in replaces it.
function filledGaps() {
  for (const entry of [...state.given].filter(hasGap)) {
    const found = state.columns[0]?.views[entry[0]];
    if (found) state.given.set(entry[0], found);
  }
}

function summary(seeds, seconds) {
  const names = chosen().map((id) => modelTitle(state.models.find((model) => model.id === id)));
  const shown = seeds.length > 1 ? `seeds ${seeds[0]} to ${seeds.at(-1)}` : `seed ${seeds[0]}`;
  const same = seeds.length > 1 && byId("preset").value === "greedy" && !numberOf("temperature");
  const hint = same ? " The preset greedy takes the most probable token, so all seeds agree: set a temperature." : "";
  return `${targets().length} modalities in ${seconds.toFixed(1)} s · ${names.join(" and ")} · ${shown}.${hint}`;
}

// --- what users do -----------------------------------------------------------------------------------------------------
const actions = {
  use(label, view) { // as a further input
    state.given.set(label, view);
    state.off.delete(label);
    run();
  },
  only(label, view) { // everything else is predicted from it
    state.given = new Map([[label, view]]);
    state.off.delete(label);
    run();
  },
  remove(label) {
    state.given.delete(label);
    run();
  },
  toggle(label, isOn) {
    if (isOn) state.off.delete(label);
    else state.off.add(label);
    run();
  },
  open(label, file) { // further inputs stay
    if (!file) return;
    showStatus("Reading …", true);
    guarded(async () => actions.use(label, await api.readFile(label, label === "rgb" ? await smaller(file) : file)));
  },
  async setText(label, text) {
    if (text.trim() === "") return showError(`Write some text: ${label} is an input.`);
    showStatus("Reading …", true);
    await guarded(async () => {
      state.given.set(label, await api.readValue(label, text));
      await run();
    });
  },
  async edit(label, view, column) {
    if (view.kind === "text") {
      actions.only(label, view);
      render();
      byId("cards").querySelector(`[data-key="${label}/text"]`)?.focus();
      return;
    }
    await guarded(async () => {
      const changed = await edit(byId("editor"), { label, view, column, state });
      byId("cards").querySelector(`[data-key^="${label}/edit"]`)?.focus();
      if (changed === null) return;
      showStatus("Reading …", true);
      actions.only(label, await (changed instanceof Blob ? api.readFile(label, changed) : api.readValue(label, changed)));
    });
  },
  overlay(name, value) {
    state.overlays[name] = value;
    render();
  },
};

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    showStatus("");
    showError(error.message);
  }
}

async function openImage(file) {
  if (!file) return;
  showStatus("Reading …", true);
  await guarded(async () => actions.only("rgb", await api.readFile("rgb", await smaller(file))));
}

async function smaller(file) {
  if (file.size <= LARGE) return file;
  const image = await createImageBitmap(file);
  const scale = Math.min(1, 2048 / Math.max(image.width, image.height));
  const canvas = new OffscreenCanvas(Math.round(image.width * scale), Math.round(image.height * scale));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

async function fromCaption(text) {
  if (text.trim() === "") return byId("caption").focus();
  showStatus("Reading …", true);
  await guarded(async () => actions.only("caption", await api.readValue("caption", text)));
}

function snapshot() {
  return { given: new Map(state.given), off: new Set(state.off), columns: state.columns };
}

function undo() {
  if (history.length === 0) return;
  running?.abort();
  current = history.pop();
  Object.assign(state, { ...current, given: new Map(current.given), off: new Set(current.off) });
  showStatus("Undone.");
  byId("cards").classList.remove("stale");
  render();
}

function saveAll() {
  const files = [];
  const folderOf = (title) => (title ? `${title.replaceAll(/[^\w.@-]+/g, "-")}/` : "");
  for (const [label, view] of state.given) files.push([`inputs/${view.file.name}`, bytesOf(view.file.base64)]);
  for (const column of state.columns) {
    for (const view of Object.values(column.views)) files.push([folderOf(column.title) + view.file.name, bytesOf(view.file.base64)]);
  }
  const about = { models: chosen(), columns: state.columns.map(({ title, model, seed }) => ({ title, model, seed })), params: request(0).params };
  delete about.params.seed;
  files.push(["request.json", new TextEncoder().encode(JSON.stringify(about, null, 1))]);
  save("fourfold-demo.zip", zip(files));
}

// --- the page ----------------------------------------------------------------------------------------------------------
function showStatus(text, busy = false) {
  if (busy) showError(""); // it is about an earlier request
  byId("status").textContent = text;
  byId("status").classList.toggle("busy", busy);
  byId("status").classList.toggle("done", !busy && text !== "");
}

function showError(text) {
  byId("error").textContent = text;
  byId("error").hidden = text === "";
}

function render() {
  renderCards(byId("cards"), state, actions);
  byId("undo").disabled = history.length === 0;
  byId("save-all").disabled = state.columns.length === 0;
  const image = state.given.get("rgb");
  for (const button of byId("examples").children) {
    button.setAttribute("aria-pressed", String(state.about.examples[button.dataset.index].rgb === image));
  }
}

function modelTitle(model) {
  if (model.id === "folder") return model.name;
  const marks = model.marks.length ? ` (${model.marks.join(", ")})` : "";
  return `${model.aliases.length ? `${model.aliases.join(", ")} · ` : ""}version ${model.id}${marks}`;
}

function showModels() {
  const options = state.models.map((model) => [model.id, modelTitle(model)]);
  if (options.length > 1) {
    const [first, second] = state.models;
    options.push([`${first.id}|${second.id}`, `${[first, second].map((one) => one.aliases[0] ?? one.id).join(" and ")} side by side`]);
  }
  byId("model").replaceChildren(...options.map(([value, words]) => h("option", { value }, words)));
}

async function chooseModel() {
  showStatus("Loading the model …", true);
  await Promise.all(chosen().map(async (id) => {
    if (!state.descriptions.has(id)) state.descriptions.set(id, await api.describe(id));
  }));
  const all = chosen().map((id) => state.descriptions.get(id));
  const common = (side) => all[0][side].filter((label) => all.every((one) => one[side].includes(label)));
  [state.inputs, state.outputs] = [common("inputs"), common("outputs")];
  state.labels = Object.keys(state.about.labels).filter((label) => state.inputs.includes(label) || state.outputs.includes(label));
  state.given = new Map([...state.given].filter(([label]) => state.inputs.includes(label)));
}

function showExamples() {
  byId("examples").replaceChildren(...state.about.examples.map((example, index) => {
    const image = h("img", { src: example.rgb.image, alt: example.caption || `example ${index + 1}`, width: 76, height: 76 });
    const button = h("button", { type: "button", title: example.caption, onclick: () => actions.only("rgb", example.rgb) }, image);
    button.dataset.index = index;
    return button;
  }));
  byId("preset").replaceChildren(...state.about.presets.map((name) => h("option", {}, name)));
}

function listen() {
  const drop = byId("drop");
  byId("image-file").addEventListener("change", (event) => {
    openImage(event.target.files[0]);
    event.target.value = "";
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const label = event.target.closest?.(".card")?.dataset.label;
    if (state.inputs.includes(label)) actions.open(label, event.dataTransfer.files[0]);
    else openImage(event.dataTransfer.files[0]);
  });
  drop.addEventListener("dragenter", () => drop.classList.add("over"));
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) openImage(file);
  });
  byId("from-caption").addEventListener("submit", (event) => {
    event.preventDefault();
    fromCaption(byId("caption").value);
  });
  byId("another").addEventListener("click", () => {
    byId("caption").value = state.about.captions[captionIndex++ % state.about.captions.length];
    fromCaption(byId("caption").value);
  });
  byId("settings").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("settings").addEventListener("change", (event) => {
    if (event.target.id === "model") guarded(async () => { await chooseModel(); await run(); });
    else if (byId("settings").reportValidity()) run();
  });
  byId("next-seed").addEventListener("click", () => {
    byId("seed").value = (numberOf("seed") ?? 0) + Number(byId("variants").value);
    run();
  });
  byId("undo").addEventListener("click", undo);
  byId("save-all").addEventListener("click", saveAll);
  document.addEventListener("keydown", (event) => {
    if (byId("editor").open || !(event.ctrlKey || event.metaKey)) return;
    const isWriting = event.target.matches("input, textarea");
    if (event.key === "Enter") {
      event.preventDefault();
      if (event.target.id === "caption") fromCaption(event.target.value);
      else if (event.target.matches("textarea")) event.target.blur();
      else run();
    } else if (event.key === "z" && !isWriting) {
      event.preventDefault();
      undo();
    }
  });
}

async function start() {
  [state.about, state.models] = await Promise.all([api.about(), api.models()]);
  byId("notice").textContent = state.about.notice;
  byId("notice").hidden = !state.about.notice;
  showModels();
  showExamples();
  listen();
  await chooseModel();
  const [example] = state.about.examples;
  if (example && state.inputs.includes("rgb")) state.given.set("rgb", example.rgb);
  render();
  await run();
}

guarded(start).then(() => byId("status").classList.toggle("busy", false));
