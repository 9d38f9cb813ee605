// Names: typing, undo, the draft in this browser, and the download for --mode=name.
// On a served page, saved.js wraps `store.save` to send the names too.
const NOTHING = "means nothing";

const storeKey = "cgjax names " + Object.values(views).map((view) => view.digest.slice(0, 16)).sort().join(" ");
const store = {
  load() {
    try { return JSON.parse(localStorage.getItem(storeKey) || "{}"); } catch { return {}; }
  },
  save(draft) {
    try { localStorage.setItem(storeKey, JSON.stringify(draft)); } catch { say("This browser cannot keep a draft: download the names before you leave."); }
  },
};

/** What was typed, by the clustering's digest and the cluster: {name, contradict: [latents], looked, was}. */
let draft = store.load();
const undoable = [];

const cards = all(".card").map((element) => {
  const view = views[element.dataset.view], cluster = Number(element.dataset.cluster);
  return { element, view, cluster, title: element.dataset.title, given: view.entries[cluster], input: element.querySelector(".name input") };
});

/** Drop the drafts that replace a name which the run no longer has: the run's new name wins. */
function dropStale() {
  const dropped = [], before = JSON.stringify(draft);
  for (const { view, cluster, title, given } of cards) {
    const old = draft[view.digest]?.[cluster];
    if (!old || (old.was ?? null) === given.name) continue;
    delete draft[view.digest][cluster];
    const name = (old.name || "").trim();
    if (name && name !== given.name) dropped.push(`“${name.slice(0, 60)}” for ${title}`);
  }
  if (JSON.stringify(draft) !== before) store.save(draft);
  if (!dropped.length) return;
  const line = document.getElementById("dropped");
  line.textContent = `Drafts dropped because the run has new names for these clusters: ${dropped.join(", ")}.`;
  line.hidden = false;
}

/** The present name and marks of a card's cluster: from the draft, or else from the run. */
function stateOf(card) {
  const drafted = draft[card.view.digest]?.[card.cluster];
  const { judged } = card.given;
  return { name: card.given.name || "", contradict: judged?.contradict ?? [], looked: Boolean(judged), ...drafted };
}

function change(card, update, remember = true) {
  const before = stateOf(card);
  if (remember) undoable.push([card, before]);
  const now = { ...before, ...update, was: card.given.name };
  (draft[card.view.digest] ??= {})[card.cluster] = now;
  store.save(draft);
  show(card);
  showProgress();
}

/** Make everything typed since the field was entered one step of undo. */
function commit(card) {
  if (card.before && card.before.name !== stateOf(card).name) undoable.push([card, card.before]);
  card.before = stateOf(card);
  showProgress();
}

function undo() {
  const last = undoable.pop();
  if (!last) return;
  const [card, before] = last;
  change(card, before, false);
  card.input.focus();
  say(`Undone: ${card.title} is ${before.name ? `named “${before.name}”` : "not named"}.`);
}

function show(card) {
  const state = stateOf(card);
  if (card.input.value !== state.name) card.input.value = state.name;
  for (const tile of all(".typical button", card.element)) {
    tile.setAttribute("aria-pressed", String(state.contradict.includes(Number(tile.dataset.latent))));
  }
  const looked = card.element.querySelector(".checked");
  if (looked) looked.checked = state.looked;
  const shown = all(".typical button", card.element).length, line = card.element.querySelector(".judged");
  line.hidden = !(state.looked && shown);
  if (!line.hidden) {
    const agree = shown - state.contradict.length;
    const [low, high] = wilson(agree, shown).map((share) => Math.round(100 * share));
    line.textContent = `${agree} of ${shown} random images fit the name: ${Math.round(100 * agree / shown)}% (${low}% to ${high}%).`;
  }
  const label = state.name.trim() || card.title;
  for (const link of all(`#${card.view.key} [data-legend="${card.cluster}"]`)) link.textContent = label.slice(0, 80);
}

