// The run itself: ledger, processes, messages and the graph as a picture, each box with its figures.

import { clock, count, el, lasting, ms, rate, svg, write } from "./format.js"
import { on, store } from "./store.js"

const find = (id) => document.getElementById(id)
const sum = (values) => values.reduce((a, b) => a + b, 0)

/** good, busy or bad: what a state of a process means. */
const mood = (state) => ({ PLAYING: "good", READY: "busy", NULL: "busy" })[state] ?? "bad"

const reasons = (drops) => drops.map(([why, n]) => `${why} ${count(n)}`).join(", ")

function vitals({ cameras, uptime_s, state }) {
  const all = Object.values(cameras)
  const faces = sum(Object.values(store.faces).map((seen) => seen.faces.length))
  const p95 = Math.max(...all.map((camera) => camera.latency_ms?.p95 ?? 0))
  const up = all.filter((camera) => camera.up && !camera.ended).length
  return [
    ["Graph", state.toLowerCase()],
    ["Cameras", `${up} of ${all.length}`],
    ["Faces", String(faces)],
    ["Frames/s", rate(sum(all.map((camera) => camera.fps)))],
    ["Latency p95", p95 ? `${ms(p95)} ms` : "–"],
    ["Running", lasting(uptime_s)],
    ["Viewers", String(store.viewers)],
  ]
}

function showVitals(snapshot) {
  const list = find("vitals")
  vitals(snapshot).forEach(([name, value], index) => {
    const item = list.children[index] ?? list.appendChild(el("div", {}, el("dt", {}, name), el("dd")))
    write(item.lastChild, value)
  })
  list.dataset.state = snapshot.state
  write(find("graph-name"), snapshot.graph)
  document.title = `${snapshot.graph} · emograph`
}

/** Fill a table: rows of [cells, state], cells are texts; a row of one cell is a note to the row above. */
function fill(table, heads, rows) {
  const key = rows.map(([cells]) => (cells.length > 1 ? cells[0] : "")).join()
  if (table.dataset.key !== key || !table.tHead) {
    table.dataset.key = key
    const body = rows.map(([cells]) =>
      cells.length > 1
        ? el("tr", { "data-key": cells[0] }, el("th", { scope: "row" }), ...cells.slice(1).map(() => el("td")))
        : el("tr", { class: "note" }, el("td", { colspan: heads.length })),
    )
    const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)))
    table.replaceChildren(el("thead", {}, head), el("tbody", {}, ...body))
  }
  rows.forEach(([cells, state], index) => {
    const row = table.tBodies[0].rows[index]
    if (row.dataset.state !== state) row.dataset.state = state
    cells.forEach((text, column) => write(row.cells[column], text))
  })
}

function showLedger({ cameras }) {
  const rows = Object.entries(cameras).flatMap(([name, camera]) => {
    const dropped = sum(camera.dropped.map((drop) => drop.count))
    const why = reasons(camera.dropped.map((drop) => [`${drop.reason} in ${drop.node}`, drop.count]))
    const state = camera.up || camera.ended || !camera.since ? "good" : "bad"
    const cells = [name, count(camera.captured), count(camera.delivered), count(dropped), String(camera.in_flight)]
    return dropped ? [[cells, state], [[`dropped: ${why}`], "good"]] : [[cells, state]]
  })
  fill(find("ledger"), ["camera", "captured", "delivered", "dropped", "in flight"], rows)
}

function showProcesses({ processes }) {
  const rows = Object.entries(processes).map(([name, p]) => [
    [name, p.state.toLowerCase(), String(p.restarts), p.cpu.toFixed(2), p.rss_mb.toFixed(0)],
    mood(p.state),
  ])
  fill(find("processes"), ["process", "state", "restarts", "cores", "MB"], rows)
}

function showMessages({ messages }) {
  const rank = { error: 0, warning: 1 }
  const shown = messages
    .map((message, index) => ({ ...message, index }))
    .sort((a, b) => (rank[a.level] ?? 2) - (rank[b.level] ?? 2) || b.index - a.index)
  const list = find("messages")
  const key = shown.map((message) => message.time).join()
  if (list.dataset.key === key) return
  list.dataset.key = key
  list.replaceChildren(
    ...shown.map((m) =>
      el("li", { class: m.level }, el("time", {}, clock(m.time / 1e6)), el("b", {}, m.node), el("span", {}, m.text)),
    ),
  )
}

// The graph ---------------------------------------------------------------------------------------------------

