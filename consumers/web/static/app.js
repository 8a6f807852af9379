// The page: takes rows of books from the stream, draws what is visible once per frame, and asks for nothing else.

const TEXTS = {
  en: {
    books: "Books", feeders: "Feeders", readers: "Readers", events: "Events", filter: "filter: BTC, upbit, stale",
    live: "live", suspect: "suspect", closed: "closed", stale: "stale", feeder_down: "feeder down", missing: "missing",
    halted: "halted", auction: "auction", delisted: "delisted", caution: "caution", warning: "warning",
    all_live: n => `${n} books live`, not_live: (n, all) => `${n} of ${all} books NOT live`, none: "no books on the bus yet",
    lost: s => `Connection lost ${s} s ago: the figures below are old. Reconnecting …`, bus: "The bus cannot be read: ",
    age: "age", rate: "updates/s", spread: "spread", price: "price", quantity: "quantity", total: "sum", mid: "mid",
    ladder: "Ladder", depth: "Cumulative depth", history: "Mid and spread (bps), last two minutes", delay: "Delay of the newest update",
    exchange_to_feeder: "exchange → feeder", feeder_to_server: "feeder → server", unknown: "unknown",
    feeder: "feeder", exchange: "exchange", host: "host", up: "up", accepted: "accepted", confirmed: "confirmed", reconnects: "reconnects",
    audit: "audit", lines: "lines", line: "line", silent: "SILENT", reader: "reader", state: "state", lag: "lag", received: "received",
    conflated: "conflated", missed: "missed", symbols: "symbols", time: "time", was: "was", became: "became", after: "after", reason: "reason",
    no_feeders: "no feeder is alive", no_readers: "no reader is connected", no_events: "no book changed its state since this page's server started",
    back: "back", update: "update", seq: "seq", theme: "dark / light", other: "한국어",
    keys: "keys: 1–4 views · / filter · arrows and Enter open a book · Esc back · t theme · l language",
  },
  ko: {
    books: "호가창", feeders: "피더", readers: "구독자", events: "이벤트", filter: "필터: BTC, upbit, 지연",
    live: "정상", suspect: "의심", closed: "종료", stale: "지연", feeder_down: "피더 중단", missing: "없음",
    halted: "거래 정지", auction: "단일가 매매", delisted: "상장 폐지", caution: "주의", warning: "유의",
    all_live: n => `호가창 ${n}개 정상`, not_live: (n, all) => `호가창 ${all}개 중 ${n}개 비정상`, none: "아직 호가창이 없습니다",
    lost: s => `연결이 ${s}초 전에 끊겼습니다. 아래 값은 오래된 값입니다. 다시 연결하는 중 …`, bus: "버스를 읽을 수 없습니다: ",
    age: "경과", rate: "초당 갱신", spread: "스프레드", price: "가격", quantity: "수량", total: "누적", mid: "중간값",
    ladder: "호가", depth: "누적 수량", history: "중간값과 스프레드(bps), 최근 2분", delay: "최근 갱신의 지연",
    exchange_to_feeder: "거래소 → 피더", feeder_to_server: "피더 → 서버", unknown: "알 수 없음",
    feeder: "피더", exchange: "거래소", host: "호스트", up: "가동", accepted: "반영", confirmed: "확인", reconnects: "재연결",
    audit: "감사", lines: "회선", line: "회선", silent: "무응답", reader: "구독자", state: "상태", lag: "지연", received: "수신",
    conflated: "병합", missed: "누락", symbols: "종목", time: "시각", was: "이전", became: "이후", after: "지속", reason: "사유",
    no_feeders: "가동 중인 피더가 없습니다", no_readers: "연결된 구독자가 없습니다", no_events: "이 페이지의 서버가 시작된 뒤 상태 변화가 없습니다",
    back: "뒤로", update: "갱신", seq: "순번", theme: "어둡게 / 밝게", other: "English",
    keys: "단축키: 1–4 화면 · / 필터 · 화살표와 Enter 호가창 열기 · Esc 뒤로 · t 테마 · l 언어",
  },
};

const SILENCE_MS = 1500, FIRST_RETRY_MS = 250, LAST_RETRY_MS = 2000, LADDER_LEVELS = 20, READERS_MS = 3000, KEPT_EVENTS = 200;
const $ = id => document.getElementById(id);
const kept = key => { try { return localStorage.getItem(key); } catch { return null; } };
const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private window */ } };

