"use strict";
(function () {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const coarse = window.matchMedia("(pointer: coarse)");
  const drawn = new Map();  // figure -> whether it was narrow
  const NARROW = 480;  // pixels
  const NARROW_LINE = 22;  // characters

  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  // Plotly escapes no text: what comes from outside was escaped when the figure was made
  // a title of an axis that is too long for the figure is cut off at both ends
  function wrapped(text) {
    return text.split(" ").reduce(function (lines, word) {
      const last = lines[lines.length - 1];
      return last && last.length + word.length < NARROW_LINE ? [...lines.slice(0, -1), `${last} ${word}`] : [...lines, word];
    }, []).join("<br>");
  }

  function themed(layout, narrow) {
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim();
    const copy = JSON.parse(JSON.stringify(layout));
    copy.font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink };
    copy.modebar = { bgcolor: style.getPropertyValue("--card").trim(), color: style.getPropertyValue("--soft").trim(), activecolor: ink };
    copy.dragmode = coarse.matches ? false : "zoom";
    Object.keys(copy).forEach(function (key) {
      if (/^[xy]axis[0-9]*$/.test(key)) {
        Object.assign(copy[key], { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line });
        const title = copy[key].title;
        if (narrow && title && title.text) {
          title.text = wrapped(title.text.replace(/<br>/g, " "));
        }
      }
    });
    copy.hoverlabel = Object.assign({}, copy.hoverlabel, {
      bgcolor: style.getPropertyValue("--card").trim(), bordercolor: line, font: { color: ink },
    });
    return copy;
  }

  function draw(box) {
    const figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
    const narrow = box.clientWidth < NARROW;
    Plotly.react(box, figure.data, themed(figure.layout, narrow), {
      responsive: true,
      displaylogo: false,
      displayModeBar: coarse.matches ? false : "hover",
      // one of Plotly's own buttons would send the figure to a server
      modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
      plotlyServerURL: "",
    });
    drawn.set(box, narrow);
  }

  function all(selector) {
    return Array.from(document.querySelectorAll(selector));
  }

  // a figure is drawn when it comes near: a study of thousands of trials opens at once
  const boxes = all(".figure");
  const watcher = new IntersectionObserver(function (entries) {
    entries.filter((entry) => entry.isIntersecting).forEach(function (entry) {
      watcher.unobserve(entry.target);
      draw(entry.target);
    });
  }, { rootMargin: "300px" });
  boxes.forEach((box) => watcher.observe(box));
  window.addEventListener("beforeprint", () => boxes.filter((box) => !drawn.has(box)).forEach(draw));

  function redraw() {
    Array.from(drawn.keys()).forEach(draw);
  }
  window.addEventListener("resize", function () {
    Array.from(drawn).filter(([box, narrow]) => narrow !== box.clientWidth < NARROW).forEach(([box]) => draw(box));
  });
  system.addEventListener("change", redraw);
  document.getElementById("theme").addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    redraw();
  });

  const said = document.getElementById("said");
  let silence = 0;
  function say(text) {
    said.textContent = text;
    said.classList.add("shown");
    clearTimeout(silence);
    silence = setTimeout(() => said.classList.remove("shown"), 2000);
  }

  function copyOld(element) {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }

  async function copy(button) {
    const element = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(element.textContent);
      say("copied");
    } catch (error) {
      say(copyOld(element) ? "copied" : "selected: press Ctrl-C");
    }
  }
  all(".copy").forEach((button) => button.addEventListener("click", () => copy(button)));
})();
