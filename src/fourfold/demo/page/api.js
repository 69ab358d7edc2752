// Requests to the server of this page. Errors have one sentence as their message.

async function answered(response) {
  const content = await response.json().catch(() => ({ error: `The server answered with status ${response.status}.` }));
  if (!response.ok) throw new Error(content.error ?? `The server answered with status ${response.status}.`);
  return content;
}

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Start `kedro demo` again, then repeat this.");
  }
  return answered(response);
}

const json = (content, signal) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(content),
  signal,
});

export const about = () => send("api/about");
export const models = () => send("api/models");
export const describe = (id) => send(`api/models/${encodeURIComponent(id)}`);
export const predict = (id, request, signal) => send(`api/models/${encodeURIComponent(id)}/predict`, json(request, signal));

// A file that was opened as an input, as a view.
export const readFile = (label, file) =>
  send(`api/read/${encodeURIComponent(label)}`, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: file,
  });

// An edited value (nested lists for arrays), as a view.
export const readValue = (label, value) => send(`api/read/${encodeURIComponent(label)}`, json(value));