let language = kept("language") || (navigator.language.startsWith("ko") ? "ko" : "en");
let theme = kept("theme") || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
let texts = TEXTS[language];
const rows = new Map(), tiles = new Map();
let view = "books", open = null, book = null, feeders = [], readers = null, readersError = "", events = [], busError = "";
let socket = null, heardAt = 0, everHeard = false, retryMs = FIRST_RETRY_MS, drawing = false, order = "";

// elements

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter(child => child !== null && child !== undefined));
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function setText(target, text) { if (target.textContent !== text) target.textContent = text; }
function setData(target, key, value) { if (target.dataset[key] !== value) target.dataset[key] = value; }

// figures

const price = (value, decimals) => value === null || value === undefined ? "–" : value.toFixed(decimals);
const quantity = value => value >= 1000 ? value.toFixed(0) : value >= 1 ? value.toFixed(3) : value.toPrecision(4);
const stateOf = row => texts[row.status === "live" && row.urgency ? row.trading : row.status];
const bps = value => value === null || value === undefined ? "–" : `${value.toFixed(2)} bps`;
function seconds(value) {
  if (value === null || value === undefined) return "–";
  return value < 60 ? `${value.toFixed(1)} s` : value < 7200 ? `${(value / 60).toFixed(0)} min` : `${(value / 3600).toFixed(0)} h`;
}
const clock = at => new Date(at * 1000).toLocaleTimeString(language, { hour12: false });

function points(values, width, height) {
  const low = Math.min(...values), span = Math.max(...values) - low || 1;
  return values.map((value, i) => `${(i / Math.max(values.length - 1, 1) * width).toFixed(1)},${(height - 2 - (value - low) / span * (height - 4)).toFixed(1)}`).join(" ");
}

// the stream

function connect() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  socket = new WebSocket(`${scheme}//${location.host}/api/stream`);
  const mine = socket;
  socket.onopen = () => { retryMs = FIRST_RETRY_MS; rows.clear(); events = []; ask(); };
  socket.onmessage = message => { if (mine === socket) take(JSON.parse(message.data)); };
  socket.onclose = () => {
    if (mine !== socket) return;
    socket = null;
    setTimeout(connect, retryMs);
    retryMs = Math.min(retryMs * 2, LAST_RETRY_MS);
  };
}

function ask() {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ open: open || "" }));
}

function take(message) {
  heardAt = performance.now();
  everHeard = true;
  for (const row of message.books) rows.set(`${row.exchange}:${row.symbol}`, row);
  for (const key of message.gone) rows.delete(key);
  feeders = message.feeders;
  busError = message.error;
  if (message.events.length) events = events.concat(message.events).slice(-KEPT_EVENTS);
  book = message.book && open === `${message.book.row.exchange}:${message.book.row.symbol}` ? message.book : open ? book : null;
  schedule();
}

function schedule() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; draw(); });
}

setInterval(() => {
  // A connection that is open but silent is lost too.
  if (socket && socket.readyState === WebSocket.OPEN && everHeard && performance.now() - heardAt > 2 * SILENCE_MS) socket.close();
  if (performance.now() - heardAt > SILENCE_MS) schedule();
}, 250);

async function readReaders() {
  if (view === "readers" && !document.hidden) {
    try {
      const answer = await fetch("/api/readers"), body = await answer.json();
      readers = answer.ok ? body : [];
      readersError = answer.ok ? "" : body.error;
    } catch { readersError = ""; }
    schedule();
  }
  setTimeout(readReaders, READERS_MS);
}

// drawing

function draw() {
  const silent = everHeard && performance.now() - heardAt > SILENCE_MS;
  const lost = silent ? texts.lost(Math.round((performance.now() - heardAt) / 1000)) : busError ? texts.bus + busError : "";
  $("alarm").hidden = !lost;
  setText($("alarm"), lost);
  document.body.dataset.connected = everHeard && !silent ? "yes" : "no";
  const wrong = [...rows.values()].filter(row => row.urgency).length;
  const level = lost || wrong ? "bad" : rows.size ? "good" : "warn";
  setData($("light"), "level", level);
  setText($("light"), !rows.size ? texts.none : wrong ? texts.not_live(wrong, rows.size) : texts.all_live(rows.size));
  document.title = wrong ? `(${wrong}) bookbus` : "bookbus";
  for (const id of ["books", "book", "feeders", "readers", "events"]) $(id).hidden = id !== (view === "books" && open ? "book" : view);
  if (view === "books" && open) drawBook(); else if (view === "books") drawTiles();
  else if (view === "feeders") drawFeeders(); else if (view === "readers") drawReaders(); else drawEvents();
}

