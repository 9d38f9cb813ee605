// Rows of images (arrow keys within a row), the margin dial, and the Copy buttons.
const STRIP = 12;

function startRows() {
  for (const row of all(".typical")) {
    row.addEventListener("keydown", (event) => {
      const tiles = all("button", row), at = tiles.indexOf(document.activeElement);
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -tiles.length, End: tiles.length };
      if (!(event.key in steps) || at < 0) return;
      event.preventDefault();
      const next = Math.min(Math.max(at + steps[event.key], 0), tiles.length - 1);
      tiles[at].tabIndex = -1;
      tiles[next].tabIndex = 0;
      tiles[next].focus();
    });
  }
}

/** Positions of the first members of a cluster above a quantile (0 to 1) of its margins; latents are in random order. */
function membersAbove(view, cluster, quantile) {
  const positions = [];
  for (let p = 0; p < view.labels.length && positions.length < STRIP; p++) {
    if (view.labels[p] === cluster && view.quantiles[p] >= 250 * quantile) positions.push(p);
  }
  return positions;
}

function startDials() {
  for (const card of all(".card")) {
    const dial = card.querySelector("input[type=range]"), view = views[card.dataset.view];
    const margin = card.querySelector("code .margin");
    if (!dial) continue;
    const strip = card.querySelector(".strip"), cluster = Number(card.dataset.cluster);
    const turn = () => {
      const quantile = Number(dial.value) / 100, positions = membersAbove(view, cluster, quantile);
      card.querySelector("output").textContent = quantile.toFixed(2);
      dial.setAttribute("aria-valuetext", `above quantile ${quantile.toFixed(2)}`);
      strip.replaceChildren(...positions.map((p) => {
        const tile = document.createElement("i");
        showTile(tile, view, p);
        return tile;
      }));
      strip.setAttribute("aria-label", `${positions.length} images above margin ${quantile.toFixed(2)}`);
      margin.textContent = quantile > 0 ? `--margin=${quantile}` : "";
    };
    dial.addEventListener("input", turn);
    turn();
  }
}

/** Copy text. A page opened from a file may not use the clipboard: then select the text for the user. */
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent.trim());
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  }
}

function startCopying() {
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const done = await copy(button.parentElement.querySelector("code"));
      say(done ? "Copied." : "The command is selected: press Ctrl+C or ⌘C to copy it.");
      button.classList.toggle("done", done);
      const label = button.firstChild;
      label.textContent = done ? "Copied" : "Selected";
      setTimeout(() => { label.textContent = "Copy"; }, 1500);
    });
  }
}
