// Names of a page that is served: saved in the run's folder as soon as a field is left.
const saved = document.getElementById("saved"), keepDraft = store.save;
let saving = 0, isSending = false;

/** The part of names.json that was typed here and is not saved yet. */
function unsaved() {
  const content = namesFile();
  for (const one of content.clusterings) {
    one.clusters = one.clusters.filter((each) => draft[one.digest]?.[each.id]);
  }
  content.clusterings = content.clusterings.filter((one) => one.clusters.length);
  return content;
}

const sameAs = (a, b) => JSON.stringify(a) === JSON.stringify(b);

async function send(keepalive = false) {
  clearTimeout(saving);
  if (isSending) {
    saving = setTimeout(send, 200);
    return;
  }
  const content = unsaved(), before = structuredClone(draft);
  if (!content.clusterings.length) return;
  isSending = true;
  saved.textContent = "Saving …";
  try {
    const { lines, entries } = await (await askJson("PUT", "api/names", content, { keepalive })).json();
    settle(content, before, entries);
    const problems = lines.filter((line) => line.is_problem).map((line) => line.text);
    saved.textContent = problems.length ? problems.join(" ") : "All names are saved.";
    saved.classList.toggle("bad", problems.length > 0);
  } catch (error) {
    saved.textContent = `Not saved, kept by this browser: ${error.message}`;
    saved.classList.add("bad");
  }
  isSending = false;
}

/** What was sent is no draft any more; what was typed meanwhile still is. */
function settle(content, before, entries) {
  for (const one of content.clusterings) {
    for (const { id } of one.clusters) {
      const [was, now] = [before[one.digest]?.[id], draft[one.digest]?.[id]], entry = entries[one.digest]?.[id];
      if (!entry) continue;
      for (const card of cards.filter((each) => each.view.digest === one.digest && each.cluster === id)) {
        card.given = entry;
        if (sameAs(was, now)) delete draft[one.digest][id];
        else draft[one.digest][id].was = entry.name;
        if (document.activeElement !== card.input) show(card);
      }
    }
  }
  keepDraft(draft);
  showProgress();
}

store.save = (typed) => {
  keepDraft(typed);
  saved.textContent = "";
  clearTimeout(saving);
  saving = setTimeout(send, 400);
};
addEventListener("pagehide", () => send(true));
queueMicrotask(() => send()); // what was typed while the command was not running, once all has started