function matching() {
  const wanted = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [...rows.entries()].filter(([key, row]) => wanted.every(word => `${key} ${row.status} ${row.trading} ${stateOf(row)}`.toLowerCase().includes(word)));
  return found.sort(([a, x], [b, y]) => y.urgency - x.urgency || (a < b ? -1 : 1));
}

function makeTile(key) {
  const parts = { state: element("span", { class: "state" }), bid: element("span", { class: "bid" }), ask: element("span", { class: "ask" }) };
  for (const name of ["spread", "age", "rate"]) parts[name] = element("span");
  parts.reason = element("p", { class: "reason" });
  parts.spark = drawn("polyline", {});
  const picture = drawn("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" });
  picture.append(parts.spark);
  const [exchange, symbol] = key.split(":");
  const name = element("div", { class: "name" }, element("span", {}, `${symbol} `, element("span", { class: "exchange" }, exchange)), parts.state);
  parts.tile = element("button", { class: "tile", "data-key": key }, name, element("div", { class: "prices" }, parts.bid, parts.ask),
    element("div", { class: "figures" }, parts.spread, parts.age, parts.rate), picture, parts.reason);
  parts.tile.addEventListener("click", () => show(key));
  return parts;
}

function drawTiles() {
  const found = matching(), now = found.map(([key]) => key).join();
  for (const [key, row] of found) {
    let parts = tiles.get(key);
    if (!parts) tiles.set(key, parts = makeTile(key));
    if (parts.row === row && parts.language === language) continue;
    parts.row = row;
    parts.language = language;
    setData(parts.tile, "urgency", String(row.urgency));
    setData(parts.tile, "status", row.status);
    setText(parts.state, stateOf(row));
    setText(parts.bid, price(row.bid, row.decimals));
    setText(parts.ask, price(row.ask, row.decimals));
    setText(parts.spread, bps(row.spread_bps));
    setText(parts.age, `${texts.age} ${seconds(row.age)}`);
    setText(parts.rate, `${row.rate.toFixed(1)}/s`);
    setText(parts.reason, row.reason);
    if (row.spark.length > 1) parts.spark.setAttribute("points", points(row.spark, 100, 20));
  }
  if (now !== order) {
    order = now;
    const focused = document.activeElement?.dataset?.key;
    $("books").replaceChildren(...found.map(([key]) => tiles.get(key).tile));
    if (focused && tiles.has(focused)) tiles.get(focused).tile.focus({ preventScroll: true });
  }
}

function drawBook() {
  if (!book) { $("book").replaceChildren(element("p", { class: "dim" }, "…")); return; }
  const { row } = book, digits = row.decimals;
  const back = element("button", {}, `← ${texts.back}`);
  back.addEventListener("click", () => show(null));
  const head = element("div", { class: "headline" }, back, element("h2", {}, `${row.symbol} `, element("span", { class: "dim" }, row.exchange)),
    element("span", { class: row.urgency ? "badge wrong" : "badge" }, stateOf(row)), element("span", {}, row.reason),
    element("span", { class: "dim" }, `${texts.mid} ${row.bid && row.ask ? ((row.bid + row.ask) / 2).toFixed(digits + 1) : "–"} · ${texts.spread} ${bps(row.spread_bps)} · ${texts.age} ${seconds(row.age)} · ${row.rate.toFixed(1)} ${texts.rate} · ${texts.update} ${book.update_id ?? "–"} · ${texts.seq} ${book.seq} · ${texts.feeder} ${row.feeder || "–"}`));
  const left = element("div", {}, panel(texts.ladder, ladder(book, digits)));
  const right = element("div", {}, panel(texts.depth, depthChart(book, digits)), panel(texts.history, historyChart(book, digits)), panel(texts.delay, delays(book)), panel(texts.events, eventTable(book.events)));
  const focused = $("book").contains(document.activeElement);
  $("book").replaceChildren(head, element("div", { class: "columns" }, left, right));
  if (focused) back.focus();
}

const panel = (title, content) => element("div", { class: "panel" }, element("h3", {}, title), content);

