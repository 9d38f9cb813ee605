// New images: for the form, for a card's cluster, and for the margin that a dial is set to.
const panel = document.getElementById("draw");
const part = (name) => panel.querySelector(`[data-part="${name}"]`);
let formControl = null, shownDraw = null;

/** The draw that the form asks for; an empty seed becomes a random one. */
function wantedOfForm() {
  const form = part("form").elements, { value: seed } = form.seed;
  return {
    cluster: form.cluster.value.trim() || "0",
    margin: form.margin.value.trim() || "0",
    num: Number(form.num.value),
    seed: seed === "" ? crypto.getRandomValues(new Uint32Array(1))[0] : Number(seed),
    sampler: form.sampler.value || null,
    verify: form.verify.checked,
  };
}

function picture(address, number) {
  const button = document.createElement("button"), image = new Image();
  image.src = address;
  image.alt = "";
  button.type = "button";
  button.setAttribute("aria-label", `Save image ${number + 1} as a PNG file`);
  button.append(image);
  button.addEventListener("click", () => saveDraw(`${number}.png`));
  return button;
}

async function saveDraw(kind) {
  const { id, name, drawn } = shownDraw;
  try {
    say("Preparing the download.");
    await saveAs(`api/drawn/${id}/${kind}?num=${drawn}`, `${name}-${kind}`);
    say("Downloaded.");
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  part("error").textContent = error.message;
  part("error").hidden = false;
}

async function drawForm() {
  formControl?.abort();
  const control = formControl = new AbortController(), gallery = part("gallery"), progress = part("progress");
  const wanted = wantedOfForm();
  part("error").hidden = part("about").hidden = part("done").hidden = true;
  part("running").hidden = false;
  gallery.replaceChildren();
  shownDraw = null;
  progress.max = wanted.num;
  progress.value = 0;
  part("expected").textContent = "";
  part("count").textContent = `0 of ${wanted.num}`;
  try {
    await draw(wanted, control.signal, (message) => {
      if (control !== formControl) return;
      if (message.begun) {
        part("expected").textContent = message.begun;
        shownDraw = { ...message, drawn: 0 };
        part("said").textContent = `${wanted.num} images by ${message.sampler}, seed ${wanted.seed}.`;
        showCommand(message.command);
        part("about").hidden = false;
      }
      if (message.images?.length) {
        Object.assign(shownDraw, { drawn: message.drawn, command: message.command });
        gallery.append(...message.images.map((address, i) => picture(address, message.drawn - message.images.length + i)));
        progress.value = message.drawn;
        part("count").textContent = `${message.drawn} of ${wanted.num}`;
      }
      if (message.done) showDone(message.done.acceptance, wanted);
    });
  } catch (error) {
    if (control !== formControl) return;
    if (error.name !== "AbortError") fail(error);
    if (shownDraw) showStopped(wanted);
  }
  if (control === formControl) part("running").hidden = true;
}

function showDone(acceptance, wanted) {
  const checked = acceptance === null ? "not checked" : `${(100 * acceptance).toFixed(1)}% of the proposed images were in the cluster`;
  showEnd(`${wanted.num} images by ${shownDraw.sampler}, seed ${wanted.seed}: ${checked}.`);
}

/** Show a command that wraps between its words, never inside one. */
function showCommand(command) {
  const spans = command.split(" ").map((word) => {
    const span = document.createElement("span");
    span.textContent = word;
    return span;
  });
  part("command").replaceChildren(...spans.flatMap((span, i) => (i ? [" ", span] : [span])));
}

/** The images drawn so far can be saved, and the command shown draws the same ones. */
function showStopped(wanted) {
  showEnd(`Stopped after ${shownDraw.drawn} of ${wanted.num} images by ${shownDraw.sampler}, seed ${wanted.seed}.`);
}

function showEnd(text) {
  part("said").textContent = text;
  showCommand(shownDraw.command);
  part("done").hidden = shownDraw.drawn === 0;
  say(text);
}

/** When a dial has not moved for a moment, show new images above its margin in the card's strip. */
function startLiveDial(card) {
  const dial = card.querySelector("input[type=range]"), strip = card.querySelector(".strip");
  if (!dial) return;
  let timer = 0, control = null;
  dial.addEventListener("input", () => {
    clearTimeout(timer);
    control?.abort();
    timer = setTimeout(async () => {
      const own = control = new AbortController(), margin = String(Number(dial.value) / 100), images = [];
      const seed = crypto.getRandomValues(new Uint32Array(1))[0];
      try {
        await draw({ cluster: card.dataset.asked, margin, num: STRIP, seed }, own.signal, (message) => images.push(...(message.images || [])));
        if (own.signal.aborted) return;
        strip.replaceChildren(...images.map((address) => {
          const image = new Image();
          image.src = address;
          image.alt = "";
          return image;
        }));
        strip.setAttribute("aria-label", `${images.length} new images above margin ${margin}`);
      } catch (error) {
        if (error.name !== "AbortError") say(error.message);
      }
    }, 250);
  });
}

function startDrawing() {
  part("form").addEventListener("submit", (event) => {
    event.preventDefault();
    drawForm();
  });
  part("stop").addEventListener("click", () => formControl?.abort());
  for (const button of all("[data-kind]", panel)) button.addEventListener("click", () => saveDraw(button.dataset.kind));
  for (const card of all(".card")) {
    startLiveDial(card);
    card.querySelector(".drawone").addEventListener("click", () => {
      const form = part("form").elements, dial = card.querySelector("input[type=range]");
      form.cluster.value = card.dataset.asked;
      form.margin.value = dial ? Number(dial.value) / 100 : 0;
      drawForm();
      panel.scrollIntoView();
      part("heading").focus({ preventScroll: true });
    });
  }
}
startDrawing();
