// Editors of one value, in a dialog. `edit` resolves to the new value for the server, or null if nothing is to change.

import { editBoxes } from "./boxes.js";
import { h } from "./dom.js";
import { canPaint, editPixels } from "./paint.js";

export const canEdit = (kind) => kind === "text" || kind === "boxes" || canPaint(kind);

// dialog: the <dialog> element; scene: {label, view, column, state}
export function edit(dialog, scene) {
  const editor = scene.view.kind === "boxes" ? editBoxes(scene) : editPixels(scene);
  return new Promise((resolve) => {
    const title = scene.state.about.labels[scene.label].title;
    const form = h("form", { method: "dialog" },
      h("h2", { id: "editor-title" }, `Edit ${title}`),
      editor.element,
      h("div", { class: "end" },
        h("button", { type: "button", onclick: () => editor.reset() }, "Reset"),
        h("button", { type: "button", onclick: () => dialog.close("") }, "Cancel"),
        h("button", { class: "primary", value: "use" }, "Regenerate the others"),
      ),
    );
    dialog.replaceChildren(form);
    dialog.returnValue = "";
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? editor.value() : null), { once: true });
    dialog.showModal();
    editor.start();
  });
}
