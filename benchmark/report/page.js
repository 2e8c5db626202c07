// One form drives the table and all charts; everything it chooses from was made in Python.
const at = (id) => document.getElementById(id);
const memory = {};
const held = (id) => (memory[id] ??= JSON.parse(at(id).textContent));
const form = at("controls").elements;
const page = held("page");
const tables = {}, charts = {};

// What has no value comes last, whichever way a column is sorted.
const ordered = (sign) => (a, b) => (a === null) - (b === null) || sign * (a - b);
DataTable.type("score", { detect: () => false, order: { asc: ordered(1), desc: ordered(-1) } });

// The sort value, mean, half-width, mark (1 best, 2 second), seeds where fewer, and what a tooltip has.
function number([value, mean, half = "", mark = 0, fewer = "", seeds = 0, deviation = "", low = "", high = ""], kind) {
  if (kind !== "display") return value;
  const tag = ["span", "b", "u"][mark];
  const spread = seeds === 1 ? "one seed" : seeds ? `${seeds} seeds, sd ${deviation}` : "";
  const title = spread + (low && `, bootstrap 95 %: ${low} to ${high}`);
  // What few cells have stands before the number, so that the numbers of a column stay in line.
  return `${fewer && `<i>${fewer}</i> `}<${tag} title="${title}">${mean}</${tag}><small>${half && "± " + half}</small>`;
}

function table(id) {
  if (!tables[id]) {
    tables[id] = new DataTable(`#${id}`, { ...page.table, columnDefs: [{ targets: "number", render: number }], ...held(id + "-data") });
    const box = at(id).parentElement;
    Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: at(id).ariaLabel });
  }
  return tables[id];
}

function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) select.value = before;
}

async function draw(name, data, signals, words) {
  const figure = at(name);
  const empty = !data.records.length;
  figure.classList.toggle("empty", empty);
  if (empty) return;
  const chart = figure.querySelector(".chart");
  chart.setAttribute("aria-label", words);
  if (!charts[name]) {
    const spec = page.charts[name];
    // With its first records from the start: scales of nothing warn.
    const sources = spec.data.map((source) => ({ ...source, ...(data[source.name] && { values: data[source.name] }) }));
    charts[name] = vegaEmbed(chart, { ...spec, data: sources }, page.embed);
  }
  const { view } = await charts[name];
  for (const [signal, value] of Object.entries(signals)) view.signal(signal, value);
  for (const [source, records] of Object.entries(data)) view.data(source, records);
  await view.runAsync();
}

function show(event) {
  const changed = event?.target;
  const number = form.dataset.value;
  const view = held(`view-${number}`);
  if (changed === undefined || changed === form.dataset) {
    for (const part of document.querySelectorAll("[data-view]"))
      part.hidden = !part.dataset.view.split(" ").includes(number);
    fill(form.metric, view.metrics.map((id) => [id, page.metrics[id].name]));
    fill(form.model, Object.keys(view.curves).map((of) => [view.names[of], view.names[of]]));
  }
  if (changed?.name === "family")
    for (const box of changed.closest("fieldset").querySelectorAll("[name=column]")) box.checked = changed.checked;
  const metric = form.metric.value;
  const board = table(`table-${number}`);
  if (changed === form.metric) {
    at(`column-${metric}`).checked = true;
    board.order([board.column(`${metric}:name`).index(), page.metrics[metric].better === "higher" ? "desc" : "asc"]);
  }
  for (const box of document.querySelectorAll("[name=column]")) {
    const column = board.column(`${box.value}:name`);
    if (column.any() && column.visible() !== box.checked) column.visible(box.checked, false);
  }
  board.search(form.filter.value).draw();
  if (changed === form.metric) {
    const box = at(`table-${number}`).parentElement;
    box.scrollLeft = board.column(`${metric}:name`).header().offsetLeft - box.clientWidth / 2;
  }

  const kept = new Set(board.rows({ search: "applied" }).data().toArray().map((row) => row.of));
  const names = new Set([...kept].map((of) => view.names[of]));
  for (const card of document.querySelectorAll("[data-model]"))
    card.hidden = card.dataset.group !== `${view.group}` || !names.has(card.dataset.model);
  const lines = (view.scores[metric] ?? []).filter((line) => kept.has(line.of))
    .map((line, order) => ({ ...line, ...view.costs[line.of], order, seeds: view.seeds }));
  const few = lines.slice(0, page.most);
  at("cropped").hidden = few.length === lines.length;
  at("cropped").textContent = `The best ${few.length} of ${lines.length} are drawn; filter models to see others.`;
  const { label, better } = page.metrics[metric] ?? {};
  const words = `${label} on ${view.dataset}. Best first: ` + few.slice(0, 5).map((line) => `${line.name} ${line.text}`).join("; ");
  draw("seeds", { records: few }, { heading: label }, words);

  const chosen = Number(form.cost.value);
  const spent = lines.filter((line) => line.costs[chosen] > 0);
  const front = spent.filter((line) => line.fronts?.[chosen]).map((line) => line.name);
  draw("cost", { records: spent }, { heading: label, better, chosen, unit: page.costs[chosen] },
    `${label} against ${page.costs[chosen]} on ${view.dataset}. On the Pareto front: ${front.join("; ") || "none"}`);
  at("corner").textContent = page.corners[better] ?? "";

  const terms = view.curves[view.names.indexOf(form.model.value)] ?? {};
  fill(form.term, Object.keys(terms).map((term) => [term, term]));
  draw("curves", { records: terms[form.term.value] ?? [] }, { heading: `${form.term.value} of ${form.model.value}` },
    `${form.term.value} of ${form.model.value} on ${view.dataset}, by epoch`);

  const ranking = held(`ranking-${view.group}`);
  if (ranking.records.length) {
    table(`places-${view.group}`).search(form.filter.value).draw();
    draw("ranks", ranking, {}, at(`ranking-words-${view.group}`).textContent);
  } else draw("ranks", ranking, {}, "");
}

document.addEventListener("input", show);
show();
