// Scores one text with the service that this page comes from. Whatever was sent or answered is
// set as text, never as markup.

const LEVELS = [0.08, 0.25, 0.5, 0.75]; // shares of the largest weight, as in the reports
const MOST_WORDS = 20_000;
const TOP = 8;
const PATIENCE = 120_000; // milliseconds
const LONGEST_WAIT = 3_600; // seconds
const STORED = "tamis-key";

const at = (id) => document.getElementById(id);
const form = at("form");
const button = at("score");
let model = null;
let busy = false;
let waiting = 0; // the timer of a wait that the service asked for

// Numbers and words

const count = new Intl.NumberFormat("en");
const several = (n, word) => `${count.format(n)} ${word}${n === 1 ? "" : "s"}`;
const signed = (x, digits) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(digits)}`;
const short = (x) => String(Number(x.toPrecision(4)));

/** Decimals that tell a score from the threshold. */
function decimals(score, threshold) {
  let digits = 2;
  while (digits < 6 && score !== threshold && score.toFixed(digits) === threshold.toFixed(digits)) {
    digits += 1;
  }
  return digits;
}

/** Characters as the service counts them: code points. */
function characters(text) {
  let pairs = 0;
  for (let i = 0; i < text.length - 1; i += 1) {
    if (text.codePointAt(i) > 0xffff) pairs += 1;
  }
  return text.length - pairs;
}

const ACTS = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u061c\\u200e\\u200f\\u2028-\\u202e" +
    "\\u2066-\\u2069\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}\\ud800-\\udfff]",
  "gu",
);

/** A text in which nothing changes the order of what is around it. */
function visible(text) {
  return text.replace(/\r\n?/g, "\n").replace(ACTS, (sign) => {
    const code = sign.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
  });
}

function made(tag, text, kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

// The model

async function askModel(after = 1_000) {
  try {
    const answer = await fetch("model", { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(String(answer.status));
    model = await answer.json();
  } catch {
    at("model").textContent = "The service does not say yet what it serves; asking again.";
    at("key-field").hidden = false;
    setTimeout(askModel, after, Math.min(2 * after, 30_000));
    return;
  }
  const [low, high] = model.scale;
  at("model").textContent =
    `${model.task}, version ${model.version}: a score from ${short(low)} to ${short(high)}; ` +
    `texts are kept from ${short(model.threshold)}.`;
  at("key-field").hidden = !model.auth;
  document.title = `${model.task} · Tamis`;
  recount();
}

function recount() {
  const n = characters(at("text").value);
  const most = model?.limits.characters;
  at("count").textContent = most
    ? `${count.format(n)} of ${several(most, "character")}`
    : several(n, "character");
  at("count").classList.toggle("over", Boolean(most) && n > most);
}

// Asking

function refuse(sentence, field) {
  at("error").textContent = sentence;
  at("error").hidden = false;
  at("result").hidden = true;
  at("told").textContent = "";
  if (field) {
    field.setAttribute("aria-invalid", "true");
    field.focus();
  }
}

function forgive() {
  at("error").hidden = true;
  at("error").textContent = "";
  for (const field of [at("key"), at("text")]) field.removeAttribute("aria-invalid");
}

/** What stands in the way of asking; nothing if it may begin. */
function obstacle(text, key) {
  if (!text.trim()) return ["Paste a text first.", at("text")];
  const most = model?.limits.characters;
  const n = characters(text);
  if (most && n > most) {
    const allowed = `at most ${count.format(most)} are allowed`;
    return [`The text is too long: ${several(n, "character")}, and ${allowed}.`, at("text")];
  }
  if (model?.auth && !key) return ["This service asks for a key.", at("key")];
  if (/[^\x21-\x7e]/.test(key)) return ["The key holds signs that no key has.", at("key")];
  return null;
}

async function submit(event) {
  event?.preventDefault();
  if (busy || waiting) return;
  forgive();
  const raw = at("text").value;
  const key = at("key").value.trim();
  const found = obstacle(raw, key);
  if (found) {
    refuse(...found);
    return;
  }
  const text = raw.toWellFormed?.() ?? raw;
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  if (key && model?.auth !== false) headers.Authorization = `Bearer ${key}`;
  const explain = at("explain").checked;
  working(true);
  const began = performance.now();
  try {
    const answer = await fetch("score", {
      method: "POST",
      headers,
      body: JSON.stringify({ documents: [{ text }], explain }),
      signal: AbortSignal.timeout(PATIENCE),
    });
    const body = await answer.json().catch(() => null);
    const took = performance.now() - began;
    if (answer.ok && body?.documents?.length === 1) {
      if (model?.auth) keep(key);
      await show(body, took);
    } else {
      refused(answer, body);
    }
  } catch (error) {
    refuse(
      error?.name === "TimeoutError"
        ? "The service took too long; it may be busy. Try again."
        : "The service did not answer. Check that it runs and that you are connected.",
    );
  } finally {
    working(false);
  }
}

function working(on) {
  busy = on;
  form.classList.toggle("busy", on);
  form.setAttribute("aria-busy", String(on));
  settle();
  if (on) at("told").textContent = "Scoring…";
}

function settle(seconds = 0) {
  button.setAttribute("aria-disabled", String(busy || seconds > 0));
  button.textContent = busy ? "Scoring…" : seconds > 0 ? `Wait ${seconds} s` : "Score";
}

/** Say why the service refused, and wait where it asks to. */
function refused(answer, body) {
  const said = typeof body?.error?.message === "string" ? visible(body.error.message) : "";
  const after = Math.ceil(Number(answer.headers.get("Retry-After")) || 0);
  const seconds = Math.max(0, Math.min(after, LONGEST_WAIT));
  const again = seconds ? `Try again in ${several(seconds, "second")}.` : "Try again in a while.";
  switch (answer.status) {
    case 401:
      keep("");
      at("key-field").hidden = false;
      refuse("The service does not take this key: it is wrong, or no longer in force.", at("key"));
      break;
    case 413:
      refuse(`This is more than the service takes. ${said}`, at("text"));
      break;
    case 429:
      refuse(`Too many requests with this key. ${again}`);
      break;
    case 503:
      refuse(`The service has too much to do, or is not ready. ${again}`);
      break;
    case 400:
    case 422:
      refuse(`The service cannot read this text. ${said}`, at("text"));
      break;
    default:
      refuse(`The service could not answer (status ${answer.status}). ${said}`);
  }
  if (seconds && (answer.status === 429 || answer.status === 503)) pause(seconds);
}

function pause(seconds) {
  const until = performance.now() + 1_000 * seconds;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1_000);
    if (left <= 0) {
      clearInterval(waiting);
      waiting = 0;
    }
    if (!busy) settle(Math.max(0, left));
  };
  waiting = setInterval(tick, 250);
  setTimeout(tick);
}

/** Keep the key in this tab, and nowhere else; an empty one is forgotten. */
function keep(key) {
  try {
    if (key) sessionStorage.setItem(STORED, key);
    else sessionStorage.removeItem(STORED);
  } catch {
    // A browser without storage asks for it again.
  }
}

// Showing

async function show(body, took) {
  if (model?.digest !== body.model.digest) await askModel();
  const [one] = body.documents;
  const { threshold } = body;
  const [low, high] = model?.scale ?? [Math.min(0, one.score), Math.max(1, one.score)];
  const digits = decimals(one.score, threshold);
  const kept = one.decision === "keep";
  at("value").textContent = one.score.toFixed(digits);
  at("range").textContent = `on a scale from ${short(low)} to ${short(high)}`;
  at("decision").textContent = kept ? "✓ Keep" : "✕ Drop";
  at("decision").classList.toggle("keep", kept);
  at("margin").textContent = signed(one.score - threshold, digits);
  at("tokens").textContent = count.format(one.tokens);
  const quick = took < 1_000;
  at("latency").textContent = quick ? `${Math.round(took)} ms` : `${(took / 1_000).toFixed(1)} s`;
  at("latency-of").textContent = one.explanation ? "to score and explain" : "to score";
  at("version").textContent = `${body.model.task}/${body.model.version}`;
  at("version").title = `${model?.backend ?? ""} ${body.model.digest}`.trim();
  at("request").textContent = body.request_id;
  draw(one.score, threshold, low, high, digits);
  explained(one.explanation, digits);
  at("result").hidden = false;
  at("told").textContent =
    `${kept ? "Keep" : "Drop"}: score ${one.score.toFixed(digits)}, ` +
    `threshold ${threshold.toFixed(digits)}.`;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  at("result").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
}

/** The score and the threshold on their scale. */
function draw(score, threshold, low, high, digits) {
  const place = (x) => (high > low ? 100 * Math.min(1, Math.max(0, (x - low) / (high - low))) : 50);
  const limit = place(threshold);
  at("dot").style.left = `${place(score)}%`;
  at("limit-line").style.left = `${limit}%`;
  at("kept").style.left = `${limit}%`;
  at("limit-label").style.left = `${limit}%`;
  at("limit-label").className = `limit${limit < 15 ? " start" : limit > 85 ? " end" : ""}`;
  at("limit-label").textContent = `threshold ${threshold.toFixed(digits)}`;
  at("ticks").replaceChildren(
    ...Array.from({ length: 6 }, (_, i) => {
      const tick = made("span", short(low + ((high - low) * i) / 5));
      tick.style.left = `${20 * i}%`;
      return tick;
    }),
  );
  at("scale").setAttribute(
    "aria-label",
    `Score ${score.toFixed(digits)} on a scale from ${short(low)} to ${short(high)}; ` +
      `the threshold is ${threshold.toFixed(digits)}.`,
  );
}

function explained(found, digits) {
  at("reasons").hidden = !found;
  at("read").replaceChildren();
  at("readout").textContent = "";
  if (!found) return;
  const words = found.words.slice(0, MOST_WORDS);
  const { unit } = found;
  const largest = words.reduce((most, word) => Math.max(most, Math.abs(word.weight)), 0);
  const shown = Math.max(3, digits);
  at("read").append(coloured(words, found.read, largest, unit, shown));
  if (found.words.length > MOST_WORDS) at("read").append(" … (the rest is not shown)");
  at("readout").textContent = at("read").querySelector("mark")
    ? "Point at a marked word, or walk with the arrow keys, to see what it adds."
    : "No word weighs anything.";
  const ordered = [...words].sort((a, b) => b.weight - a.weight);
  list(at("raising"), ordered.filter((word) => word.weight > 0), shown);
  list(at("lowering"), ordered.reverse().filter((word) => word.weight < 0), shown);
  at("method").textContent =
    `${unit[0].toUpperCase()}${unit.slice(1)} before calibration, by ${found.method}; ` +
    `strength 4 is from 75% of the largest weight, ${largest.toFixed(shown)}, 1 from 8%. ` +
    `The weights start from ${found.base.toFixed(shown)}.`;
}

/** The text that was read, with its words marked. Places count code points, strings do not. */
function coloured(words, read, largest, unit, digits) {
  const found = document.createDocumentFragment();
  const signs = Array.from(read);
  const between = (start, end) => visible(signs.slice(start, end).join(""));
  let done = 0;
  for (const word of words) {
    const share = largest > 0 ? Math.abs(word.weight) / largest : 0;
    const level = LEVELS.filter((bound) => share >= bound).length;
    if (!level) continue;
    const kind = `${word.weight > 0 ? "p" : "n"}${level}`;
    const mark = made("mark", between(word.start, word.end), kind);
    mark.title = `${signed(word.weight, digits)} ${unit}`;
    mark.tabIndex = -1;
    found.append(between(done, word.start), mark);
    done = word.end;
  }
  found.append(between(done, words.length < MOST_WORDS ? undefined : words.at(-1).end));
  return found;
}

function list(body, words, digits) {
  const line = (word, weight) => {
    const found = document.createElement("tr");
    found.append(made("td", word), made("td", weight, "n"));
    return found;
  };
  const lines = words
    .slice(0, TOP)
    .map((word) => line(visible(word.text).slice(0, 60), signed(word.weight, digits)));
  body.replaceChildren(...(lines.length ? lines : [line("None.", "")]));
}

// Reading weights: with the pointer, a finger or the arrow keys

function tell(mark) {
  at("readout").textContent = `“${mark.textContent}” ${mark.title}`;
}

function walk(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
  const marks = [...at("read").querySelectorAll("mark")];
  if (!marks.length) return;
  event.preventDefault();
  const now = marks.indexOf(document.activeElement);
  const next = now < 0 ? (step > 0 ? 0 : marks.length - 1) : now + step;
  marks[Math.min(marks.length - 1, Math.max(0, next))].focus();
}

form.addEventListener("submit", submit);
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(event);
});
at("text").addEventListener("input", recount);
at("read").addEventListener("keydown", walk);
for (const kind of ["pointerover", "focusin", "click"]) {
  at("read").addEventListener(kind, (event) => {
    if (event.target.tagName === "MARK") tell(event.target);
  });
}
for (const example of document.querySelectorAll("[data-text]")) {
  example.addEventListener("click", () => {
    at("text").value = example.dataset.text.replaceAll("\n ", " "); // lines of the markup
    at("text").focus();
    recount();
  });
}
if (/Mac|iPhone|iPad/.test(navigator.platform)) at("hint").textContent = "⌘ + Enter";
try {
  at("key").value = sessionStorage.getItem(STORED) ?? "";
} catch {
  // A browser without storage.
}
recount();
askModel();
