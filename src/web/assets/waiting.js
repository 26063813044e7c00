(function () {
  var gone = 0, shut = 0, failed, d = document;
  function el(id) { return d.getElementById(id); }
  function say(text) { if (el("status")) el("status").textContent = text; }
  function go() { if (!gone) { gone = 1; if (events) events.close(); location.reload(); } }
  function look() {
    if (el("ready")) return go();
    if (el("failed")) return;
    if (failed) { say(failed); if (el("retry")) el("retry").hidden = false; } else if (shut) setTimeout(go, d.readyState === "loading" ? 5000 : 1000);
  }
  d.addEventListener("DOMContentLoaded", look);
  d.addEventListener("click", function (e) { if (e.target.className === "again") { e.preventDefault(); gone = 0; go(); } });
  addEventListener("pageshow", function (e) { if (e.persisted) { gone = 0; go(); } });
  if (!window.EventSource || el("failed")) return;
  var events = new EventSource("/.dormouse/progress?path=" + encodeURIComponent(location.pathname));
  events.addEventListener("progress", function (e) {
    var told = JSON.parse(e.data), list = el("dependencies");
    say(told.status);
    if (!list) return;
    list.textContent = "";
    told.dependencies.forEach(function (line) { list.appendChild(d.createElement("li")).textContent = line; });
  });
  events.addEventListener("ready", function () { events.close(); go(); });
  events.addEventListener("failed", function (e) { events.close(); failed = JSON.parse(e.data).status; setTimeout(look, 500); });
  events.onerror = function () { if (events.readyState === 2) { shut = 1; look(); } };
})();