function showProgress() {
  const named = cards.filter((card) => stateOf(card).name.trim()).length;
  document.getElementById("progress").textContent = `${named} of ${cards.length} named`;
  document.getElementById("undo").disabled = undoable.length === 0;
}

/** The content of names.json. `was`, the name that is replaced, reveals a name given by somebody else meanwhile. */
function namesFile() {
  const seen = new Set(), clusterings = [];
  for (const view of Object.values(views)) {
    if (seen.has(view.digest)) continue;
    seen.add(view.digest);
    clusterings.push({
      id: view.id,
      digest: view.digest,
      clusters: cards.filter((card) => card.view === view).map((card) => {
        const state = stateOf(card), shown = all(".typical button", card.element).length;
        const entry = { id: card.cluster, name: state.name.trim() || null, was: "was" in state ? state.was : card.given.name };
        if (state.looked && shown) entry.judged = { shown, contradict: state.contradict };
        return entry;
      }),
    });
  }
  return { format: "cgjax names", version: 1, clusterings };
}

function downloadNames() {
  const text = JSON.stringify(namesFile(), null, 1) + "\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "names.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  say("names.json was downloaded.");
}

/** The visible name fields: those in closed sections are left out. */
const visibleFields = () => cards.filter((card) => card.input.getClientRects().length).map((card) => card.input);

function onKey(event, card) {
  const fields = visibleFields(), at = fields.indexOf(card.input);
  const isNext = event.key === "Enter" || event.key === "Tab";
  if (isNext) commit(card);
  const next = fields[at + (event.shiftKey ? -1 : 1)];
  if (event.key === "Escape") {
    (card.element.querySelector(".typical button[tabindex='0']") || card.element.querySelector(".copy")).focus();
  } else if (isNext && next && !event.isComposing && !event.ctrlKey && !event.altKey) {
    event.preventDefault();
    next.focus();
    next.select();
  }
}

/**
 * Take over a draft that another tab wrote. It may also be this tab before a reload: the browser does not
 * promise that what the old page wrote last is there when the new one first reads. A served page has no
 * need of it: there, the names of the run's folder count.
 */
function followOtherTabs() {
  addEventListener("storage", (event) => {
    if (event.key !== storeKey) return;
    draft = store.load();
    for (const card of cards) if (document.activeElement !== card.input) show(card);
    showProgress();
  });
}

function startNames() {
  document.getElementById("bar").hidden = false;
  dropStale();
  if (!document.getElementById("saved")) followOtherTabs();
  document.getElementById("undo").addEventListener("click", undo);
  document.getElementById("download").addEventListener("click", downloadNames);
  document.addEventListener("keydown", (event) => {
    const isTyping = document.activeElement?.matches("input[type=text]");
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !isTyping) undo();
  });
  for (const card of cards) {
    card.input.addEventListener("focus", () => { card.before = stateOf(card); });
    card.input.addEventListener("input", () => change(card, { name: card.input.value }, false));
    card.input.addEventListener("change", () => commit(card));
    card.input.addEventListener("blur", () => show(card)); // an answer that came while typing may have changed the name
    card.input.addEventListener("keydown", (event) => onKey(event, card));
    card.element.querySelector(".nothing").addEventListener("click", () => change(card, { name: NOTHING }));
    card.element.querySelector(".use")?.addEventListener("click", (event) => change(card, { name: event.currentTarget.dataset.name }));
    card.element.querySelector(".checked")?.addEventListener("change", (event) => change(card, { looked: event.target.checked }));
    for (const tile of all(".typical button", card.element)) {
      tile.addEventListener("click", () => {
        const latent = Number(tile.dataset.latent), { contradict } = stateOf(card);
        const without = contradict.filter((other) => other !== latent);
        const isNew = without.length === contradict.length;
        change(card, { contradict: isNew ? [...contradict, latent] : without, looked: true });
      });
    }
    show(card);
  }
  showProgress();
}
