// Shared by all scripts: the page's data and small helpers.
const data = JSON.parse(document.getElementById("data").textContent);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const live = document.getElementById("live");
const say = (text) => { live.textContent = text; };

/** The clusterings on the page by key, with their arrays decoded. */
const views = {};
for (const [key, view] of Object.entries(data.views)) {
  views[key] = { ...view, key, ...data.groups[view.group] };
  if (view.points) {
    views[key].points = new Uint16Array(bytes(view.points).buffer);
    views[key].labels = new Uint16Array(bytes(view.labels).buffer);
    views[key].quantiles = bytes(view.quantiles);
  }
}

/** Make an element show the image at a position of its view's sheet, through CSS classes. */
function showTile(element, view, position) {
  element.className = `t ${view.group} x${position % view.columns} y${Math.floor(position / view.columns)}`;
}

/** The 95% interval of a share [Wilson 1927]; the same as cgjax.numerics.intervals.wilson_interval. */
function wilson(successes, total) {
  const z = 1.959963984540054, share = successes / total;
  const centre = (share + z * z / (2 * total)) / (1 + z * z / total);
  const half = z * Math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total);
  return [Math.max(0, Math.min(centre - half, share)), Math.min(1, Math.max(centre + half, share))];
}
