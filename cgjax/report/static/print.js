// Printing: every section is open, and every plot is drawn in dark colours on white.
const PAPER = { ink: "#000", soft: "#333" };

function startPrinting() {
  let opened = [];
  addEventListener("beforeprint", () => {
    const closed = all("details:not([open])");
    for (const section of closed) section.open = true;
    opened.push(...closed); // the event can come twice before the page is printed
    for (const canvas of all("canvas[data-view]")) scatterOf(canvas).draw(PAPER);
  });
  addEventListener("afterprint", () => {
    for (const section of opened) section.open = false;
    opened = [];
    for (const scatter of scatters.values()) scatter.draw();
  });
}
