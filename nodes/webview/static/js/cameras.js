// The mosaic: a card for each camera with its live picture and, beside it, who is in view.

import { FaceList } from "./faces.js"
import { clock, el, lasting, ms, rate, write } from "./format.js"
import { on, store } from "./store.js"
import { hide, show } from "./video.js"

const cards = new Map()

/** What a camera is just now: "up", "down", "ended" or "waiting", and in words. */
export function condition(camera) {
  const state = store.snapshot?.cameras[camera]
  if (!state) return ["waiting", "Waiting for the camera"]
  if (state.ended) return ["ended", "The stream has ended"]
  if (!state.up && state.since) {
    const since = state.since / 1e6
    const reason = state.reason ? `\n${state.reason}` : ""
    return ["down", `Down since ${clock(since)} (${lasting((store.now() - since) / 1000)})${reason}`]
  }
  const process = Object.values(store.snapshot.processes).find((p) => p.nodes.includes(camera))
  if (process && process.state !== "PLAYING" && store.snapshot.state === "PLAYING") {
    return ["down", `Its process is ${process.state.toLowerCase()}`]
  }
  if (store.snapshot.state === "STARTING") return ["waiting", "Starting"]
  return state.up ? ["up", ""] : ["waiting", "Waiting for its first frame"]
}

/** Put a camera's condition onto its picture. */
export function showCondition(screen, away, camera) {
  const [what, text] = condition(camera)
  screen.dataset.state = what
  write(away, text)
  away.hidden = !text
  return what
}

class Card {
  constructor(camera, open) {
    this.camera = camera
    this.canvas = el("canvas", { width: 640, height: 480, "aria-hidden": "true" })
    this.figures = el("span", { class: "figures" })
    this.away = el("span", { class: "away", hidden: true })
    this.screen = el(
      "button",
      { class: "screen", "aria-label": `${camera}: show alone, full size`, onclick: () => open(camera) },
      this.canvas,
      this.away,
    )
    const list = el("ul", { class: "faces" })
    this.number = el("small")
    this.faces = new FaceList(list, camera)
    this.element = el(
      "article",
      { class: "camera panel", "aria-label": `Camera ${camera}` },
      el("header", {}, el("i", { class: "dot", "aria-hidden": "true" }), el("h2", {}, camera), this.figures),
      this.screen,
      el("div", { class: "beside" }, el("h3", {}, "Faces in view ", this.number), list),
    )
    this.element.dataset.camera = camera
    this.visible = false
    this.state = ""
  }

  see(visible) {
    this.visible = visible
    if (visible) {
      show(this.canvas, this.camera, "tile")
      this.updateFaces()
    } else hide(this.canvas)
  }

  updateFaces() {
    if (this.visible) write(this.number, String(this.faces.update()))
  }

  updateFigures() {
    const state = showCondition(this.screen, this.away, this.camera)
    this.element.dataset.state = state
    const figures = store.snapshot?.cameras[this.camera]
    write(this.figures, figures ? `${rate(figures.fps)} fps · ${ms(figures.latency_ms?.p50)} ms` : "")
    if (this.state && state !== this.state) say(`Camera ${this.camera} is ${state}`)
    this.state = state
  }
}

function say(text) {
  write(document.getElementById("said"), text)
}

export function start(open) {
  const section = document.getElementById("cameras")
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) cards.get(entry.target.dataset.camera)?.see(entry.isIntersecting)
  })
  on("hello", () => {
    for (const card of cards.values()) card.faces.clear() // visits count anew where the server is another
    if ([...cards.keys()].join() === store.cameras.join()) return
    for (const card of cards.values()) hide(card.canvas)
    cards.clear()
    seen.disconnect()
    section.replaceChildren()
    for (const camera of store.cameras) {
      const card = new Card(camera, open)
      cards.set(camera, card)
      section.append(card.element)
      seen.observe(card.element)
    }
    section.dataset.size = store.cameras.length <= 4 ? "large" : store.cameras.length <= 9 ? "medium" : "small"
  })
  on("faces", () => cards.forEach((card) => card.updateFaces()))
  on("samples", () => cards.forEach((card) => card.updateFaces()))
  on("snapshot", () => cards.forEach((card) => card.updateFigures()))
  on("theme", () => cards.forEach((card) => card.faces.clear()))
}
