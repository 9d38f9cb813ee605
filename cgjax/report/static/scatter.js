// The scatter plot: dots on a canvas, with their images on hover or by the arrow keys.
const EDGE = { left: 66, right: 14, top: 14, bottom: 44 }, REACH = 18;

function drawMark(context, x, y, { color, marker }, size) {
  context.fillStyle = color;
  context.beginPath();
  if (marker === "o") context.arc(x, y, size, 0, 2 * Math.PI);
  else if (marker === "s") context.rect(x - size, y - size, 2 * size, 2 * size);
  else { context.moveTo(x, y - size); context.lineTo(x + size, y + size); context.lineTo(x - size, y + size); context.closePath(); }
  context.fill();
}

class Scatter {
  constructor(canvas) {
    this.canvas = canvas;
    this.view = views[canvas.dataset.view];
    this.peek = canvas.parentElement.querySelector(".peek");
    this.num = this.view.points.length / 2;
    this.at = -1;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    // Drawn about as wide as it is displayed, so that its text is readable on a phone.
    this.wide = canvas.clientWidth < 520 ? 390 : 720;
    this.high = this.wide * 2 / 3;
    canvas.width = this.wide * ratio;
    canvas.height = this.high * ratio;
    this.context = canvas.getContext("2d");
    this.context.scale(ratio, ratio);
    canvas.addEventListener("pointermove", (event) => this.point(this.nearest(...this.where(event))));
    canvas.addEventListener("pointerleave", () => this.point(-1));
    canvas.addEventListener("blur", () => this.point(-1));
    canvas.addEventListener("click", (event) => {
      this.point(this.nearest(...this.where(event)));
      this.go();
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.draw();
  }

  place(i) {
    const { points } = this.view;
    return [
      EDGE.left + points[2 * i] / 65535 * (this.wide - EDGE.left - EDGE.right),
      this.high - EDGE.bottom - points[2 * i + 1] / 65535 * (this.high - EDGE.top - EDGE.bottom),
    ];
  }

  draw({ ink, soft } = screenColours()) {
    const { context, view } = this;
    context.clearRect(0, 0, this.wide, this.high);
    context.globalAlpha = matchMedia("(prefers-color-scheme: dark)").matches ? 0.9 : 0.65;
    for (let i = 0; i < this.num; i++) {
      drawMark(context, ...this.place(i), view.styles[view.labels[i]], this.wide < 500 ? 2 : 3);
    }
    context.globalAlpha = 1;
    context.strokeStyle = soft;
    context.fillStyle = ink;
    context.font = "13px system-ui, sans-serif";
    const [left, bottom] = [EDGE.left - 6, this.high - EDGE.bottom + 6];
    context.beginPath();
    context.moveTo(left, EDGE.top);
    context.lineTo(left, bottom);
    context.lineTo(this.wide - EDGE.right, bottom);
    context.stroke();
    const [low, high] = view.ends;
    context.textAlign = "left";
    context.fillText(low[0], EDGE.left, bottom + 16);
    context.textAlign = "right";
    context.fillText(high[0], this.wide - EDGE.right, bottom + 16);
    context.fillText(low[1], left - 4, bottom - 4);
    context.fillText(high[1], left - 4, EDGE.top + 10);
    context.textAlign = "center";
    context.fillText("component 1 (feature units)", (this.wide + EDGE.left) / 2, this.high - 8);
    context.save();
    context.translate(14, (this.high - EDGE.bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.fillText("component 2", 0, 0);
    context.restore();
    if (this.at >= 0) {
      const [x, y] = this.place(this.at);
      drawMark(context, x, y, view.styles[view.labels[this.at]], 6);
      context.strokeStyle = ink;
      context.lineWidth = 2;
      context.stroke();
      context.lineWidth = 1;
    }
  }

  where(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * this.wide, (event.clientY - box.top) / box.height * this.high];
  }

  nearest(x, y, isCandidate = () => true, reach = REACH) {
    let best = -1, least = reach * reach;
    for (let i = 0; i < this.num; i++) {
      const [a, b] = this.place(i), distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least && isCandidate(a, b)) { best = i; least = distance; }
    }
    return best;
  }

  point(i) {
    if (i === this.at) return;
    this.at = i;
    this.draw();
    this.peek.hidden = i < 0;
    if (i < 0) return;
    const [x, y] = this.place(i), { view } = this;
    showTile(this.peek.querySelector("i"), view, i);
    const name = nameOf(view, view.labels[i]);
    this.peek.querySelector("span").textContent = name.slice(0, 60);
    const beyond = x > this.wide / 2, scale = this.canvas.clientWidth / this.wide;
    this.peek.style.left = beyond ? "auto" : `${(x + 12) * scale}px`;
    this.peek.style.right = beyond ? `${(this.wide - x + 12) * scale}px` : "auto";
    this.peek.style.top = `${Math.max(0, Math.min(y * scale - 50, this.canvas.clientHeight - 130))}px`;
    if (document.activeElement === this.canvas) say(`Latent ${view.latents[i]}, ${name.slice(0, 60)}`);
  }

  key(event) {
    const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Enter" && this.at >= 0) this.go();
    if (!(event.key in ways)) return;
    event.preventDefault();
    if (this.at < 0) { this.point(this.nearest(this.wide / 2, this.high / 2, undefined, this.wide)); return; }
    const [x, y] = this.place(this.at), [dx, dy] = ways[event.key];
    const isAhead = (a, b) => {
      const along = (a - x) * dx + (b - y) * dy, across = Math.abs((a - x) * dy) + Math.abs((b - y) * dx);
      return along > 0.5 && across <= along;
    };
    const next = this.nearest(x, y, isAhead, this.wide);
    if (next >= 0) this.point(next);
  }

  go() {
    if (this.at < 0) return;
    const card = document.getElementById(`${this.view.key}c${this.view.labels[this.at]}`);
    card.scrollIntoView({ block: "start" });
    card.querySelector(".name input").focus({ preventScroll: true });
  }
}

function nameOf(view, cluster) {
  const card = cards.find((one) => one.view === view && one.cluster === cluster);
  return stateOf(card).name.trim() || card.title;
}

function screenColours() {
  const style = getComputedStyle(document.documentElement);
  return { ink: style.getPropertyValue("--ink"), soft: style.getPropertyValue("--soft") };
}

const scatters = new Map();

function scatterOf(canvas) {
  if (!scatters.has(canvas)) scatters.set(canvas, new Scatter(canvas));
  return scatters.get(canvas);
}

/** Draw each plot shortly before it scrolls into view; those of closed sections when they are opened. */
function startScatters() {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      scatterOf(entry.target);
    }
  }, { rootMargin: "600px" });
  for (const canvas of all("canvas[data-view]")) seen.observe(canvas);
}