function figures(name, snapshot) {
  const node = snapshot.nodes[name]
  const process = snapshot.processes[node.process]
  const { work_ms: work, batch_items: batch } = node.metrics
  const camera = snapshot.cameras[name]
  const away = camera && !camera.up && !camera.ended && camera.since > 0
  // What a source drops stands in its ledger alone.
  const own = camera?.dropped.filter((drop) => drop.node === name).map((d) => [d.reason, d.count])
  const drops = own ?? Object.entries(node.dropped)
  return {
    state: away && process.state === "PLAYING" ? "CAMERA DOWN" : process.state,
    fps: node.kind === "sink" || node.kind === "source" ? node.in_fps : node.fps,
    work: work ? `${ms(work.p50)} / ${ms(work.p95)} ms` : "–",
    batch: batch ? batch.mean.toFixed(1) : "",
    dropped: sum(drops.map(([, n]) => n)),
    why: reasons(drops),
  }
}

function describe(name, node, f) {
  const parts = [`${name}, ${node.type}`, f.state.toLowerCase(), `${rate(f.fps)} frames per second`, `${f.work} per call`]
  if (f.batch) parts.push(`batch of ${f.batch}`)
  parts.push(f.dropped ? `dropped ${f.why}` : "nothing dropped")
  return parts.join(", ")
}

let boxes = {}

function drawGraph(drawing, snapshot) {
  const { width, height, box: [w, h], place, links } = drawing
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Nodes and their links" })
  picture.style.setProperty("--natural", `${width}px`)
  picture.append(
    svg("defs", {}, svg("marker", { id: "tip-of-link", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
      svg("path", { d: "M0 0 8 4 0 8z" }))),
    ...links.map(([a, b, path]) => svg("path", { class: "link", d: path, "marker-end": "url(#tip-of-link)" }, svg("title", {}, `${a} to ${b}`))),
  )
  boxes = {}
  for (const [name, node] of Object.entries(snapshot.nodes)) {
    const [x, y] = place[name]
    const text = (cls, dx, dy, anchor = "start") => svg("text", { class: cls, x: dx, y: dy, "text-anchor": anchor })
    const parts = {
      title: svg("title"),
      name: text("name", 14, 24),
      type: text("type", w - 24, 24, "end"),
      fps: text("fps", 14, 50),
      work: text("small", w - 12, 50, "end"),
      batch: text("small", 14, 68),
      drops: text("drops", 14, 84),
    }
    parts.name.textContent = name
    parts.type.textContent = node.type
    const group = svg("g", { class: `node ${node.kind}`, transform: `translate(${x} ${y})`, role: "img" },
      svg("rect", { class: "plate", width: w, height: h, rx: 10 }), svg("rect", { class: "edge", width: 4, height: h - 20, x: 0, y: 10, rx: 2 }),
      svg("circle", { class: "lamp", cx: w - 13, cy: 19.5, r: 4.5 }), ...Object.values(parts))
    group.dataset.node = name
    boxes[name] = { group, ...parts }
    picture.append(group)
  }
  find("picture").replaceChildren(picture)
}

function showGraph(snapshot, drawing) {
  const key = JSON.stringify(drawing)
  if (find("picture").dataset.key !== key) {
    find("picture").dataset.key = key
    drawGraph(drawing, snapshot)
  }
  const rows = []
  for (const [name, box] of Object.entries(boxes)) {
    const node = snapshot.nodes[name]
    const f = figures(name, snapshot)
    const state = mood(f.state)
    if (box.group.dataset.state !== state) box.group.dataset.state = state
    const text = describe(name, node, f)
    box.group.setAttribute("aria-label", text)
    write(box.title, text)
    write(box.fps, state === "good" ? `${rate(f.fps)}/s` : f.state.toLowerCase())
    write(box.work, f.work)
    write(box.batch, f.batch ? `batch ${f.batch}` : "")
    write(box.drops, f.dropped ? `dropped ${shorten(f.why)}` : "")
    rows.push([[name, node.type, f.state.toLowerCase(), rate(f.fps), f.work, f.batch || "–", f.why || "none"], state])
  }
  fill(find("nodes"), ["node", "type", "state", "frames/s", "p50 / p95", "batch", "dropped"], rows)
}

const shorten = (text) => (text.length > 22 ? `${text.slice(0, 21)}…` : text)

export function start() {
  on("snapshot", () => {
    const { snapshot, drawing } = store
    if (!snapshot) return
    showVitals(snapshot)
    showLedger(snapshot)
    showProcesses(snapshot)
    showMessages(snapshot)
    showGraph(snapshot, drawing)
  })
}
