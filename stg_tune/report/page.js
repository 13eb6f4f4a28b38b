"use strict";
(function () {
  var root = document.documentElement;
  var system = window.matchMedia("(prefers-color-scheme: dark)");
  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }
  function themed(layout) {
    var style = getComputedStyle(root);
    var ink = style.getPropertyValue("--ink").trim();
    var line = style.getPropertyValue("--line").trim();
    var copy = JSON.parse(JSON.stringify(layout));
    copy.font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink };
    Object.keys(copy).forEach(function (key) {
      if (/^[xy]axis[0-9]*$/.test(key)) {
        Object.assign(copy[key], { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line });
      }
    });
    copy.hoverlabel = Object.assign({}, copy.hoverlabel, {
      bgcolor: style.getPropertyValue("--card").trim(), bordercolor: line, font: { color: ink },
    });
    return copy;
  }
  function draw() {
    document.querySelectorAll(".figure").forEach(function (box) {
      var figure = JSON.parse(document.getElementById(box.dataset.figure).textContent);
      Plotly.react(box, figure.data, themed(figure.layout), { responsive: true, displaylogo: false });
    });
  }
  document.getElementById("theme").addEventListener("click", function () {
    root.dataset.theme = dark() ? "light" : "dark";
    draw();
  });
  system.addEventListener("change", draw);
  draw();
})();