function ladder(full, digits) {
  const bids = full.bids.slice(0, LADDER_LEVELS), asks = full.asks.slice(0, LADDER_LEVELS).reverse();
  const most = Math.max(...bids.map(level => level[1]), ...asks.map(level => level[1]), 1e-12);
  const line = ([at, amount], side) => {
    const bar = element("span", { class: `bar ${side}` });
    bar.style.width = `${(amount / most * 100).toFixed(1)}%`;
    return element("tr", {}, element("td", { class: side === "sell" ? "ask" : "bid" }, at.toFixed(digits)), element("td", {}, bar, quantity(amount)));
  };
  const middle = element("tr", { class: "middle" }, element("td", { colspan: "2" }, bps(full.row.spread_bps)));
  const heading = element("tr", {}, element("th", {}, texts.price), element("th", {}, texts.quantity));
  return element("table", { class: "ladder" }, element("thead", {}, heading), element("tbody", {}, ...asks.map(level => line(level, "sell")), middle, ...bids.map(level => line(level, ""))));
}

function depthChart(full, digits) {
  const picture = drawn("svg", { class: "chart", viewBox: "0 0 400 140", role: "img", "aria-label": texts.depth });
  const sums = side => { let sum = 0; return side.map(([at, amount]) => [at, sum += amount]); };
  const bids = sums(full.bids), asks = sums(full.asks);
  if (!bids.length || !asks.length) return picture;
  const low = bids[bids.length - 1][0], high = asks[asks.length - 1][0], most = Math.max(bids[bids.length - 1][1], asks[asks.length - 1][1]);
  const x = at => (at - low) / (high - low || 1) * 400, y = sum => 122 - sum / most * 116;
  for (const [side, name] of [[bids, "area-bid"], [asks, "area-ask"]]) {
    let path = `M${x(side[0][0]).toFixed(1)},122`, before = 122;
    for (const [at, sum] of side) { path += ` L${x(at).toFixed(1)},${before.toFixed(1)} L${x(at).toFixed(1)},${y(sum).toFixed(1)}`; before = y(sum); }
    picture.append(drawn("path", { class: name, d: `${path} L${x(side[side.length - 1][0]).toFixed(1)},122 Z` }));
  }
  label(picture, 0, 136, low.toFixed(digits)); label(picture, 400, 136, high.toFixed(digits), "end"); label(picture, 200, 12, quantity(most), "middle");
  return picture;
}

function label(picture, x, y, text, anchor = "start") {
  const made = drawn("text", { x, y, "text-anchor": anchor });
  made.textContent = text;
  picture.append(made);
}

function historyChart(full, digits) {
  const picture = drawn("svg", { class: "chart", viewBox: "0 0 400 140", role: "img", "aria-label": texts.history });
  if (full.points.length < 2) return picture;
  const midPrices = full.points.map(point => point[1]), spreads = full.points.map(point => point[2]);
  picture.append(drawn("polyline", { points: points(midPrices, 400, 90) }));
  const under = drawn("g", { transform: "translate(0,95)" });
  under.append(drawn("polyline", { class: "second", points: points(spreads, 400, 42) }));
  picture.append(under);
  label(picture, 2, 12, Math.max(...midPrices).toFixed(digits + 1)); label(picture, 2, 88, Math.min(...midPrices).toFixed(digits + 1)); label(picture, 398, 136, bps(spreads[spreads.length - 1]), "end");
  return picture;
}

function delays(full) {
  const known = value => value === null ? texts.unknown : `${value.toFixed(1)} ms`;
  return table([], Object.entries(full.hops).map(([hop, value]) => [[texts[hop], known(value)], false]));
}

function table(headings, lines) {
  const cell = (name, text, i) => element(name, i === 0 ? { class: "text" } : {}, text);
  const body = lines.map(([cells, wrong]) => element("tr", wrong ? { class: "wrong" } : {}, ...cells.map((text, i) => cell("td", text, i))));
  const head = headings.length ? element("thead", {}, element("tr", {}, ...headings.map((text, i) => cell("th", text, i)))) : null;
  return element("div", { class: "scroll" }, element("table", {}, head, element("tbody", {}, ...body)));
}

function drawFeeders() {
  if (!feeders.length) { $("feeders").replaceChildren(element("p", {}, texts.no_feeders)); return; }
  const lines = [];
  for (const one of feeders) {
    const count = name => (one.counters[name] ?? 0).toLocaleString(language);
    const ratio = one.match_ratio === null ? "–" : `${(one.match_ratio * 100).toFixed(2)} %`;
    lines.push([[one.feeder, one.exchange, one.host, seconds(one.up), `${one.live}/${one.books}`, count("accepted"), count("confirmed"), count("reconnects"), ratio], one.live < one.books]);
    for (const line of one.lines) lines.push([[`  ${texts.line} ${line.line}${line.silent ? ` ${texts.silent}` : ""}`, "", "", "", `${line.open}/${line.connections}`, String(line.first), String(line.updates), String(line.reconnects), ""], line.silent]);
  }
  $("feeders").replaceChildren(panel(texts.feeders, table([texts.feeder, texts.exchange, texts.host, texts.up, texts.live, texts.accepted, texts.confirmed, texts.reconnects, texts.audit], lines)));
}

