// Asking the process that serves this page; its token stands in the page's own address.
const token = new URLSearchParams(location.search).get("token") || "";

/** Fetch, or throw an error with one line for the user. */
async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...options.headers, "x-cgjax-token": token } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("There is no answer: is the command that serves this page still running?");
  }
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer;
}

const askJson = (method, path, body, options = {}) =>
  ask(path, { ...options, method, body: JSON.stringify(body), headers: { "content-type": "application/json" } });

/** The JSON lines of an answer as they come. */
async function* jsonLines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** Draw; `on` gets every message of the answer. Throws what went wrong, an AbortError if it was given up. */
async function draw(wanted, signal, on) {
  let isDone = false;
  for await (const message of jsonLines(await askJson("POST", "api/draw", wanted, { signal }))) {
    if (message.error) throw new Error(message.error);
    isDone ||= Boolean(message.done);
    on(message);
  }
  if (!isDone) throw new Error("The answer was cut off: is the command that serves this page still running?");
}

/** Save an answer as a file. */
async function saveAs(path, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await (await ask(path)).blob());
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
