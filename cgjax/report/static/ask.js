// Requests to the process that serves this page; the token is in the page's own address.
const token = new URLSearchParams(location.search).get("token") || "";

/** Fetch; on failure throw an error whose message is one line for the user. */
async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...options.headers, "x-cgjax-token": token } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("No answer: is the command that serves this page still running?");
  }
  if (!response.ok) throw new Error((await response.text()).trim());
  return response;
}

const askJson = (method, path, body, options = {}) =>
  ask(path, { ...options, method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });

/** Yield the JSON lines of a response as they arrive. */
async function* jsonLines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let partial = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (partial + value).split("\n");
    partial = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** Draw, and pass every message of the response to `onMessage`. Throws on failure; an AbortError if aborted. */
async function draw(wanted, signal, onMessage) {
  let isDone = false;
  for await (const message of jsonLines(await askJson("POST", "api/draw", wanted, { signal }))) {
    if (message.error) throw new Error(message.error);
    isDone ||= Boolean(message.done);
    onMessage(message);
  }
  if (!isDone) throw new Error("The answer broke off: is the command that serves this page still running?");
}

/** Save a response as a file. */
async function saveAs(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await ask(path)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
