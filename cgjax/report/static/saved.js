// On a served page, names are saved in the run's folder shortly after they are typed.
const saved = document.getElementById("saved"), keepDraft = store.save;
let saving = 0, isSending = false;

/** The part of names.json that was typed but is not saved yet. */
function unsaved() {
  const content = namesFile();
  for (const one of content.clusterings) {
    one.clusters = one.clusters.filter((entry) => draft[one.digest]?.[entry.id]);
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
    const isAllSaved = !unsaved().clusterings.length; // something may have been typed meanwhile
    saved.textContent = problems.join(" ") || (isAllSaved ? "All names are saved." : "");
    saved.classList.toggle("bad", problems.length > 0);
  } catch (error) {
    saved.textContent = `Not saved, but kept in this browser: ${error.message}`;
    saved.classList.add("bad");
  }
  isSending = false;
}

/** Remove from the draft what was sent; what was typed meanwhile stays in it. */
function settle(content, before, entries) {
  for (const one of content.clusterings) {
    for (const { id } of one.clusters) {
      const [was, now] = [before[one.digest]?.[id], draft[one.digest]?.[id]], entry = entries[one.digest]?.[id];
      if (!entry) continue;
      for (const card of cards.filter((card) => card.view.digest === one.digest && card.cluster === id)) {
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
queueMicrotask(() => send()); // once all scripts have started: names typed while the command was not running