function drawReaders() {
  if (readersError) { $("readers").replaceChildren(element("p", {}, readersError)); return; }
  if (!readers) { $("readers").replaceChildren(element("p", {}, "…")); return; }
  if (!readers.length) { $("readers").replaceChildren(element("p", {}, texts.no_readers)); return; }
  const lines = readers.map(one => {
    const record = one.record || {}, shown = value => value === null || value === undefined ? "–" : value.toLocaleString(language);
    const lag = record.lag === null || record.lag === undefined ? "–" : `${(record.lag * 1000).toFixed(1)} ms`;
    return [[one.name, `${one.state}${one.reason ? `: ${one.reason}` : ""}`, record.exchange || "–", shown(record.symbols?.length), lag, shown(record.received), shown(record.conflated), shown(record.missed)], one.state === "slow" || one.state === "stopped"];
  });
  $("readers").replaceChildren(panel(texts.readers, table([texts.reader, texts.state, texts.exchange, texts.symbols, texts.lag, texts.received, texts.conflated, texts.missed], lines)));
}

function eventTable(list) {
  if (!list.length) return element("p", { class: "dim" }, texts.no_events);
  const lines = [...list].reverse().map(one => [[`${clock(one.at)} ${one.exchange} ${one.symbol}`, texts[one.before], texts[one.status], seconds(one.seconds), one.reason], one.status !== "live"]);
  return table([texts.time, texts.was, texts.became, texts.after, texts.reason], lines);
}

function drawEvents() { $("events").replaceChildren(panel(texts.events, eventTable(events))); }

// what the user does

function show(key) {
  open = key;
  book = null;
  view = "books";
  order = "";
  history.replaceState(null, "", key ? `#${key}` : location.pathname);
  ask();
  labelButtons();
  schedule();
}

function look(name) { open = null; view = name; order = ""; ask(); labelButtons(); schedule(); }

function labelButtons() {
  texts = TEXTS[language];
  document.documentElement.lang = language;
  document.documentElement.dataset.theme = theme;
  for (const button of document.querySelectorAll("nav button")) {
    button.textContent = texts[button.dataset.view];
    button.setAttribute("aria-pressed", String(button.dataset.view === view));
  }
  $("filter").placeholder = texts.filter;
  $("filter").setAttribute("aria-label", texts.filter);
  $("language").textContent = texts.other;
  $("theme").textContent = texts.theme;
  $("keys").textContent = texts.keys;
}

function switchLanguage() { language = language === "en" ? "ko" : "en"; keep("language", language); labelButtons(); schedule(); }
function switchTheme() { theme = theme === "dark" ? "light" : "dark"; keep("theme", theme); labelButtons(); }

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { if (open) show(null); else { $("filter").value = ""; document.activeElement.blur(); schedule(); } return; }
  if (event.target === $("filter")) { if (event.key === "Enter") document.querySelector(".tile")?.focus(); return; }
  const views = { 1: "books", 2: "feeders", 3: "readers", 4: "events" };
  if (views[event.key]) look(views[event.key]);
  else if (event.key === "/") { event.preventDefault(); $("filter").focus(); }
  else if (event.key === "t") switchTheme();
  else if (event.key === "l") switchLanguage();
  else if (event.key.startsWith("Arrow") && view === "books" && !open) move(event);
});

function move(event) {
  const all = [...document.querySelectorAll(".tile")], at = all.indexOf(document.activeElement);
  if (!all.length) return;
  const across = Math.max(1, all.filter(tile => tile.offsetTop === all[0].offsetTop).length);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
  event.preventDefault();
  all[at < 0 ? 0 : Math.min(Math.max(at + step, 0), all.length - 1)].focus();
}

for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => look(button.dataset.view));
$("language").addEventListener("click", switchLanguage);
$("theme").addEventListener("click", switchTheme);
$("filter").addEventListener("input", () => { if (view !== "books" || open) look("books"); else schedule(); });
if (/^#[a-z]+:.+/.test(location.hash)) open = decodeURIComponent(location.hash.slice(1));
if (location.search.includes("token=")) history.replaceState(null, "", location.pathname + location.hash);
labelButtons();
connect();
readReaders();
